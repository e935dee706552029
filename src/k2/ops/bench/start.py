"""From `k2 demo` in an empty folder to the first candle that can be read.

The clock starts before the process does and stops when a reader has a row of `ohlcv_1m`.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from k2.ops.bench import Outcome, Picture
from k2.ops.bench.demonstration import Demonstration
from k2.ops.bench.lab import Lab
from k2.ops.bench.samples import middle
from k2.ops.report import below

TARGET_S = 8.0


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rounds: Annotated[int, Meta(description="Starts, each in a fresh folder.")] = 3
    rate: Annotated[float, Meta(description="Trades a second that the simulator makes.")] = 50.0


def run(lab: Lab, parameters: Parameters) -> Outcome:
    """Measure."""
    starts, stops = [], []
    for number in range(parameters.rounds):
        demonstration = Demonstration(lab, f"start-{number}", parameters.rate)
        starts.append(round(demonstration.first_candle(), 3))
        lab.until(demonstration.complete, "every process to run")
        stops.append(round(demonstration.stop(), 3))
        lab.say(f"first candle after {starts[-1]} s; stopped in {stops[-1]} s")
    found = {"first_candle_s": middle(starts), "starts_s": starts, "stops_s": stops, **lab.place()}
    picture = Picture("From `k2 demo` to the first candle, s", ("median", "each"), [[found["first_candle_s"], starts]])
    checks = [below("first candle after the start", middle(starts), TARGET_S, "s")]
    return Outcome(found, checks, [picture], {"starts s": starts})
