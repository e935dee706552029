"""What the web serves: the live stream at two rates, a day's candles, a million trades as Arrow, the page.

The stream is measured on a whole platform with the simulator: every trade, by id, at every subscriber. The rest is
asked of a web and a store that hold days of candles and a million trades; the floor is the same SQL straight in chDB.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from k2.ops.bench import Outcome, serve_page, serve_questions
from k2.ops.bench.lab import Lab
from k2.ops.bench.rig import Rig
from k2.ops.bench.serve_stream import Crowd, measure


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seconds: Annotated[float, Meta(description="Length of each series of the stream.")] = 30.0
    warm_up: Annotated[float, Meta(description="Seconds at the rate before a series counts.")] = 3.0
    subscribers: Annotated[int, Meta(description="Subscribers for the latency.")] = 50
    rate: Annotated[int, Meta(description="Trades a second for the latency.")] = 500
    many: Annotated[int, Meta(description="Subscribers under load.")] = 200
    load: Annotated[int, Meta(description="Trades a second under load.")] = 5_000
    days: Annotated[int, Meta(description="Days of candles that the store holds.")] = 7
    candles: Annotated[int, Meta(description="Questions for a day's candles that each client asks a turn.")] = 100
    trades: Annotated[int, Meta(description="Trades of the answer in Arrow.")] = 1_000_000
    rounds: Annotated[int, Meta(description="Turns of the questions.")] = 5
    loads: Annotated[int, Meta(description="Loads of the page in a browser.")] = 5


def run(lab: Lab, parameters: Parameters) -> Outcome:
    """Measure."""
    crowds = (
        Crowd(parameters.subscribers, parameters.rate, latency=True),
        Crowd(parameters.many, parameters.load, latency=False),
    )
    with Rig(lab, "serve", 0) as rig:
        found = [measure(lab, rig, crowd, parameters.seconds, parameters.warm_up) for crowd in crowds]
        page = serve_page.measure(lab, rig, parameters.rate, parameters.loads)
    asked = serve_questions.measure(lab, parameters.days, parameters.candles, parameters.trades, parameters.rounds)
    checks = [*(check for one in found for check in one.checks), *asked.checks, *page.checks]
    pictures = [*(one.picture for one in found), *asked.pictures, page.picture]
    results = {"stream": [one.results for one in found], **asked.results, "page": page.results, **lab.place()}
    return Outcome(results, checks, pictures)
