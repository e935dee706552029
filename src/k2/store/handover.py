"""Before rows leave the hot store: are they in the cold tier, each once and the same in every column?

Both sides are summed up in blocks of ids, by two independent hashes of all columns; only blocks that differ are looked
into row by row. A statement reads one day of one table, so its memory and time are bounded by a day's.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from k2.core.islands import Islands
from k2.store import Store
from k2.store.rows import literal

BLOCK = 1 << 16  # ids
_TRADE = (
    "CAST(exchange, 'String'), CAST(symbol, 'String'), CAST(native_symbol, 'String'), toUInt32(epoch), trade_id, price,"
    " quantity, CAST(side, 'String'), {exchange_ts}, {recv_ts}, CAST(source, 'String')"
)
_FRAME = (
    "CAST(exchange, 'String'), toInt64({position}), {recv_ts}, CAST(kind, 'String'), CAST(connection, 'String'),"
    " request, payload"
)
_NANOSECONDS = "toUnixTimestamp64Nano({})"
_TRADE_KEY = (
    "CAST(exchange, 'String') AS of, CAST(symbol, 'String') AS name, toUInt32(epoch) AS counter, trade_id AS id"
)
_FRAME_KEY = "CAST(exchange, 'String') AS of, '' AS name, toUInt32(0) AS counter, toInt64({}) AS id"

Counter = tuple[str, str, int]  # exchange, symbol, epoch
Known = Callable[[Counter], Islands]


class Difference(NamedTuple):
    """Rows of one day that keep it hot. `epoch` and `symbol` are 0 and "" for frames.

    `missing`: cold lacks them. `lost`: cold has them, and hot, which had let them in, does not. `different`: not the
    same in every column. `twice`: more than once on one side.
    """

    table: str
    day: str
    exchange: str
    symbol: str
    epoch: int
    missing: int = 0
    lost: int = 0
    different: int = 0
    twice: int = 0

    def __str__(self) -> str:
        named = ("missing from cold", "lost from hot", "different", "twice")
        found = [f"{n} {name}" for n, name in zip(self[5:], named, strict=True) if n]
        of = f"{self.exchange} {self.symbol}".strip()
        return f"{self.day} {of}: {', '.join(found)}"


class Side(NamedTuple):
    """One side's rows: of `source`, where `condition`. `key` and `content` are SQL that means the same on both."""

    source: str
    condition: str
    key: str
    content: str

    def rows(self, marked: int) -> str:
        """Each as its counter, its id and two hashes. `marked` is 0 for hot and 1 for cold."""
        return (
            f"SELECT {self.key}, cityHash64({self.content}) AS a, sipHash64({self.content}) AS b, {marked} AS cold"
            f" FROM {self.source} WHERE {self.condition}"
        )


def hot_trades(condition: str) -> Side:
    times = {name: _NANOSECONDS.format(name) for name in ("exchange_ts", "recv_ts")}
    return Side("k2.silver_base", condition, _TRADE_KEY, _TRADE.format(**times))


def cold_trades(table: str, condition: str) -> Side:
    return Side(table, condition, _TRADE_KEY, _TRADE.format(exchange_ts="exchange_ts_ns", recv_ts="recv_ts_ns"))


def hot_frames(condition: str) -> Side:
    content = _FRAME.format(position="position", recv_ts=_NANOSECONDS.format("recv_ts"))
    return Side("k2.bronze_base", condition, _FRAME_KEY.format("position"), content)


def cold_frames(condition: str) -> Side:
    content = _FRAME.format(position="log_offset", recv_ts="recv_ts_ns")
    return Side("cold.frames", condition, _FRAME_KEY.format("log_offset"), content)


def differences(
    store: Store, table: str, day: str, hot: Side, cold: Side, known: Known | None
) -> tuple[int, list[Difference]]:
    """How many rows `hot` has, and in what the two sides differ. Raises StoreError.

    `known`: which ids hot ever let in; what cold has beyond these is no difference. None: whatever cold has beyond hot
    is none.
    """
    found: dict[Counter, Difference] = {}
    total = 0
    both = f"{hot.rows(0)} UNION ALL {cold.rows(1)}"
    for exchange, symbol, epoch, block, have, same, first, last in store.rows(
        f"SELECT of, name, counter, intDiv(id, {BLOCK}) AS block, countIf(cold = 0),"
        " countIf(cold = 0) = countIf(cold = 1) AND sumIf(a, cold = 0) = sumIf(a, cold = 1)"
        " AND sumIf(b, cold = 0) = sumIf(b, cold = 1), min(id), max(id)"
        f" FROM ({both}) GROUP BY of, name, counter, block ORDER BY of, name, counter, block"
    ):
        total += int(have)
        counter = (str(exchange), str(symbol), int(epoch))
        if same or (not have and _unknown(known, counter, int(first), int(last))):
            continue
        one = found.get(counter) or Difference(table, day, *counter)
        found[counter] = _look_into(store, one, both, int(block), known(counter) if known else Islands())
    return total, [one for one in found.values() if any(one[5:])]


def _unknown(known: Known | None, counter: Counter, first: int, last: int) -> bool:
    """Hot never had any of these."""
    return known is None or known(counter).holes(first, last) == [(first, last)]


def _look_into(store: Store, one: Difference, both: str, block: int, known: Islands) -> Difference:
    missing, lost, different, twice = one[5:]
    for number, hot, cold, same in store.rows(
        "SELECT id, countIf(cold = 0) AS hot_rows, countIf(cold = 1) AS cold_rows,"
        " min((a, b)) = max((a, b)) AS same FROM"
        f" ({both}) WHERE of = {literal(one.exchange)} AND name = {literal(one.symbol)} AND counter = {one.epoch}"
        f" AND id >= {block * BLOCK} AND id < {(block + 1) * BLOCK}"
        " GROUP BY id HAVING NOT (hot_rows = 1 AND cold_rows = 1 AND same)"
    ):
        missing += cold == 0
        lost += hot == 0 and number in known
        different += hot > 0 and cold > 0 and not same
        twice += hot > 1 or cold > 1
    return one._replace(missing=missing, lost=lost, different=different, twice=twice)


def told(found: Sequence[Difference], most: int = 10) -> str:
    """Differences as text, the first `most` of them."""
    more = f"; and {len(found) - most} more" if len(found) > most else ""
    return "; ".join(map(str, found[:most])) + more
