"""From every trade's times to figures: quantiles of each segment by venue and in all, and what made the slowest so."""

from collections.abc import Mapping, Sequence
from typing import Any

from k2.core.islands import Islands
from k2.ops.bench import latency_candle
from k2.ops.bench.latency_join import GENERATOR, POINTS, SEGMENTS, WAYS, Trades, lapses, slowest, untimed
from k2.ops.bench.latency_play import Series
from k2.ops.bench.rig import Ids, Symbol
from k2.ops.bench.samples import spread

SLOWEST = 0.01  # of the trades, by exchange to silver: where did they spend their time
_GROUPS = {"segments": SEGMENTS, "ways": WAYS, "generator": GENERATOR}
Times = Mapping[str, Sequence[int]]


def of_series(series: Series, stretches: Sequence[Trades], seconds: float) -> dict[str, Any]:
    """The figures of one series; `stretches` are its trades, a stretch for each exchange."""
    venues = {one.exchange: one.between(series.since, series.before) for one in stretches if len(one)}
    whole = _together(list(venues.values()))
    number = len(whole["exchange"])
    return {
        "rate": series.rate,
        "trades": number,
        "made_per_s": round(number / seconds, 1),
        "untimed": sum(untimed(one.times) for one in stretches),
        "backfilled": sum(one.live.count(0) for one in stretches),
        "generator_behind_s": series.lag_s,
        "clock_moved_ms": round(series.clock_moved_ns / 1e6, 3),
        **_spreads(whole),
        "venues": {name: {"trades": len(times["exchange"]), **_spreads(times)} for name, times in venues.items()},
        "slowest": {name: round(mean / 1e6, 3) for name, mean in slowest(whole, SLOWEST).items()},
        "phases": _phases(series, stretches),
        "candle": latency_candle.figures(stretches, series.answers, series.before, series.asked),
        "cores": dict(series.cores),
    }


def _together(columns: Sequence[Times]) -> dict[str, list[int]]:
    return {point: [time for one in columns for time in one[point]] for point in POINTS}


def _spreads(times: Times) -> dict[str, dict[str, Any]]:
    """Every group's segments, in ms."""
    return {
        group: {name: spread(lapses(times, points), 1e-6) for name, points in segments.items()}
        for group, segments in _GROUPS.items()
    }


def _phases(series: Series, stretches: Sequence[Trades]) -> dict[str, dict[str, Any]]:
    """Every trade of the series is in one of these: nothing that was made is left out silently."""
    bounds = (0, series.since, series.before, series.asked, 1 << 62)
    names = ("warm_up", "counted", "with_reader", "until_the_end")
    found = {}
    for name, since, before in zip(names, bounds, bounds[1:], strict=False):
        columns = [one.between(since, before) for one in stretches]
        times = [time for one in columns for time in lapses(one, WAYS["exchange_to_visible"])]
        found[name] = {"trades": sum(len(one["exchange"]) for one in columns), **spread(times, 1e-6)}
        del found[name]["count"]
    return found


def identities(stretches: Sequence[Trades], known: dict[Symbol, Islands]) -> int:
    """Put the ids of these trades into `known`; returns how many were in there already."""
    twice = 0
    for one in stretches:
        books = {counter: known.setdefault((one.exchange, *counter), Islands()) for counter in set(one.counters)}
        twice += sum(not books[counter].add(i) for counter, i in zip(one.counters, one.ids, strict=True))
    return twice


def lost(made: Mapping[Symbol, Ids], have: Mapping[Symbol, Islands]) -> int:
    """How many of the trades that were made are not there. The simulator's ids have no holes."""
    return sum(
        last - first + 1
        for symbol, ids in made.items()
        for first, last in have.get(symbol, Islands()).holes(ids.first, ids.last)
    )
