"""The gap ledger, and the proofs of the cold tier."""

from typing import Annotated, Literal

from msgspec import Meta

from k2.ask import Query, cursors
from k2.ask.question import FirstId, From, LastId, Order, Question, To, Where, bounds, ids, page
from k2.ask.times import SECOND, parse_time
from k2.ask.trades import moment

States = Annotated[
    tuple[Literal["start", "open", "healed", "unavailable", "epoch"], ...],
    Meta(description="Only gaps in these states.", examples=[["open", "unavailable"]]),
]
GAP_COLUMNS = (
    "exchange", "symbol", "epoch", "first_id", "last_id", "state", "reason", "missing", "event_ts", "detected_ts",
)  # fmt: skip
PROOF_COLUMNS = (
    "exchange", "symbol", "epoch", "day", "revision", "trade_count", "first_id", "last_id", "missing", "preceded",
    "content_hash", "sealed_at", "snapshot_id",
)  # fmt: skip
_DAY = 86_400 * SECOND


class Gaps(Question, frozen=True, kw_only=True):
    """Gaps of the ledger in their latest state, by when they were detected, which does not change with the state. With
    ids: those that touch them."""

    state: States = ()
    from_: From = ""
    to: To = ""
    first_id: FirstId | None = None
    last_id: LastId | None = None
    order: Order = "asc"

    def query(self, now_ns: int, as_of_ms: int | None = None) -> Query:
        ids(self.first_id, self.last_id)
        key = ("detected_ts", "exchange", "symbol", "epoch", "first_id")
        cursor = self.resume(int, str, str, int, int)
        first, end = within = bounds(self.from_, self.to, now_ns, cursor)
        where = Where()
        where.instruments(self.exchange, self.symbol)
        if self.state:
            where.add("state IN {states:Array(String)}", states=sorted(set(self.state)))
        for name, condition, value in (
            ("since", f"detected_ts >= {moment('since')}", first),
            ("until", f"detected_ts < {moment('until')}", end),
            ("first_id", "last_id >= {first_id:Int64}", self.first_id),
            ("last_id", "first_id <= {last_id:Int64}", self.last_id),
        ):
            if value is not None:
                where.add(condition, **{name: value})
        if cursor:
            where.add(
                f"(detected_ts, exchange, symbol, epoch, first_id) {'>' if self.order == 'asc' else '<'}"
                f" ({moment('at')}, {{at_exchange:String}}, {{at_symbol:String}}, {{at_epoch:UInt32}},"
                " {at_id:Int64})",
                **dict(zip(("at", "at_exchange", "at_symbol", "at_epoch", "at_id"), cursor.key, strict=True)),
            )
        print_ = self.fingerprint()

        def after(row: tuple[object, ...]) -> str:
            at, exchange, symbol, epoch, first_id = row
            named = (parse_time(str(at), 0), str(exchange), str(symbol), int(str(epoch)), int(str(first_id)))
            return cursors.encode(cursors.Cursor(print_, named, within))

        sql = f"SELECT {', '.join(GAP_COLUMNS)} FROM k2.gaps WHERE {where}{page(key, self.order, self.limit)}"
        return Query(sql, where.params, GAP_COLUMNS, key, after, self.limit)


class Proofs(Question, frozen=True, kw_only=True):
    """What the cold tier proved of closed days: for each, symbol and epoch, its newest revision."""

    from_: From = ""
    to: To = ""
    order: Order = "asc"

    def query(self, now_ns: int, as_of_ms: int | None = None) -> Query:
        key = ("day", "exchange", "symbol", "epoch")
        cursor = self.resume(str, str, str, int)
        first, end = within = bounds(self.from_, self.to, now_ns, cursor)
        where = Where()
        where.instruments(self.exchange, self.symbol)
        if first is not None:
            where.add("day >= toDate32(0) + {since:Int32}", since=-(-first // _DAY))
        if end is not None:
            where.add("day < toDate32(0) + {until:Int32}", until=-(-end // _DAY))
        if cursor:
            where.add(
                f"(day, exchange, symbol, epoch) {'>' if self.order == 'asc' else '<'}"
                " (toDate32({at:String}), {at_exchange:String}, {at_symbol:String}, {at_epoch:Int32})",
                **dict(zip(("at", "at_exchange", "at_symbol", "at_epoch"), cursor.key, strict=True)),
            )
        print_ = self.fingerprint()

        def after(row: tuple[object, ...]) -> str:
            day, exchange, symbol, epoch = row
            named = (str(day), str(exchange), str(symbol), int(str(epoch)))
            return cursors.encode(cursors.Cursor(print_, named, within))

        newest = (
            f"SELECT * FROM cold.proofs WHERE {where} ORDER BY revision DESC LIMIT 1 BY exchange, symbol, epoch, day"
        )
        sql = f"SELECT {', '.join(PROOF_COLUMNS)} FROM ({newest}){page(key, self.order, self.limit)}"
        return Query(sql, where.params, PROOF_COLUMNS, key, after, self.limit)
