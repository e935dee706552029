"""How long every trade takes from the exchange to silver, its candle and a subscriber, segment by segment.

The simulator trades at each rate by the clock, whatever the platform does (open loop), and a trade's time counts from
when it was due. All processes note when each batch passed them (`metrics.trace`); joined with the log by offset that
gives the times of every single trade: none is sampled, none left out. A subscriber of the live stream takes part, and
after each window a reader asks for silver and candles, by turns, and must find what was noted as visible. Every trade
is then looked for by its id in log, store and stream. All clocks are one machine's CLOCK_REALTIME.
"""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from k2 import trace
from k2.config import EXCHANGES
from k2.core.codec import trades_stream
from k2.core.islands import Islands
from k2.log import Batch, Log
from k2.ops.bench import Outcome
from k2.ops.bench.lab import Lab, LabError, Process
from k2.ops.bench.latency_figures import identities, lost, of_series
from k2.ops.bench.latency_join import Trades, buckets, lapses
from k2.ops.bench.latency_metrics import Counts, counted, different
from k2.ops.bench.latency_page import drawing, page, pictures
from k2.ops.bench.latency_play import Series, play
from k2.ops.bench.rig import Ids, Rig, Symbol, missing, truth
from k2.ops.report import Check, at_least, at_most, equal
from k2.wire import open_log

TARGETS_MS = ((500, 15.0), (5_000, 40.0))  # exchange to silver, p99: up to so many trades/s
FASTEST_TARGET_MS = 150.0  # above
CANDLE_TARGET_MS = 10.0
MADE_AT_LEAST = 0.8  # of the rate: arrivals are random, and few at the lowest rate
COUNTED_WITHIN = 10.0  # s until the last trades are in the histograms: processes hand theirs over once a second
LAST_STAGES = ("decoded_to_durable", "receive_to_visible")  # of feed handlers, of the loader
PAGES = {"markdown": page, "svg": drawing}


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rates: Annotated[tuple[int, ...], Meta(description="Trades a second over all venues, one series each.")] = (
        50, 250, 500, 5_000, 20_000, 50_000,
    )  # fmt: skip
    venues: Annotated[tuple[str, ...], Meta(description="The exchanges that trade.")] = EXCHANGES
    seconds: Annotated[float, Meta(description="Length of each series' window that counts.")] = 20.0
    warm_up: Annotated[float, Meta(description="Seconds at the rate before; reported apart.")] = 3.0
    reader_seconds: Annotated[float, Meta(description="Seconds after it with a reader; 0: no reader.")] = 6.0
    reader_pause_ms: Annotated[float, Meta(description="The reader's pause between two questions.")] = 20.0


class Played(NamedTuple):
    """The run, as it is to be figured out: what was made, and what the store, the stream and the metrics hold of it."""

    series: list[Series]
    made: dict[Symbol, Ids]
    stored: tuple[dict[Symbol, Ids], int]
    subscriber: dict[str, Any]
    histograms: Counts


def run(lab: Lab, parameters: Parameters) -> Outcome:
    """Measure."""
    if unknown := set(parameters.venues) - set(EXCHANGES):
        raise LabError(f"there is no exchange {', '.join(sorted(unknown))}: name some of {', '.join(EXCHANGES)}")
    folder = lab.folder / "trace"
    with Rig(lab, "latency", 0, folder, parameters.venues) as rig:
        played = _played(lab, rig, parameters)
        config = rig.config
    lab.say("joining every trade's times")
    log = open_log(config)
    try:
        return _outcome(lab, parameters, played, log, folder)
    finally:
        log.close()


def _played(lab: Lab, rig: Rig, parameters: Parameters) -> Played:
    url = f"ws{rig.config.web_url.removeprefix('http')}/v1/stream"
    subscriber = lab.partner("k2.ops.bench.latency_subscriber", url, config=rig.config)
    reader = lab.partner("k2.ops.bench.reader", str(parameters.reader_pause_ms), config=rig.config)
    partners: dict[str, Process] = {"subscriber": subscriber, "reader": reader}
    for partner in partners.values():
        partner.hear(60)
    lengths = parameters.warm_up, parameters.seconds, parameters.reader_seconds
    series = [play(lab, rig, partners, rate, *lengths) for rate in parameters.rates]
    made = truth(rig.config.data_dir)
    subscriber.tell({"stop": sum(ids.number for ids in made.values())})
    heard = subscriber.hear(60)
    lab.stop(subscriber, reader)
    histograms = _histograms(lab, rig, sum(ids.number for ids in made.values()))
    return Played(series, made, rig.stored(), heard, histograms)


def _histograms(lab: Lab, rig: Rig, trades: int) -> Counts:
    """What the metrics say once all trades are in them, or in the end, if they never are: a check tells."""
    found: Counts = {}

    def whole() -> bool:
        found.update(counted(rig.config.run_dir))
        held = {stage: sum(sum(counts) for (of, _), counts in found.items() if of == stage) for stage in LAST_STAGES}
        return min(held.values()) >= trades

    try:
        lab.until(whole, "the metrics to hold every trade", COUNTED_WITHIN, every=0.2)
    except LabError as error:
        lab.say(str(error))
    return found


