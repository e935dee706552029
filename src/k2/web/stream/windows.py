"""Candles from the store's one-minute parts: what is asked, kept, and merged into longer windows, exactly.

A part is a candle of distinct trades with what merging needs. Minutes are kept by the hour, hours by the day; longer
windows are merged from those. Numbers are integers in units of 10^-18 (10^-36 for `quote_volume`).
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import msgspec

from k2.ask.merge import PRICE, QUOTE, Minute, units
from k2.core.candle import INTERVALS

MINUTE, HOUR, DAY = 60, 3_600, 86_400
MOST_SPANS = 4_096  # symbol-hours, and symbol-days, that are kept


class Market(NamedTuple):
    exchange: str
    symbol: str


class Span(NamedTuple):
    """Minutes to be asked for: one (60 s), those of an hour (3600 s), or the hours of a day (86400 s)."""

    market: Market
    start: int
    seconds: int


class Window(NamedTuple):
    """A candle's place. `start` in seconds since 1970."""

    market: Market
    interval: str
    start: int

    @property
    def end(self) -> int:
        return self.start + INTERVALS[self.interval]


class Candle(msgspec.Struct):
    """A candle as subscribers get it. `final`: the window is over, and every trade of it that the log holds counted."""

    exchange: str
    symbol: str
    interval: str
    window_start: str
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    buy_volume: str
    vwap: str
    trade_count: int
    first_trade_id: int
    last_trade_id: int
    complete: bool
    final: bool


def merge(parts: Sequence[Minute]) -> Minute:
    """One part of all these, which share no trade."""
    return reduce(Minute.join, parts)


def candle(window: Window, part: Minute, final: bool) -> Candle:
    """As the store's views show it."""
    shown = part.shown((window.start, *window.market))
    return Candle(interval=window.interval, final=final, **shown)


_ASK = (
    "SELECT p.exchange, p.symbol, toUnixTimestamp(toStartOfInterval(p.window_start, INTERVAL {bucket} SECOND, 'UTC')),"
    " argMin(p.open, (p.first_epoch, p.first_trade_id)), max(p.high), min(p.low),"
    " argMax(p.close, (p.last_epoch, p.last_trade_id)), sum(p.volume), sum(p.quote_volume), sum(p.buy_volume),"
    " sum(p.trade_count), min((p.first_epoch, p.first_trade_id)), max((p.last_epoch, p.last_trade_id)),"
    " argMin(p.apart, (p.first_epoch, p.first_trade_id)) FROM k2.ohlcv_1m_parts AS p"
    " WHERE p.exchange IN {{exchanges:Array(String)}} AND p.symbol IN {{symbols:Array(String)}}"
    " AND p.window_start >= toDateTime({start}, 'UTC') AND p.window_start < toDateTime({end}, 'UTC') GROUP BY 1, 2, 3"
)
MARKETS = (
    "SELECT DISTINCT exchange, symbol FROM k2.ohlcv_1m_parts"
    " WHERE exchange IN {{exchanges:Array(String)}} AND window_start >= toDateTime({start}, 'UTC')"
)


class Question(NamedTuple):
    """One statement that answers several spans of the same length."""

    sql: str
    params: dict[str, list[str]]
    spans: list[Span]


def questions(spans: Iterable[Span]) -> list[Question]:
    """As few statements as can be: minutes of the same hour go together, and so do equal hours and days."""
    groups: dict[tuple[int, int], list[Span]] = {}
    for span in spans:
        place = span.start // HOUR * HOUR if span.seconds == MINUTE else span.start
        groups.setdefault((span.seconds, place), []).append(span)
    found = []
    for (seconds, _), group in groups.items():
        start, end = min(span.start for span in group), max(span.start for span in group) + seconds
        sql = _ASK.format(bucket=HOUR if seconds == DAY else MINUTE, start=start, end=end)
        markets = {span.market for span in group}
        params = {"exchanges": sorted({m.exchange for m in markets}), "symbols": sorted({m.symbol for m in markets})}
        found.append(Question(sql, params, group))
    return found


