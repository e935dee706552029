"""Trades rederived from frames against the archived ones, by identity, field by field, within the new store.

The archived trades are put beside the others for as long as it takes; blocks of ids bound the memory.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from k2.store import Store

DATABASE = "rederive"
ARCHIVED = f"{DATABASE}.archived"
BLOCK = 1 << 20  # ids that are compared at once
SHOWN = 20  # differences that are kept
COLUMNS = (
    *("symbol", "native_symbol", "epoch", "trade_id", "price", "quantity", "side"),
    *("exchange_ts_ns", "recv_ts_ns", "source"),
)  # of cold.trades
FIELDS = ("native_symbol", "price", "quantity", "side", "exchange_ts", "recv_ts", "source")
_OURS = (
    "toString(native_symbol) AS native_symbol, price, quantity, toString(side) AS side,"
    " toUnixTimestamp64Nano(exchange_ts) AS exchange_ts, toUnixTimestamp64Nano(recv_ts) AS recv_ts,"
    " toString(source) AS source"
)
_THEIRS = "native_symbol, price, quantity, side, exchange_ts_ns AS exchange_ts, recv_ts_ns AS recv_ts, source"


class Difference(NamedTuple):
    """A trade that is not the same on both sides: field to exact text, times in ns; None: it is not there."""

    exchange: str
    symbol: str
    epoch: int
    trade_id: int
    archived: dict[str, str] | None
    rederived: dict[str, str] | None


class Contrast(NamedTuple):
    """How many trades are equal, changed, missing (archived, but not rederived) and new (the reverse).

    `fields`: in how many of the changed ones each field differs. `later`: rederived ones that are as new as the newest
    archived one or newer: cold does not have them yet, so they are not compared. `shown`: the first differences.
    """

    equal: int = 0
    changed: int = 0
    missing: int = 0
    new: int = 0
    later: int = 0
    fields: dict[str, int] = {}
    shown: tuple[Difference, ...] = ()

    @property
    def same(self) -> bool:
        return not (self.changed or self.missing or self.new)

    def plus(self, other: "Contrast") -> "Contrast":
        return Contrast(
            self.equal + other.equal,
            self.changed + other.changed,
            self.missing + other.missing,
            self.new + other.new,
            self.later + other.later,
            {name: self.fields.get(name, 0) + other.fields.get(name, 0) for name in FIELDS},
            (*self.shown, *other.shown)[:SHOWN],
        )


def contrast(store: Store, exchange: str, archived: Iterable[tuple[int, bytes]]) -> Contrast:
    """Compare all of the exchange's trades in the store with the archived ones: Arrow streams of COLUMNS with their
    number of rows. Raises StoreError, and what `archived` raises."""
    _put(store, archived)
    try:
        newest = int(store.rows(f"SELECT max(recv_ts_ns) FROM {ARCHIVED}")[0][0])
        found = Contrast()
        for symbol, epoch, block in _blocks(store, exchange):
            found = found.plus(_Block(store, exchange, symbol, epoch, block, newest).compare(SHOWN - len(found.shown)))
        return found
    finally:
        store.execute(f"DROP DATABASE {DATABASE} SYNC")


def _put(store: Store, archived: Iterable[tuple[int, bytes]]) -> None:
    store.execute(f"DROP DATABASE IF EXISTS {DATABASE} SYNC")
    store.execute(f"CREATE DATABASE {DATABASE}")
    store.execute(
        f"CREATE TABLE {ARCHIVED} (symbol LowCardinality(String), native_symbol String, epoch UInt32, trade_id Int64,"
        " price Decimal(38, 18), quantity Decimal(38, 18), side String, exchange_ts_ns Int64, recv_ts_ns Int64,"
        " source String) ENGINE = MergeTree ORDER BY (symbol, epoch, trade_id)"
    )
    for _, body in archived:
        store.insert(f"INSERT INTO {ARCHIVED} FORMAT ArrowStream", body)


def _blocks(store: Store, exchange: str) -> list[tuple[str, int, int]]:
    rows = store.rows(
        f"SELECT DISTINCT toString(symbol), toUInt32(epoch), intDiv(trade_id, {BLOCK}) AS block FROM"
        f" (SELECT symbol, epoch, trade_id FROM k2.silver_trades WHERE exchange = '{exchange}'"
        f" UNION ALL SELECT symbol, epoch, trade_id FROM {ARCHIVED}) ORDER BY ALL"
    )
    return [(str(symbol), int(epoch), int(block)) for symbol, epoch, block in rows]


class _Block:
    """The trades of a symbol and epoch whose ids share their upper digits, on both sides."""

    def __init__(self, store: Store, exchange: str, symbol: str, epoch: int, block: int, newest: int) -> None:
        self._store = store
        self._counter = (exchange, symbol, epoch)
        self._params = {"symbol": symbol}
        same = (
            f"symbol = {{symbol:String}} AND epoch = {epoch}"
            f" AND trade_id >= {block * BLOCK} AND trade_id < {(block + 1) * BLOCK}"
        )
        self._both = (
            f"SELECT trade_id, {_OURS}, 1 AS rederived FROM k2.silver_trades WHERE exchange = '{exchange}' AND {same}"
            f" UNION ALL SELECT trade_id, {_THEIRS}, 0 AS rederived FROM {ARCHIVED} WHERE {same}"
        )
        self._later = f"here AND NOT there AND newest >= {newest}"
        self._changed = "there AND here AND (" + " OR ".join(f"{name}_differs" for name in FIELDS) + ")"

    def _rows(self, values: str = "") -> str:
        """By trade: whether it is there (archived) and here (rederived), and which fields differ."""
        differ = ", ".join(f"min({name}) != max({name}) AS {name}_differs" for name in FIELDS)
        return (
            "SELECT trade_id, min(rederived) = 0 AS there, max(rederived) AS here, max(recv_ts) AS newest,"
            f" {differ}{values} FROM ({self._both}) GROUP BY trade_id"
        )

    def compare(self, show: int) -> Contrast:
        fields = ", ".join(f"countIf(there AND here AND {name}_differs)" for name in FIELDS)
        ((total, changed, missing, new, later, *differing),) = self._store.rows(
            f"SELECT countIf(there AND here), countIf({self._changed}), countIf(there AND NOT here),"
            f" countIf(here AND NOT there AND NOT ({self._later})), countIf({self._later}), {fields}"
            f" FROM ({self._rows()})",
            self._params,
        )
        found = Contrast(
            total - changed, changed, missing, new, later, dict(zip(FIELDS, map(int, differing), strict=True))
        )
        if found.same or not show:
            return found
        return found._replace(shown=tuple(self._differences(show)))

    def _differences(self, count: int) -> Iterable[Difference]:
        values = "".join(f", groupArray((rederived, toString({name}))) AS {name}_values" for name in FIELDS)
        names = ", ".join(f"{name}_values" for name in FIELDS)
        for trade_id, *sides in self._store.rows(
            f"SELECT trade_id, {names} FROM ({self._rows(values)})"
            f" WHERE ({self._changed}) OR (there != here AND NOT ({self._later})) ORDER BY trade_id LIMIT {count}",
            self._params,
        ):
            yield Difference(*self._counter, int(trade_id), _side(sides, 0), _side(sides, 1))


def _side(values: list[Any], rederived: int) -> dict[str, str] | None:
    """What one side has: its first row's fields."""
    found = [[text for which, text in pairs if which == rederived] for pairs in values]
    return {name: texts[0] for name, texts in zip(FIELDS, found, strict=True)} if found[0] else None
