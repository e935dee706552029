"""A series of the latency bench as it is played: one rate, by the clock, whatever the platform does (open loop)."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from k2.config import EXCHANGES
from k2.core.codec import trades_stream
from k2.ops.bench.lab import Lab, Process
from k2.ops.bench.rig import Rig

MADE_WITHIN = 120.0  # s until the generator has made all that was due


class Series(NamedTuple):
    """What a series has left behind to be figured out. Times in ns.

    Exchange times before `since` are warm-up, those before `before` count, those before `asked` had a reader who asked
    at the same time, and those after it are what was made until trading stopped. `offsets`: stream to its offsets,
    first and end (exclusive). `cores`: of each process while it counted. `lag_s`: how far behind the clock the
    generator was when counting ended.
    """

    rate: int
    since: int
    before: int
    asked: int
    offsets: Mapping[str, tuple[int, int]]
    cores: Mapping[str, float]
    answers: Sequence[Mapping[str, Any]]
    lag_s: float
    clock_moved_ns: int


def ends(rig: Rig) -> dict[str, int]:
    """The next offset of each exchange's trades."""
    return {stream: rig.log.bounds(stream)[1] for stream in map(trades_stream, EXCHANGES)}


def play(
    lab: Lab,
    rig: Rig,
    partners: Mapping[str, Process],
    rate: int,
    warm_up: float,
    seconds: float,
    reader_seconds: float,
) -> Series:
    """Trade at a rate, let the reader ask, and wait until everything is visible. Raises LabError."""
    lab.say(
        f"{rate:,} trades/s: {warm_up:g} s of warm-up, {seconds:g} s that count, {reader_seconds:g} s with a reader"
    )
    begins, clock = ends(rig), _clock()
    rig.rate(rate)
    time.sleep(warm_up)
    counted = {**rig.processes, "subscriber": partners["subscriber"]}
    since, cpu = time.time_ns(), {name: process.cpu() for name, process in counted.items()}
    time.sleep(seconds)
    before, used = time.time_ns(), {name: process.cpu() - cpu[name] for name, process in counted.items()}
    lag_s = float(rig.sim("status")["behind_s"])
    answers: list[Mapping[str, Any]] = []
    if reader_seconds:
        partners["reader"].tell({"seconds": reader_seconds, "since": before})
        answers = partners["reader"].hear(reader_seconds + 60)["answers"]
    asked = time.time_ns()
    lab.until(lambda: _made_until(rig) >= before, "the generator to make what was due", MADE_WITHIN)
    lab.say(f"{rate:,} trades/s: waiting until all is visible")
    rig.drain()
    offsets = {stream: (begins[stream], end) for stream, end in ends(rig).items()}
    cores = {name: round(taken / seconds, 3) for name, taken in used.items()}
    return Series(rate, since, before, asked, offsets, cores, answers, lag_s, abs(_clock() - clock))


def _made_until(rig: Rig) -> int:
    """All trades due before this time (ns) have been made."""
    now = time.time_ns()
    return now - round(float(rig.sim("status")["behind_s"]) * 1e9)


def _clock() -> int:
    """The wall clock less the one that nobody sets, ns."""
    return time.time_ns() - time.monotonic_ns()
