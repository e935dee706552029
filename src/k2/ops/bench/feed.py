"""One feed handler's own processor time a frame: receive, decode, log durably.

`k2 feed binance` and, by turns, the floor (`feed_floor.py`) are fed by the same player over loopback. What counts is
the user and system time of the handler's process from before the first frame until the last trade is durable.
"""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from k2.config import Config, instruments
from k2.core.codec import trades_stream
from k2.ops.bench import Outcome, Picture
from k2.ops.bench.lab import Lab, LabError, Process
from k2.ops.bench.samples import middle
from k2.ops.report import Check, at_most, equal
from k2.wire import open_log

CPU_TARGET_US = 12.0
LOADED = 20_000  # frames/s from which the target holds: below, waking the process costs more than the frames
RATIO_TARGET = 1.8
CONNECT_WITHIN = 20.0


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rates: Annotated[tuple[int, ...], Meta(description="Frames a second, one series each.")] = (10_000, 20_000)
    seconds: Annotated[float, Meta(description="Length of one measured play.")] = 5.0
    rounds: Annotated[int, Meta(description="Plays of each kind at each rate, by turns.")] = 7
    warm_up: Annotated[float, Meta(description="Seconds played before measuring starts.")] = 1.0
    tick_ms: Annotated[float, Meta(description="Time between two writes of the player.")] = 1.0


class Play(msgspec.Struct, frozen=True):
    """One measured play."""

    kind: str
    rate: int
    cpu_us_per_frame: float
    cpu_percent: float
    late_ms: float
    lost: int


def run(lab: Lab, parameters: Parameters) -> Outcome:
    """Measure."""
    plays: list[Play] = []
    for number in range(parameters.rounds):
        for rate in parameters.rates:
            for kind, play in (("k2", _handler), ("floor", _floor)):
                plays.append(play(lab, parameters, rate, number))
                lab.say(f"round {number + 1}, {rate:,}/s, {kind}: {plays[-1].cpu_us_per_frame:.2f} us a frame")
    results = [_at_rate(plays, rate) for rate in parameters.rates]
    checks: list[Check] = []
    for at in results:
        name = f"at {at['rate']:,} frames/s"
        if at["rate"] >= LOADED:
            checks.append(at_most(f"CPU a frame {name}", at["k2_us"], CPU_TARGET_US, "us"))
        checks.append(at_most(f"CPU a frame over its floor {name}", at["ratio"], RATIO_TARGET, "x"))
    checks.append(equal("frames lost", sum(play.lost for play in plays), 0))
    columns = ("frames/s", "k2 us", "floor us", "ratio", "k2 CPU %")
    rows = [[f"{at['rate']:,}", at["k2_us"], at["floor_us"], at["ratio"], at["k2_cpu_percent"]] for at in results]
    return Outcome(
        {"rates": results, "plays": [msgspec.to_builtins(play) for play in plays], **lab.place()},
        checks,
        [Picture("Processor time a frame (medians)", columns, rows)],
        {"plays": [msgspec.to_builtins(play) for play in plays]},
    )


def _at_rate(plays: list[Play], rate: int) -> dict[str, Any]:
    k2 = [play for play in plays if play.kind == "k2" and play.rate == rate]
    floor = [play for play in plays if play.kind == "floor" and play.rate == rate]
    k2_us = middle([play.cpu_us_per_frame for play in k2])
    floor_us = middle([play.cpu_us_per_frame for play in floor])
    return {
        "rate": rate,
        "k2_us": k2_us,
        "floor_us": floor_us,
        "ratio": round(k2_us / floor_us, 3),
        "k2_cpu_percent": middle([play.cpu_percent for play in k2], 1),
        "player_late_ms": round(max(play.late_ms for play in k2 + floor), 1),
    }


def _handler(lab: Lab, parameters: Parameters, rate: int, number: int) -> Play:
    player = lab.partner("k2.ops.bench.player")
    port = player.hear(10)["port"]
    venue = msgspec.structs.replace(
        lab.base.exchanges.binance, ws_url=f"ws://127.0.0.1:{port}/stream", rest_url="http://127.0.0.1:9"
    )
    config = lab.config(f"feed-{number}-{rate}", exchanges={"binance": venue})
    config = msgspec.structs.replace(config, instruments="")
    handler = lab.k2(config, "feed-handler-binance", ["feed", "binance"])
    lab.ready(config, handler)
    log = open_log(config)
    try:
        return _play(lab, parameters, "k2", rate, player, handler, lambda: log.bounds(trades_stream("binance"))[1])
    finally:
        log.close()
        lab.stop(handler, player)


def _floor(lab: Lab, parameters: Parameters, rate: int, number: int) -> Play:
    player = lab.partner("k2.ops.bench.player")
    url = f"ws://127.0.0.1:{player.hear(10)['port']}/stream"
    folder = lab.folder / f"floor-{number}-{rate}"
    handler = lab.partner("k2.ops.bench.feed_floor", url, str(folder), str(lab.base.feed.linger_ms))

    def stored() -> int:
        handler.tell({})
        return int(handler.hear(10)["stored"])

    try:
        return _play(lab, parameters, "floor", rate, player, handler, stored)
    finally:
        lab.stop(handler, player)


def _play(
    lab: Lab, parameters: Parameters, kind: str, rate: int, player: Process, handler: Process, stored: Callable[[], int]
) -> Play:
    player.tell({"symbols": len(instruments(Config().instruments_file)["binance"])})
    player.hear(CONNECT_WITHIN)
    warm, frames = max(1, int(parameters.warm_up * rate)), int(parameters.seconds * rate)
    _sent(player, warm, rate, parameters.tick_ms)
    lab.until(lambda: stored() >= warm, f"{kind} to store {warm:,} frames", every=0.1)
    before = handler.cpu()
    sent = _sent(player, frames, rate, parameters.tick_ms)
    lab.until(lambda: stored() >= warm + frames, f"{kind} to store {frames:,} frames", every=0.1)
    used = handler.cpu() - before
    return Play(
        kind,
        rate,
        round(used / frames * 1e6, 3),
        round(used / sent["seconds"] * 100, 1),
        round(sent["late_ms"], 1),
        warm + frames - stored(),
    )


def _sent(player: Process, frames: int, rate: int, tick_ms: float) -> dict[str, float]:
    player.tell({"frames": frames, "rate": rate, "tick_ms": tick_ms})
    sent: dict[str, float] = player.hear(frames / rate + 20)
    if "error" in sent:
        raise LabError("the handler closed its socket while frames were played; run again with --keep and read its log")
    return sent
