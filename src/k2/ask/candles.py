"""Candles: the rows of the views `k2.ohlcv_*`, with conditions where the store can use them.

The views are right for any question, but take milliseconds to plan, and more for a division. Here the conditions are on
minutes, whatever the interval, and the average price is divided as integers. Where the live tail is known to hold
nothing for the question, the stored minutes alone answer it: `settled`.
"""

from typing import Annotated, Literal

from msgspec import Meta

from k2.ask import Query, cursors
from k2.ask.question import AsOf, From, Order, Question, To, Where, bounds, page, past
from k2.ask.state import state
from k2.ask.times import parse_time

SECONDS = {"1m": 60, "5m": 300, "15m": 900, "30m": 1_800, "1h": 3_600, "1d": 86_400}
COLUMNS = (
    "exchange", "symbol", "window_start", "open", "high", "low", "close", "volume", "quote_volume", "buy_volume",
    "vwap", "trade_count", "first_trade_id", "last_trade_id", "complete",
)  # fmt: skip
KEY = ("window_start", "exchange", "symbol")
_KINDS = (int, str, str)
_SECOND = 1_000_000_000
_LAST = 4_294_944_000  # the last whole day that DateTime can tell

Interval = Annotated[Literal["1m", "5m", "15m", "30m", "1h", "1d"], Meta(description="Length of the windows.")]

# Both are exact: the raw integers have 36 and 18 decimals, so their quotient has 18. `divideDecimal` in the views gives
# the same digits, and takes most of the time that the views need for a day.
_VWAP = (
    "reinterpret(toInt128(intDivOrZero(reinterpretAsInt256(quote_volume), reinterpretAsInt256(volume))),"
    " 'Decimal(38, 18)')"
)
_SHOWN = (
    "exchange, symbol, toDateTime64(start, 0, 'UTC') AS window_start, open, high, low, close, volume, quote_volume,"
    f" buy_volume, {_VWAP} AS vwap, trade_count, last.2 AS last_trade_id, first.2 AS first_trade_id,"
    " toBool(first.1 = last.1 AND trade_count = last.2 - first.2 + 1 AND apart = 0) AS complete"
)
_PARTS = (
    "exchange, symbol, window_start AS start, open, high, low, close, volume, quote_volume, buy_volume, trade_count,"
    " (first_epoch, first_trade_id) AS first, (last_epoch, last_trade_id) AS last, apart"
)
_MERGED = (
    "SELECT exchange, symbol, {start} AS start, argMin(p.open, p.first) AS open, max(p.high) AS high,"
    " min(p.low) AS low, argMax(p.close, p.last) AS close, sum(p.volume) AS volume,"
    " sum(p.quote_volume) AS quote_volume,"
    " sum(p.buy_volume) AS buy_volume, sum(p.trade_count) AS trade_count, min(p.first) AS first, max(p.last) AS last,"
    " argMin(p.apart, p.first) AS apart FROM ({parts}) AS p GROUP BY exchange, symbol, start"
)
_COLD = (
    "SELECT exchange, symbol, toDateTime(window_start, 'UTC') AS start, open, high, low, close,"
    " toDecimal256(volume, 18) AS volume,"
    " toDecimal256(quote_volume, 36) + toDecimal256(quote_volume_rest, 36) AS quote_volume,"
    " toDecimal256(buy_volume, 18) AS buy_volume, toUInt64(trade_count) AS trade_count,"
    " (toUInt32(first_epoch), first_trade_id) AS first, (toUInt32(last_epoch), last_trade_id) AS last,"
    " toUInt8(apart) AS apart FROM cold.ohlcv_1m WHERE {within}"
)


