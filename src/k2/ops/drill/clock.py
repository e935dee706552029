"""Clocks that are wrong: an exchange's, and the machine's own."""

from collections.abc import Callable
from pathlib import Path

from k2.config import EXCHANGES
from k2.ops.drill import Drill
from k2.ops.drill.exchange import ordered
from k2.ops.drill.needs import faketime_library
from k2.ops.drill.rehearsal import Setup
from k2.ops.drill.stage import Stage

VICTIM = EXCHANGES[0]
SKEW_S = 5.0
STEP_S = 30
STEPPED_S = 8.0
CLOCK = "clock"


def _own_clock(setup: Setup) -> None:
    """Every process of the platform reads its wall clock through libfaketime, which reads the offset from a file. The
    monotonic clock stays as it is: a step of a machine's clock does not touch it either."""
    file = setup.folder / CLOCK
    _set(file, 0)
    setup.environ |= {
        "LD_PRELOAD": str(faketime_library()),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _set(file: Path, seconds: int) -> None:
    part = file.with_suffix(".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(f"{seconds:+d}s\n")
    part.replace(file)


def _stepped(seconds: int) -> Callable[[Stage], None]:
    """An act: the machine's clock jumps by so many seconds, and later back."""

    def act(stage: Stage) -> None:
        file = stage.platform.setup.folder / CLOCK
        with stage.failing():
            _set(file, seconds)
            try:
                stage.hold(STEPPED_S)
            finally:
                _set(file, 0)

    return act


_SEEN = ("metric:k2_exchange_clock_offset_seconds*",)

DRILLS = (
    Drill(
        name="clock-skew",
        summary=f"{VICTIM}'s clock is {SKEW_S:.0f} s ahead for {STEPPED_S:.0f} s, then is slewed back",
        expectation="the offset shows; trades are told apart by id and not by time: the flow is not interrupted",
        act=ordered(("clock-skew", {"amount": SKEW_S}), exchange=VICTIM, seconds=STEPPED_S),
        seen_by=_SEEN,
        spares=EXCHANGES,
    ),
    Drill(
        name="clock-behind",
        summary=f"{VICTIM}'s clock is {SKEW_S:.0f} s behind for {STEPPED_S:.0f} s",
        expectation="the offset shows; trades are told apart by id and not by time: the flow is not interrupted",
        act=ordered(("clock-skew", {"amount": -SKEW_S}), exchange=VICTIM, seconds=STEPPED_S),
        seen_by=_SEEN,
        spares=EXCHANGES,
    ),
    Drill(
        name="clock-stepped-ahead",
        summary=f"the platform's own clock jumps {STEP_S} s ahead, and back after {STEPPED_S:.0f} s",
        expectation="the offset to every exchange shows; waiting goes by the monotonic clock, so the flow is not"
        " interrupted",
        act=_stepped(STEP_S),
        prepare=_own_clock,
        needs=("faketime",),
        seen_by=_SEEN,
        spares=EXCHANGES,
    ),
    Drill(
        name="clock-stepped-back",
        summary=f"the platform's own clock jumps {STEP_S} s back, and forth again after {STEPPED_S:.0f} s",
        expectation="as when it jumps ahead; what is received meanwhile bears earlier times, and is in its place by id",
        act=_stepped(-STEP_S),
        prepare=_own_clock,
        needs=("faketime",),
        seen_by=_SEEN,
        spares=EXCHANGES,
    ),
)
