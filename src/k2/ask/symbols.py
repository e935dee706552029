"""Which exchanges and symbols there are, and from when to when, as of the loader's last commit.

Nothing is counted: a commit carries the ranges of ids that are stored. The times are those of the first and the last
minute's trades, to the minute where these have left the hot store; the price is there as long as these have not.
"""

from k2.ask import Query, cursors
from k2.ask.question import Question, Where, page

SYMBOL_COLUMNS = (
    "exchange", "symbol", "native_symbol", "first_trade_ts", "first_trade_id", "last_trade_ts", "last_trade_id",
    "last_price", "trade_count",
)  # fmt: skip
EXCHANGE_COLUMNS = ("exchange", "symbols", "first_trade_ts", "last_trade_ts", "trade_count")

_KNOWN = (
    "SELECT i.1 AS exchange, i.2 AS symbol, min((i.3, i.4[1].1)).2 AS first_trade_id,"
    " max((i.3, i.4[-1].2)).2 AS last_trade_id, sum(arraySum(r -> r.2 - r.1 + 1, i.4)) AS trade_count"
    " FROM (SELECT arrayJoin(JSONExtract(argMax(islands, generation),"
    " 'Array(Tuple(String, String, UInt32, Array(Tuple(Int64, Int64))))')) AS i FROM k2.commits)"
    " WHERE notEmpty(i.4) GROUP BY exchange, symbol"
)
_MINUTES = (
    "SELECT exchange, symbol, min(window_start) AS first_minute, max(window_start) AS last_minute"
    " FROM k2.ohlcv_1m_base GROUP BY exchange, symbol"
)
_EDGES = (
    "SELECT exchange, symbol, any(native_symbol) AS native_symbol, min(exchange_ts) AS first_ts,"
    " max(exchange_ts) AS last_ts, argMax(price, (epoch, trade_id)) AS last_price FROM k2.silver_base"
    " WHERE (exchange, symbol, toStartOfMinute(exchange_ts)) IN"
    f" (SELECT exchange, symbol, arrayJoin([first_minute, last_minute]) FROM ({_MINUTES})) GROUP BY exchange, symbol"
)
_PRICE = "if(toStartOfMinute(e.last_ts) = m.last_minute, e.last_price, NULL)"
_SYMBOLS = (
    "SELECT k.exchange AS exchange, k.symbol AS symbol, e.native_symbol AS native_symbol,"
    " if(toStartOfMinute(e.first_ts) = m.first_minute, e.first_ts, toDateTime64(m.first_minute, 9, 'UTC'))"
    " AS first_trade_ts, k.first_trade_id AS first_trade_id,"
    " if(toStartOfMinute(e.last_ts) = m.last_minute, e.last_ts, toDateTime64(m.last_minute, 9, 'UTC'))"
    f" AS last_trade_ts, k.last_trade_id AS last_trade_id, {_PRICE} AS last_price,"
    " k.trade_count AS trade_count"
    f" FROM ({_KNOWN}) AS k LEFT JOIN ({_MINUTES}) AS m USING (exchange, symbol)"
    f" LEFT JOIN ({_EDGES}) AS e USING (exchange, symbol)"
)


class Symbols(Question, frozen=True, kw_only=True):
    """Symbols that there are trades of."""

    def query(self, now_ns: int, as_of_ms: int | None = None) -> Query:
        key = ("exchange", "symbol")
        cursor = self.resume(str, str)
        where = Where()
        where.instruments(self.exchange, self.symbol)
        if cursor:
            condition = "(exchange, symbol) > ({at_exchange:String}, {at_symbol:String})"
            where.add(condition, at_exchange=cursor.key[0], at_symbol=cursor.key[1])
        print_ = self.fingerprint()

        def after(row: tuple[object, ...]) -> str:
            return cursors.encode(cursors.Cursor(print_, (str(row[0]), str(row[1]))))

        sql = f"SELECT {', '.join(SYMBOL_COLUMNS)} FROM ({_SYMBOLS}) WHERE {where}{page(key, 'asc', self.limit)}"
        return Query(sql, where.params, SYMBOL_COLUMNS, key, after, self.limit)


def exchanges() -> Query:
    """The exchanges that there are trades of, with all their symbols together."""
    sql = (
        "SELECT exchange, count() AS symbols, min(s.first_trade_ts) AS first_trade_ts,"
        " max(s.last_trade_ts) AS last_trade_ts, sum(s.trade_count) AS trade_count"
        f" FROM ({_SYMBOLS}) AS s GROUP BY exchange ORDER BY exchange"
    )
    return Query(sql, {}, EXCHANGE_COLUMNS, ("exchange",), lambda _: "", 0)