class Candles(Question, frozen=True, kw_only=True):
    """Candles of windows that begin in a range of times. A window that begins before it is left out, whole."""

    interval: Interval = "1m"
    from_: From = ""
    to: To = ""
    order: Order = "asc"
    as_of: AsOf = ""

    def query(self, now_ns: int, as_of_ms: int | None = None) -> Query:
        return self._query(now_ns, as_of_ms, settled=False)

    def scope(self, now_ns: int) -> tuple[int | None, int | None]:
        """The times (s) between which windows of the page begin."""
        cursor = self.resume(*_KINDS)
        return self._windows(*bounds(self.from_, self.to, now_ns, cursor), cursor)

    def settled(self, now_ns: int) -> Query:
        """For whoever knows that the tail holds nothing in the range, and did not when it was looked at last."""
        return self._query(now_ns, None, settled=True)

    def _query(self, now_ns: int, as_of_ms: int | None, settled: bool) -> Query:
        cursor = self.resume(*_KINDS)
        within = bounds(self.from_, self.to, now_ns, cursor)
        as_of_ms = cursor.as_of if cursor else as_of_ms
        where = Where()
        where.instruments(self.exchange, self.symbol)
        named = str(where)
        low, high = self._windows(*within, cursor)
        times = _Times(named, low, high)
        where.params.update(times.params)
        if cursor:
            where.params.update(at=cursor.key[0], at_exchange=cursor.key[1], at_symbol=cursor.key[2])
        source = self._parts(times, as_of_ms is not None, settled)
        sign = ">" if self.order == "asc" else "<"
        after = (
            f" WHERE (toUnixTimestamp(start), exchange, symbol) {sign}"
            " ({at:Int64}, {at_exchange:String}, {at_symbol:String})"
            if cursor
            else ""
        )
        listed = ", ".join(COLUMNS)
        sql = f"SELECT {listed} FROM (SELECT {_SHOWN} FROM ({source}){after}){page(KEY, self.order, self.limit)}"
        print_ = self.fingerprint()

        def next_(row: tuple[object, ...]) -> str:
            at, exchange, symbol = row
            key = (parse_time(str(at), 0) // _SECOND, str(exchange), str(symbol))
            return cursors.encode(cursors.Cursor(print_, key, within, as_of_ms))

        settings = {"max_threads": "1", **past(as_of_ms)} if self._small(low, high) else past(as_of_ms)
        ends = None if high is None else high * _SECOND
        known = state(named, None if low is None else low * _SECOND, ends) if ends is not None else ""
        return Query(sql, where.params, COLUMNS, KEY, next_, self.limit, settings, ends, known)

    def _windows(
        self, first: int | None, end: int | None, cursor: cursors.Cursor | None
    ) -> tuple[int | None, int | None]:
        """The times between which whole windows of the page begin, in seconds; the cursor narrows them."""
        width = SECONDS[self.interval]
        low = None if first is None else _ceil(first, width)
        high = None if end is None else _ceil(end, width)
        if cursor and isinstance(at := cursor.key[0], int):
            if self.order == "asc":
                low = max(at, low or 0)
            else:
                high = min(at + width, _LAST if high is None else high)
        return low, high

    def _parts(self, times: "_Times", cold: bool, settled: bool) -> str:
        width = SECONDS[self.interval]
        start = f"toDateTime(intDiv(toUnixTimestamp(p.start), {width}) * {width}, 'UTC')"
        if cold:
            parts = _COLD.format(within=times.cold)
            return parts if self.interval == "1m" else _MERGED.format(start=start, parts=parts)
        source = "k2.ohlcv_1m_base FINAL" if settled else "k2.ohlcv_1m_parts"
        parts = f"SELECT {_PARTS} FROM {source} WHERE {times.minutes}"
        return parts if settled and self.interval == "1m" else _MERGED.format(start=start, parts=parts)

    def _small(self, low: int | None, high: int | None) -> bool:
        """One thread is the quickest for what few blocks hold."""
        return bool(self.symbol) and low is not None and high is not None and high - low <= 8 * 86_400


class _Times:
    """The range in the terms of each table: seconds, ns, or DateTime64(6)."""

    def __init__(self, named: str, low: int | None, high: int | None) -> None:
        self.params: dict[str, int] = {}
        minutes, cold = [named], [named]
        for name, sign, second in (("low", ">=", low), ("high", "<", high)):
            if second is None:
                continue
            self.params[name] = max(0, min(second, _LAST))
            minutes.append(f"window_start {sign} toDateTime({{{name}:UInt32}}, 'UTC')")
            cold.append(f"window_start {sign} toDateTime64({{{name}:UInt32}}, 6, 'UTC')")
        self.minutes, self.cold = " AND ".join(minutes), " AND ".join(cold)


def _ceil(ns: int, width: int) -> int:
    return -(-ns // (width * _SECOND)) * width
