"""Filling an empty store from tables that read the cold tier: a span of trades, all candles, gaps and frames.

Everything carries one generation. It counts once its commit row stands, as with a loader's; what was moved before is
refuse until then. Nothing passes through Python: the store reads the cold tier's files itself.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from k2.store import Store
from k2.store.candles import Touched, mark, recompute
from k2.store.commit import GENERATIONS_APART, fence
from k2.store.rows import literal
from k2.store.seen import Seen

SOURCE = "restore"  # the database whose tables `trades`, `frames` and `gaps` read the cold ones
GENERATION = GENERATIONS_APART  # past whatever may have been in flight, and before any loader's
UNIT_ROWS = 5_000_000  # trades that one statement moves, but for a symbol that has more in a day

_TRADES = (
    "INSERT INTO k2.silver_base (exchange, symbol, native_symbol, trade_id, price, quantity, side, exchange_ts,"
    " recv_ts, source, epoch, generation) SELECT exchange, symbol, native_symbol, trade_id, price, quantity, side,"
    " fromUnixTimestamp64Nano(exchange_ts_ns, 'UTC'), fromUnixTimestamp64Nano(recv_ts_ns, 'UTC'), source, epoch,"
    f" {GENERATION} FROM {SOURCE}.trades"
)
_FRAMES = (
    "INSERT INTO k2.bronze_base (exchange, position, recv_ts, kind, connection, request, payload, generation)"
    " SELECT exchange, log_offset, fromUnixTimestamp64Nano(recv_ts_ns, 'UTC'), kind, connection, request, payload,"
    f" {GENERATION} FROM {SOURCE}.frames"
)
_GAPS = (
    "INSERT INTO k2.gaps_base (exchange, symbol, epoch, first_id, last_id, state, reason, missing, event_ts,"
    " detected_ts, position, generation) SELECT exchange, symbol, epoch, first_id, last_id, state, reason,"
    " CAST(missing, 'Array(Tuple(Int64, Int64))'), event_ts_ns, detected_ts_ns, log_offset,"
    f" {GENERATION} FROM {SOURCE}.gaps"
)


class Unit(NamedTuple):
    """Trades of some symbols of an exchange on a UTC day (`2026-01-31`); `wanted` of its `rows` are in the span."""

    day: str
    exchange: str
    symbols: tuple[str, ...]
    rows: int
    wanted: int

    @property
    def condition(self) -> str:
        """Prunes partitions and row groups."""
        return (
            f"{_on(self.day, 'exchange_ts')} AND exchange = {literal(self.exchange)}"
            f" AND symbol IN ({', '.join(map(literal, self.symbols))})"
        )


class Plan(NamedTuple):
    """All trades that cold has, in units. `oldest_ts`, `newest_ts`: exchange times, us; 0 without any."""

    units: list[Unit]
    oldest_ts: int
    newest_ts: int

    @property
    def rows(self) -> int:
        return sum(unit.rows for unit in self.units)

    @property
    def wanted(self) -> int:
        return sum(unit.wanted for unit in self.units)


def plan(store: Store, within: str) -> Plan:
    """What there is; `within` is the span as a condition on `exchange_ts`. Raises StoreError."""
    units: list[Unit] = []
    times: list[int] = []
    for day, exchange, symbol, rows, wanted, first, last in store.rows(
        f"SELECT toString(toDate(exchange_ts)) AS day, exchange, symbol, count(), countIf({within}),"
        f" toUnixTimestamp64Micro(min(exchange_ts)), toUnixTimestamp64Micro(max(exchange_ts)) FROM {SOURCE}.trades"
        " GROUP BY day, exchange, symbol ORDER BY day, exchange, symbol"
    ):
        times += (int(first), int(last))
        before = units[-1] if units else None
        if before and (before.day, before.exchange) == (day, exchange) and before.rows + rows <= UNIT_ROWS:
            units[-1] = Unit(day, exchange, (*before.symbols, symbol), before.rows + rows, before.wanted + wanted)
        else:
            units.append(Unit(day, exchange, (symbol,), rows, wanted))
    return Plan(units, min(times, default=0), max(times, default=0))


class Refill:
    """The statements, each guarded: it fails once somebody else has claimed the store. All raise StoreError."""

    def __init__(self, store: Store, incarnation: int, seen: Seen) -> None:
        self._store = store
        self._incarnation = incarnation
        self._guard = fence(incarnation)
        self._seen = seen
        self._touched = Touched(GENERATION, 0, 0, seen.apart(), [])

    def clear(self) -> None:
        """Remove the candles of one that was killed; the other tables are cleared when the store is claimed."""
        self._store.execute("TRUNCATE TABLE k2.ohlcv_1m_base")

    def trades(self, unit: Unit, within: str) -> None:
        self._store.execute(f"{_TRADES} WHERE {unit.condition} AND {within} AND {self._guard}")

    def mark(self) -> None:
        """Tell the candles to come which trades lack their predecessor."""
        if self._touched.apart:
            mark(self._store, self._touched, self._incarnation)

    def candles(self, unit: Unit) -> None:
        self._store.execute(recompute(self._touched, f"{SOURCE}.trades", f"{unit.condition} AND {self._guard}"))

    def frames(self, since_us: int) -> Iterator[tuple[int, int]]:
        """Frames received since then, an exchange's hour at a time; gives the number of each, and of all."""
        recent = f"recv_ts >= fromUnixTimestamp64Micro(toInt64({since_us}), 'UTC')"
        hours = self._store.rows(
            f"SELECT exchange, toUnixTimestamp(toStartOfHour(recv_ts)) AS hour, count() FROM {SOURCE}.frames"
            f" WHERE {recent} GROUP BY exchange, hour ORDER BY exchange, hour"
        )
        for exchange, hour, rows in hours:
            self._store.execute(
                f"{_FRAMES} WHERE exchange = {literal(exchange)} AND {recent} AND {self._guard}"
                f" AND recv_ts >= toDateTime64({hour}, 6, 'UTC') AND recv_ts < toDateTime64({hour + 3600}, 6, 'UTC')"
            )
            yield int(rows), sum(int(each) for _, _, each in hours)

    def gaps(self) -> int:
        self._store.execute(f"{_GAPS} WHERE {self._guard}")
        return _number(self._store.rows(f"SELECT count() FROM k2.gaps_base WHERE generation = {GENERATION}"))

    def commit(self, positions: Mapping[str, int], trades: int) -> None:
        """Make it count, on condition that all the trades stand in the base."""
        entries = ", ".join(f"{literal(stream)}, {offset}" for stream, offset in positions.items())
        self._store.insert(
            "INSERT INTO k2.commits (generation, incarnation, committed_at, positions, islands)"
            f" SELECT {GENERATION}, {self._incarnation}, now64(6),"
            f" CAST(map({entries}), 'Map(String, UInt64)'), line FROM input('line String')"
            f" WHERE {self._guard} AND NOT throwIf((SELECT count() FROM k2.silver_base"
            f" WHERE generation = {GENERATION}) != {trades}, 'trades are missing') FORMAT LineAsString",
            self._seen.to_json(),
        )


def restored(store: Store) -> int:
    """How many trades of a restore the store holds. Raises StoreError."""
    return _number(store.rows(f"SELECT count() FROM k2.silver_base WHERE generation = {GENERATION}"))


def _on(day: str, time: str) -> str:
    first = f"toDateTime64('{day} 00:00:00', 6, 'UTC')"
    return f"{time} >= {first} AND {time} < {first} + INTERVAL 1 DAY"


def _number(rows: list[tuple[Any, ...]]) -> int:
    return int(rows[0][0])
