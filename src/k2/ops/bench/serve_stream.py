"""The live stream measured on a whole platform: from receipt at our socket into every subscriber's hands."""

import time
from typing import Any, NamedTuple

from k2.config import EXCHANGES
from k2.core.codec import decode_trade, trades_stream
from k2.ops.bench import Picture
from k2.ops.bench.lab import Lab
from k2.ops.bench.rig import Ids, Rig, truth
from k2.ops.bench.samples import spread
from k2.ops.report import Check, at_most, equal

LATENCY_TARGET_MS = 15.0


class Crowd(NamedTuple):
    """So many subscribers of every trade, at so many trades a second. `latency`: whether the target for it holds."""

    subscribers: int
    rate: int
    latency: bool


class Found(NamedTuple):
    results: dict[str, Any]
    checks: list[Check]
    picture: Picture


def measure(lab: Lab, rig: Rig, crowd: Crowd, seconds: float, warm_up: float) -> Found:
    """Subscribe, trade by the clock, and compare what each subscriber got with what the simulator made. Open loop."""
    lab.say(f"{crowd.subscribers} subscribers, {crowd.rate:,} trades/s for {seconds:g} s")
    url = f"ws{rig.config.web_url.removeprefix('http')}/v1/stream"
    partner = lab.partner("k2.ops.bench.serve_subscribers", url, str(crowd.subscribers), config=rig.config)
    partner.hear(60)
    earlier = _markets(rig)
    begins = {stream: rig.log.bounds(stream)[1] for stream in map(trades_stream, EXCHANGES)}
    rig.rate(crowd.rate)
    time.sleep(warm_up)
    since, cpu = time.time_ns(), {name: process.cpu() for name, process in rig.processes.items()}
    partner_cpu = partner.cpu()
    time.sleep(seconds)
    before = time.time_ns()
    used = {name: process.cpu() - cpu[name] for name, process in rig.processes.items()}
    used["subscribers"] = partner.cpu() - partner_cpu
    rig.drain()
    made = {market: _since(ids, earlier.get(market)) for market, ids in _markets(rig).items()}
    partner.tell({"since": since, "before": before, "stop": sum(tally.number for tally in made.values())})
    heard = partner.hear(120)
    lab.stop(partner)
    durable = _durable(rig, begins, since, before)
    lost = sum(_lost(made, tally) * number for tally, number in heard.pop("tallies"))
    results = {
        "subscribers": crowd.subscribers,
        "rate": crowd.rate,
        "trades_made": sum(tally.number for tally in made.values()),
        "lost_or_twice": lost,
        "cores": {name: round(taken / seconds, 3) for name, taken in used.items()},
        "web_rss_mb": round(rig.processes["web"].memory().rss / 1e6, 1),
        "durable_ms": spread(durable, 1e-6),
        **heard,
    }
    return Found(results, _checks(crowd, results), _picture(results))


def _durable(rig: Rig, begins: dict[str, int], since: int, before: int) -> list[int]:
    """How long it took from the receipt of each trade in the window until its commit to the log began, in ns."""
    found = []
    for stream, begin in begins.items():
        offset = begin
        while batches := rig.log.read(stream, offset):
            for batch in batches:
                times = (decode_trade(value).recv_ts for value in batch.values)
                found += [batch.append_ts - at for at in times if since <= at < before]
            offset = batches[-1].end
    return found


class Tally(NamedTuple):
    """The trades of one symbol: how many, their greatest id, and their ids' sum."""

    number: int
    last: int
    total: int


def _markets(rig: Rig) -> dict[str, Ids]:
    """What the simulator has made."""
    return {f"{venue}:{symbol}": ids for (venue, symbol, _), ids in truth(rig.config.data_dir).items()}


def _since(ids: Ids, earlier: Ids | None) -> Tally:
    number, total = (earlier.number, earlier.total) if earlier else (0, 0)
    return Tally(ids.number - number, ids.last if ids.number > number else 0, ids.total - total)


def _lost(made: dict[str, Tally], got: dict[str, list[int]]) -> int:
    """How many trades differ from the truth, each missing or repeated one counted; ids that differ count as one."""
    found = 0
    for market in made.keys() | got.keys():
        wanted, tally = made.get(market, Tally(0, 0, 0)), Tally(*got.get(market, (0, 0, 0)))
        found += max(abs(wanted.number - tally.number), int(wanted != tally))
    return found


def _checks(crowd: Crowd, results: dict[str, Any]) -> list[Check]:
    what = f"{crowd.subscribers} subscribers at {crowd.rate:,} trades/s"
    checks = [
        equal(f"{what}: trades lost, or sent twice", results["lost_or_twice"], 0),
        equal(f"{what}: messages that did not follow the one before", results["broken"], 0),
        equal(f"{what}: subscribers cut off", results["closed"], 0),
    ]
    if crowd.latency:
        p99 = results["latency_ms"].get("p99")
        checks.append(at_most(f"{what}: receive to subscriber, p99", p99, LATENCY_TARGET_MS, "ms"))
    return checks


def _picture(results: dict[str, Any]) -> Picture:
    columns = ("", "p50", "p90", "p99", "p99.9", "max")
    stages = (("receive → log, ms", "durable_ms"), ("receive → subscriber, ms", "latency_ms"))
    rows = [[title, *(results[key].get(column) for column in columns[1:])] for title, key in stages]
    cores = ", ".join(f"{name} {share:.0%}" for name, share in results["cores"].items())
    title = (
        f"{results['subscribers']} subscribers at {results['rate']:,} trades/s: {results['trades']:,} trades in"
        f" {results['messages']:,} messages ({cores} of a core)"
    )
    return Picture(title, columns, rows)
