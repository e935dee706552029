"""Completeness: how many ids there should be in an hour or a day of a symbol, and how many trades there are.

Ids are dense, so the candles tell: of each counter (epoch), the ids from a window's first to its last, and those
between the window before and its first one where the trade before that is missing.
"""

from typing import Annotated, Literal

from msgspec import Meta

from k2.ask import Query, cursors
from k2.ask.question import From, Order, Question, To, Where, bounds, page
from k2.ask.times import SECOND, parse_time

By = Annotated[Literal["hour", "day"], Meta(description="Length of the windows.")]
COLUMNS = (
    "exchange", "symbol", "window_start", "trades", "expected", "missing", "share", "first_trade_id", "last_trade_id",
)  # fmt: skip
KEY = ("window_start", "exchange", "symbol")
WIDTHS = {"hour": 3_600, "day": 86_400}
BEGINNINGS = {"hour": "-24h", "day": "-30d"}
_DAY = 86_400
_LAST = 4_294_944_000

# Minutes in which a counter was restarted hold two counters: their trades count, their ids say nothing.
_COUNTERS = (
    "SELECT exchange, symbol, last_epoch AS epoch,"
    " toDateTime(intDiv(toUnixTimestamp(window_start), {width}) * {width}, 'UTC') AS start,"
    " sum(trade_count) AS trades, sumIf(trade_count, first_epoch = last_epoch) AS counted,"
    " minIf(p.first_trade_id, first_epoch = last_epoch) AS lowest, max(p.last_trade_id) AS highest,"
    " argMinIf(p.apart, p.first_trade_id, first_epoch = last_epoch) AS alone,"
    " min((first_epoch, p.first_trade_id)) AS first, max((last_epoch, p.last_trade_id)) AS last"
    " FROM k2.ohlcv_1m_parts AS p WHERE {within} GROUP BY exchange, symbol, epoch, start"
)
_BEFORE = (
    "SELECT *, lagInFrame(highest, 1, -1) OVER"
    " (PARTITION BY exchange, symbol, epoch ORDER BY start ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS before"
    " FROM ({counters})"
)
_MISSING = (
    "if(counted = 0, 0, greatest(0, highest - lowest + 1 - toInt64(counted))"
    " + if(alone, if(before >= 0 AND before < lowest - 1, lowest - 1 - before, 1), 0))"
)
_SHOWN = (
    "SELECT exchange, symbol, toDateTime64(start, 0, 'UTC') AS window_start, sum(counter.trades) AS trades,"
    f" trades + missing AS expected, toUInt64(sum({_MISSING})) AS missing, trades / expected AS share,"
    " min(first).2 AS first_trade_id, max(last).2 AS last_trade_id"
    " FROM ({counters}) AS counter WHERE start >= toDateTime({{shown:UInt32}}, 'UTC')"
    " GROUP BY exchange, symbol, start"
)


class Completeness(Question, frozen=True, kw_only=True):
    """Trades, ids and what is missing, for each symbol and hour (the last 24, if nothing is said) or day (30).

    Missing ids between two windows count where the later one begins; where the trade before that is more than a day
    older, as one. Windows without a trade have no row.
    """

    by: By = "hour"
    from_: From = ""
    to: To = ""
    order: Order = "asc"

    def query(self, now_ns: int, as_of_ms: int | None = None) -> Query:
        width = WIDTHS[self.by]
        cursor = self.resume(int, str, str)
        first, end = within = bounds(self.from_ or BEGINNINGS[self.by], self.to, now_ns, cursor)
        low = min((first or 0) // (width * SECOND) * width, _LAST)
        if cursor and self.order == "asc" and isinstance(cursor.key[0], int):
            low = max(low, min(cursor.key[0], _LAST))
        where = Where()
        where.instruments(self.exchange, self.symbol)
        where.add("window_start >= toDateTime({low:UInt32}, 'UTC')", low=max(0, low - _DAY))
        if end is not None:
            high = min(-(-end // (width * SECOND)) * width, _LAST)
            where.add("window_start < toDateTime({high:UInt32}, 'UTC')", high=high)
        where.params["shown"] = max(0, low)
        counters = _BEFORE.format(counters=_COUNTERS.format(width=width, within=where))
        after = ""
        if cursor:
            sign = ">" if self.order == "asc" else "<"
            after = (
                f" WHERE (toUnixTimestamp64Second(window_start), exchange, symbol) {sign}"
                " ({at:Int64}, {at_exchange:String}, {at_symbol:String})"
            )
            where.params.update(zip(("at", "at_exchange", "at_symbol"), cursor.key, strict=True))
        print_ = self.fingerprint()

        def next_(row: tuple[object, ...]) -> str:
            at, exchange, symbol = row
            key = (parse_time(str(at), 0) // SECOND, str(exchange), str(symbol))
            return cursors.encode(cursors.Cursor(print_, key, within))

        shown = _SHOWN.format(counters=counters).replace("{{", "{").replace("}}", "}")
        sql = f"SELECT {', '.join(COLUMNS)} FROM ({shown}){after}{page(KEY, self.order, self.limit)}"
        return Query(sql, where.params, COLUMNS, KEY, next_, self.limit)
