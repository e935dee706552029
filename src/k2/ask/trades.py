"""Trades, one by one: hot and cold as one, in the order of (exchange_ts, exchange, symbol, epoch, trade_id)."""

from k2.ask import Query, cursors
from k2.ask.question import AsOf, FirstId, From, LastId, Order, Question, To, Where, bounds, ids, page, past
from k2.ask.state import MINUTE, state
from k2.ask.times import parse_time

COLUMNS = (
    "exchange", "symbol", "native_symbol", "trade_id", "price", "quantity", "side", "exchange_ts", "recv_ts", "source",
    "epoch",
)  # fmt: skip
KEY = ("exchange_ts", "exchange", "symbol", "epoch", "trade_id")
_KINDS = (int, str, str, int, int)
_HOUR = 60 * MINUTE
_SHOWN = ", ".join(COLUMNS)
_NANO = "toDateTime64('1970-01-01 00:00:00', 9, 'UTC') + toIntervalNanosecond(c.{name}_ns) AS {name}"
_COLD = (
    "SELECT c.exchange AS exchange, c.symbol AS symbol, c.native_symbol AS native_symbol, c.trade_id AS trade_id,"
    f" c.price AS price, c.quantity AS quantity, c.side AS side, {_NANO.format(name='exchange_ts')},"
    f" {_NANO.format(name='recv_ts')}, c.source AS source, toUInt32(c.epoch) AS epoch FROM cold.trades AS c"
)


def moment(name: str) -> str:
    """SQL: the parameter, ns since 1970, as DateTime64(9)."""
    return f"fromUnixTimestamp64Nano({{{name}:Int64}}, 'UTC')"


class Trades(Question, frozen=True, kw_only=True):
    """Trades of some symbols in a range of times, or of ids, or both."""

    from_: From = ""
    to: To = ""
    first_id: FirstId | None = None
    last_id: LastId | None = None
    order: Order = "asc"
    as_of: AsOf = ""

    def query(self, now_ns: int, as_of_ms: int | None = None) -> Query:
        ids(self.first_id, self.last_id)
        cursor = self.resume(*_KINDS)
        first, end = within = bounds(self.from_, self.to, now_ns, cursor)
        as_of_ms = cursor.as_of if cursor else as_of_ms
        where = Where()
        where.instruments(self.exchange, self.symbol)
        known = state(str(where), first, end) if end is not None else ""
        for name, sign, value in (("first_id", ">=", self.first_id), ("last_id", "<=", self.last_id)):
            if value is not None:
                where.add(f"trade_id {sign} {{{name}:Int64}}", **{name: value})
        low, high = first, end
        if cursor:
            low, high = self._after(where, cursor, first, end)
        if low is not None:
            where.add(f"exchange_ts >= {moment('low')}", low=low)
        if high is not None:
            where.add(f"exchange_ts < {moment('high')}", high=high)
        if as_of_ms is None and self._worth_bounding(low, high, now_ns):
            self._bound(where, low, high)
        source = "k2.trades" if as_of_ms is None else f"({_COLD})"
        print_ = self.fingerprint()

        def after(row: tuple[object, ...]) -> str:
            at, exchange, symbol, epoch, trade_id = row
            key = (parse_time(str(at), 0), str(exchange), str(symbol), int(str(epoch)), int(str(trade_id)))
            return cursors.encode(cursors.Cursor(print_, key, within, as_of_ms))

        sql = f"SELECT {_SHOWN} FROM {source} WHERE {where}{page(KEY, self.order, self.limit)}"
        return Query(sql, where.params, COLUMNS, KEY, after, self.limit, past(as_of_ms), end, known)

    def _after(
        self, where: Where, cursor: cursors.Cursor, first: int | None, end: int | None
    ) -> tuple[int | None, int | None]:
        """Only what comes after the cursor. The bound on the time alone is what the primary key can use."""
        at, exchange, symbol, epoch, trade_id = cursor.key
        assert isinstance(at, int)
        where.add(
            f"(exchange_ts, exchange, symbol, epoch, trade_id) {'>' if self.order == 'asc' else '<'}"
            f" ({moment('at')}, {{at_exchange:String}}, {{at_symbol:String}}, {{at_epoch:UInt32}}, {{at_id:Int64}})",
            at=at,
            at_exchange=exchange,
            at_symbol=symbol,
            at_epoch=epoch,
            at_id=trade_id,
        )
        if self.order == "asc":
            return at, end
        return first, at + 1

    # -- pages of long ranges ------------------------------------------------------------------------------------------

    def _worth_bounding(self, low: int | None, high: int | None, now_ns: int) -> bool:
        if not self.limit or self.first_id is not None or self.last_id is not None:
            return False
        return low is None or (now_ns if high is None else high) - low > _HOUR

    def _bound(self, where: Where, low: int | None, high: int | None) -> None:
        """Read no more minutes than the page needs, which the candles tell: each counts trades that are there for good.

        What was committed seconds ago counts, so that nothing counts that the trades' snapshot has not. Minutes at the
        edges of the range do not: they may hold trades outside of it. Counting too few only reads more.
        """
        minutes = Where(where.params)
        minutes.instruments(self.exchange, self.symbol)
        minutes.add(
            "generation <= (SELECT max(generation) FROM k2.commits"
            " WHERE committed_at < now64(6) - toIntervalSecond(10))"
        )
        if low is not None:
            minutes.add("window_start >= toDateTime({low_minute:UInt32}, 'UTC')", low_minute=-(-low // MINUTE) * 60)
        if high is not None:
            minutes.add("window_start < toDateTime({high_minute:UInt32}, 'UTC')", high_minute=high // MINUTE * 60)
        if self.order == "asc":
            way, sign, edge, none = "", "<", "min(window_start) + toIntervalMinute(1)", "'2200-01-01 00:00:00'"
        else:
            way, sign, edge, none = " DESC", ">=", "max(window_start)", "'1970-01-01 00:00:00'"
        counted = (
            f"SELECT window_start, sum(sum(trade_count)) OVER (ORDER BY window_start{way}) AS so_far"
            f" FROM k2.ohlcv_1m_base FINAL WHERE {minutes} GROUP BY window_start"
        )
        where.add(
            f"exchange_ts {sign} (SELECT"
            f" if(count() > 0, toDateTime64({edge}, 9, 'UTC'), toDateTime64({none}, 9, 'UTC')) FROM"
            f" ({counted}) WHERE so_far >= {{enough:UInt64}})",
            enough=self.limit,
        )