def _outcome(lab: Lab, parameters: Parameters, played: Played, log: Log, folder: Path) -> Outcome:
    noted = {stage: trace.read(folder, stage) for stage in ("sent", "logged", "loaded", "received")}
    expected: Counts = {}
    known: dict[Symbol, Islands] = {}
    found, raw, logged_twice, again = [], {}, 0, 0
    for series in played.series:
        stretches = []
        for exchange in EXCHANGES:
            stream = trades_stream(exchange)
            trades = _read(log, exchange, *series.offsets[stream])
            again += trades.join("decoded", "durable", noted["logged"].get(stream, ()))
            again += trades.join("read", "visible", noted["loaded"].get(stream, ()))
            again += trades.join("subscriber", "subscriber", noted["received"].get(stream, ()))
            trades.join_sent(noted["sent"])
            stretches.append(trades)
            for stage, counts in buckets(trades).items():
                before = expected.setdefault((stage, exchange), [0] * len(counts))
                expected[stage, exchange] = [a + b for a, b in zip(before, counts, strict=True)]
        logged_twice += identities(stretches, known)
        found.append(of_series(series, stretches, parameters.seconds))
        columns = [one.between(series.since, series.before) for one in stretches]
        raw[f"exchange to visible ns at {series.rate}/s"] = [
            time for one in columns for time in lapses(one, ("exchange", "visible"))
        ]
    results = {
        "series": found,
        "proof": _proof(played, known, logged_twice),
        "noted_again": again,
        "histograms_different": different(expected, played.histograms),
        **lab.place(),
    }
    return Outcome(results, _checks(results), pictures(results), raw)


def _read(log: Log, exchange: str, first: int, end: int) -> Trades:
    """The trades of a stretch of an exchange's stream."""

    def batches() -> Any:
        offset = first
        while offset < end:
            for batch in log.read(trades_stream(exchange), offset):
                if batch.offset < end:
                    yield _cut(batch, end)
                offset = batch.end

    return Trades(exchange, first, batches())


def _cut(batch: Batch, end: int) -> Batch:
    return batch if batch.end <= end else batch._replace(values=batch.values[: end - batch.offset])


def _proof(played: Played, logged: dict[Symbol, Islands], logged_twice: int) -> dict[str, Any]:
    """Trades made, and how many of them each place lacks or has twice, by id."""
    heard = played.subscriber
    streamed = {_symbol(name): Islands.from_list(ranges) for name, ranges in heard["markets"].items()}
    stored, stored_twice = played.stored
    return {
        "made": sum(ids.number for ids in played.made.values()),
        "log": {"lost": lost(played.made, logged), "twice": logged_twice},
        "silver": {"lost": missing(played.made, stored), "twice": stored_twice},
        "stream": {"lost": lost(played.made, streamed), "twice": heard["twice"]},
        "messages": heard["messages"],
        "messages_that_did_not_follow": heard["broken"],
        "subscriber_cut_off": heard["closed"],
    }


def _symbol(name: str) -> Symbol:
    exchange, symbol, epoch = name.split("/")
    return exchange, symbol, int(epoch)


def target_ms(rate: int) -> float:
    """What exchange to silver may take at a rate, p99."""
    return next((target for up_to, target in TARGETS_MS if rate <= up_to), FASTEST_TARGET_MS)


def _checks(results: dict[str, Any]) -> list[Check]:
    checks = []
    for one in results["series"]:
        at, p99 = f"at {one['rate']:,} trades/s", one["ways"]["exchange_to_visible"].get("p99")
        checks.append(at_most(f"exchange to silver {at}, p99", p99, target_ms(one["rate"]), "ms"))
        if one["candle"]["questions"]:
            candle = one["candle"]
            checks += [
                at_most(f"silver to candle {at}, p99", candle["silver_to_candle"].get("p99"), CANDLE_TARGET_MS, "ms"),
                equal(
                    f"visible trades that an answer lacked {at}", candle["silver_untrue"] + candle["candle_untrue"], 0
                ),
            ]
        checks.append(at_least(f"trades made {at}", one["made_per_s"], one["rate"] * MADE_AT_LEAST, "1/s"))
    proof = results["proof"]
    checks += [
        equal(f"trades {what} in {name}", proof[place][what], 0)
        for place, name in (("log", "the log"), ("silver", "silver"), ("stream", "the live stream"))
        for what in ("lost", "twice")
    ]
    moved = max((one["clock_moved_ms"] for one in results["series"]), default=0.0)
    return [
        *checks,
        equal("trades without a time at every stage", sum(one["untimed"] for one in results["series"]), 0),
        equal("trades that k2_stage_seconds counts otherwise", results["histograms_different"], 0),
        at_most("the clock was set by", moved, 1.0, "ms"),
    ]
