"""Where hot ends and cold begins, and the view that answers over both as one.

The seam is a set of exchange-time ranges for which the cold tier answers (normally one: everything before a UTC
midnight), and a generation. Rows of the base in those ranges count as handed over up to that generation; a trade that
comes later, however old, is hot until the seam moves again. The view `k2.trades` names one pinned snapshot and one
seam, so replacing it is the one step in which both change: no question ever sees the one without the other.

    tail  +  base, but for what was handed over  +  pinned snapshot in the ranges, but for what is hot there

A snapshot is pinned only when the loader has committed all that it holds (`pins.py`). So whatever stands in hot and in
the pin as well has long been in the base, and the exclusion cannot miss it, whenever a question reads the two.
"""

from collections.abc import Iterable
from typing import NamedTuple

from k2.store import Store, StoreError

MINUTE = 60_000_000_000
MOVED = "the seam has moved"
SNAPSHOTS = "cold_pins"  # the database of the tables that the view reads

HOT = "CREATE OR REPLACE VIEW k2.trades AS SELECT * FROM k2.silver_trades"
# Conditions on this form leave out files and row groups; on fromUnixTimestamp64Nano they do not.
_NANOSECONDS = "toDateTime64('1970-01-01 00:00:00', 9, 'UTC') + toIntervalNanosecond(c.{name}_ns)"
_NAMES = ("exchange", "symbol", "native_symbol", "side", "source")
_COLUMNS = "exchange, symbol, native_symbol, trade_id, price, quantity, side, exchange_ts, recv_ts, source, epoch"
_TAIL = """
SELECT
    toLowCardinality(exchange) AS exchange, toLowCardinality(symbol) AS symbol,
    toLowCardinality(native_symbol) AS native_symbol, trade_id, price, quantity, toLowCardinality(side) AS side,
    fromUnixTimestamp64Nano(exchange_ts, 'UTC') AS exchange_ts, fromUnixTimestamp64Nano(recv_ts, 'UTC') AS recv_ts,
    toLowCardinality(source) AS source, epoch
FROM k2.silver_tail
WHERE generation > (SELECT max(generation) FROM k2.commits)
    AND generation <= (SELECT max(generation) FROM k2.commits) + 1099511627776
"""


class SeamMoved(StoreError):
    """Trades were handed over to the cold tier meanwhile. Nothing is wrong: ask for the seam and do it again."""


class Seam(NamedTuple):
    """`ranges` of exchange times, ns, end exclusive, whole minutes, ascending and apart; none: all is hot.

    Trades of generations past `generation` are hot in them, too.
    """

    version: int = 0
    generation: int = 0
    ranges: tuple[tuple[int, int], ...] = ()

    @property
    def end(self) -> int:
        """No exchange time from here on was handed over."""
        return self.ranges[-1][1] if self.ranges else 0

    def contains(self, time: str, unit: int = 9) -> str:
        """SQL: is the time, a DateTime64(`unit`) or DateTime (`unit` 0), in the ranges?"""
        return within(self.ranges, time, unit)


def within(ranges: Iterable[tuple[int, int]], time: str, unit: int = 9) -> str:
    """SQL: is the time, a DateTime64(`unit`) or DateTime (`unit` 0), in one of these ranges of ns?"""
    parts = []
    for first, end in ranges:
        after = f"{time} >= {_moment(first, unit)} AND " if first > 0 else ""
        parts.append(f"{after}{time} < {_moment(end, unit)}")
    return f"({' OR '.join(parts)})" if parts else "0"