def part(row: Sequence[Any]) -> tuple[Market, int, Minute]:
    """A row of an answer."""
    exchange, symbol, start, *prices = row[:10]
    first, last = row[11], row[12]
    opened, high, low, close, volume = (units(str(price), PRICE) for price in prices[:5])
    found = Minute(
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=volume,
        quote_volume=units(str(prices[5]), QUOTE),
        buy_volume=units(str(prices[6]), PRICE),
        trade_count=int(row[10]),
        first=(int(first[0]), int(first[1])),
        last=(int(last[0]), int(last[1])),
        apart=bool(row[13]),
    )
    return Market(str(exchange), str(symbol)), int(start), found


class Kept:
    """The parts that were asked for: of whole hours the minutes, of whole days the hours; the newest of them."""

    def __init__(self) -> None:
        self._minutes: dict[tuple[Market, int], dict[int, Minute]] = {}
        self._hours: dict[tuple[Market, int], dict[int, Minute]] = {}

    def needed(self, window: Window) -> Span | None:
        """What has to be asked for before the window can be had; None: nothing."""
        seconds = DAY if window.interval == "1d" else HOUR
        span = Span(window.market, window.start // seconds * seconds, seconds)
        return None if self.holds(span) else span

    def holds(self, span: Span) -> bool:
        """Whether the hour, or day, is kept."""
        return (span.market, span.start) in (self._hours if span.seconds == DAY else self._minutes)

    def spans_from(self, market: Market, start: int) -> list[Span]:
        """Hours and days of a market that are kept and end after `start`."""
        hours = [Span(market, at, HOUR) for m, at in self._minutes if m == market and at + HOUR > start]
        return hours + [Span(market, at, DAY) for m, at in self._hours if m == market and at + DAY > start]

    def put(self, question: Question, rows: Iterable[Sequence[Any]]) -> None:
        """Keep an answer."""
        asked = {(span.market, span.start): span for span in question.spans}
        seconds = question.spans[0].seconds
        fresh: dict[tuple[Market, int], dict[int, Minute]] = {key: {} for key in asked} if seconds != MINUTE else {}
        for market, start, found in map(part, rows):
            if seconds != MINUTE:
                place = (market, start // seconds * seconds)
                if place in fresh:
                    fresh[place][start] = found
            elif (market, start) in asked and (hour := self._minutes.get((market, start // HOUR * HOUR))) is not None:
                hour[start] = found
        kept = self._hours if seconds == DAY else self._minutes
        for place, parts in fresh.items():
            kept.pop(place, None)
            kept[place] = parts
        for span in question.spans:
            if seconds != DAY:
                self._renew_hour(span.market, span.start // HOUR * HOUR)
        for each in (self._minutes, self._hours):
            while len(each) > MOST_SPANS:
                del each[next(iter(each))]

    def _renew_hour(self, market: Market, hour: int) -> None:
        day = self._hours.get((market, hour // DAY * DAY))
        minutes = self._minutes.get((market, hour))
        if day is not None and minutes:
            day[hour] = merge(list(minutes.values()))

    def forget(self, market: Market) -> None:
        """The market is no longer followed: what is kept of it grows old."""
        for each in (self._minutes, self._hours):
            for place in [place for place in each if place[0] == market]:
                del each[place]

    def markets(self) -> set[Market]:
        """Those of which anything is kept."""
        return {market for each in (self._minutes, self._hours) for market, _ in each}

    def part(self, window: Window) -> Minute | None:
        """The window's part; None if it has no trades, or is not kept."""
        if window.interval == "1d":
            parts = list(self._hours.get((window.market, window.start), {}).values())
        else:
            minutes = self._minutes.get((window.market, window.start // HOUR * HOUR), {})
            parts = [one for start, one in minutes.items() if window.start <= start < window.end]
        return merge(parts) if parts else None