def _moment(ns: int, unit: int) -> str:
    name = {9: "fromUnixTimestamp64Nano(toInt64({}), 'UTC')", 6: "fromUnixTimestamp64Micro(toInt64({}), 'UTC')"}
    return name.get(unit, "toDateTime({}, 'UTC')").format(ns // 10 ** (9 - unit))


def read(store: Store) -> Seam:
    """The seam that holds. Raises StoreError."""
    rows = store.rows(
        "SELECT version, generation, arrayMap(r -> r.1, ranges), arrayMap(r -> r.2, ranges) FROM k2.seams"
        " ORDER BY version DESC LIMIT 1"
    )
    if not rows:
        return Seam()
    version, generation, firsts, ends = rows[0]
    return Seam(int(version), int(generation), tuple(zip(map(int, firsts), map(int, ends), strict=True)))


def fence(version: int) -> str:
    """A condition that is true, or fails the statement when the seam has moved since `version`."""
    return f"NOT throwIf((SELECT max(version) FROM k2.seams) != {version}, '{MOVED}')"


def move(store: Store, generation: int, ranges: Iterable[tuple[int, int]], pin: int) -> Seam:
    """From now on cold answers for `ranges`, with the snapshot of pin number `pin`, which must hold every trade there
    up to `generation`. Returns the new seam. Raises StoreError.

    First the view changes, then the loader's knowledge; only then may rows be deleted. A crash between leaves a view
    that is as right as the one before.
    """
    merged = merge(ranges)
    seam = Seam(read(store).version + 1, generation, merged)
    replace_view(store, seam, pin)
    listed = ", ".join(f"({first}, {end})" for first, end in merged)
    store.execute(
        f"INSERT INTO k2.seams SELECT {seam.version}, {generation},"
        f" CAST([{listed}], 'Array(Tuple(Int64, Int64))'), now64(6)"
    )
    return seam


def merge(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Ranges in order, those that touch as one. Raises ValueError where one is empty or no whole minutes."""
    found: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if first >= end or first % MINUTE or end % MINUTE:
            raise ValueError(f"({first}, {end}) is not a range of whole minutes in ns")
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((first, end))
    return tuple(found)


def subtract(ranges: Iterable[tuple[int, int]], taken: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """What of `ranges` lies in none of `taken`."""
    left = list(ranges)
    for first, end in taken:
        left = [part for a, b in left for part in ((a, min(b, first)), (max(a, end), b)) if part[0] < part[1]]
    return tuple(left)


def intersect(ranges: Iterable[tuple[int, int]], first: int, end: int) -> tuple[tuple[int, int], ...]:
    """What of `ranges` lies in `first` to `end`."""
    cut = ((max(a, first), min(b, end)) for a, b in ranges)
    return tuple((a, b) for a, b in cut if a < b)


def replace_view(store: Store, seam: Seam, pin: int) -> None:
    """Make `k2.trades` (and `k2.past_trades`, the loader's) answer for this seam and pin. Raises StoreError."""
    if not seam.ranges:
        store.execute(f"{HOT} COMMENT '{described(seam, pin)}'")
        return
    if not pin:
        raise StoreError("trades were handed over to the cold tier, but no snapshot of cold.trades is pinned")
    late = store.rows(
        f"SELECT count() FROM k2.silver_base WHERE {seam.contains('exchange_ts')} AND generation > {seam.generation}"
    )
    store.execute(f"CREATE OR REPLACE VIEW k2.past_trades AS {_past(seam, pin)}")
    store.execute(
        f"CREATE OR REPLACE VIEW k2.trades AS {_trades(seam, pin, late[0][0] > 0)} COMMENT '{described(seam, pin)}'"
    )


def described(seam: Seam, pin: int) -> str:
    """What the view's comment says if it answers for this seam and pin."""
    return f"hot and cold: seam {seam.version}, pin {pin}" if seam.ranges else "all is hot"


def shown(store: Store) -> str:
    """The comment of the view as it is."""
    rows = store.rows("SELECT comment FROM system.tables WHERE database = 'k2' AND name = 'trades'")
    return str(rows[0][0]) if rows else ""


def _trades(seam: Seam, pin: int, late: bool) -> str:
    """The tail stands first: its SELECT evaluates the last commit, and only then is the snapshot of the base taken."""
    return (
        f"{_TAIL}UNION ALL\nSELECT {_COLUMNS} FROM k2.silver_base"
        " WHERE generation <= (SELECT max(generation) FROM k2.commits)"
        f" AND (NOT {seam.contains('exchange_ts')} OR generation > {seam.generation})"
        f"\nUNION ALL\n{_cold(seam, pin, late)}"
    )


def _past(seam: Seam, pin: int) -> str:
    """All trades in the ranges, with those of the generation that is about to be committed."""
    return (
        f"SELECT {_COLUMNS} FROM k2.silver_base WHERE {seam.contains('exchange_ts')}"
        f" AND generation > {seam.generation}\nUNION ALL\n{_cold(seam, pin, True)}"
    )


def _cold(seam: Seam, pin: int, late: bool) -> str:
    """`late`: trades that came after the ranges were handed over may stand in the pin and in hot: hot shows them."""
    names = ", ".join(f"CAST(c.{name}, 'LowCardinality(String)') AS {name}" for name in _NAMES)
    times = ", ".join(f"{_NANOSECONDS.format(name=name)} AS {name}" for name in ("exchange_ts", "recv_ts"))
    without = ""
    if late:
        without = (
            f" AND (c.exchange, c.symbol, c.epoch, c.trade_id) NOT IN (SELECT exchange, symbol, epoch, trade_id"
            f" FROM k2.silver_base WHERE {seam.contains('exchange_ts')} AND generation > {seam.generation})"
        )
    return (
        f"SELECT {_COLUMNS} FROM (SELECT {names}, c.trade_id AS trade_id, c.price AS price, c.quantity AS quantity,"
        f" {times}, toUInt32(c.epoch) AS epoch FROM {SNAPSHOTS}.trades_{pin} AS c"
        f" WHERE {seam.contains('c.exchange_ts', 6)}{without})"
    )
