"""What a generated history holds, added up in integers while it is made, and the same sums asked of the cold tables.

The sums are chosen so that a trade lost, doubled, changed or given another's price shows, whatever the others do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from k2.core.types import Frame

ID_MARKS = 1009  # a price is also added up times its trade's id modulo this: a swap of two prices shows
_PLACES = 18  # of a decimal in the cold tables

Counter = tuple[str, str, int]  # exchange, symbol, epoch
Sums = tuple[int, ...]

TRADES_SQL = f"""
SELECT exchange, symbol, epoch, count(), uniqExact(trade_id), toString(sum(toInt128(trade_id))),
    toDecimalString(sum(price), {_PLACES}), toDecimalString(sum(price * (trade_id % {ID_MARKS})), {_PLACES}),
    toDecimalString(sum(quantity), {_PLACES}),
    toString(sum(toInt128(exchange_ts_ns))), toString(sum(toInt128(recv_ts_ns))),
    countIf(side = 'buy'), countIf(source = 'backfill')
FROM cold_trades WHERE exchange = '{{exchange}}' GROUP BY exchange, symbol, epoch"""
FRAMES_SQL = """
SELECT exchange, count(), uniqExact(log_offset), toString(sum(length(payload))), toString(sum(toInt128(recv_ts_ns)))
FROM cold_frames GROUP BY exchange"""
GAPS_SQL = "SELECT count(), uniqExact(log_offset) FROM cold_gaps"


@dataclass(slots=True)
class Counted:
    """The trades of one counter. Prices and quantities in units of 10**-scale."""

    price_scale: int
    quantity_scale: int
    trades: int = 0
    ids: int = 0
    price: int = 0
    marked_price: int = 0
    quantity: int = 0
    exchange_ts: int = 0
    recv_ts: int = 0
    buys: int = 0
    backfilled: int = 0

    def sums(self) -> Sums:
        """As `TRADES_SQL` gives them: rows, distinct ids, sum of ids, of prices, ..."""
        price, quantity = 10 ** (_PLACES - self.price_scale), 10 ** (_PLACES - self.quantity_scale)
        return (
            self.trades, self.trades, self.ids, self.price * price, self.marked_price * price, self.quantity * quantity,
            self.exchange_ts, self.recv_ts, self.buys, self.backfilled,
        )  # fmt: skip


@dataclass(slots=True)
class Frames:
    """The frames of one venue."""

    number: int = 0
    size: int = 0
    recv_ts: int = 0

    def add(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            self.number += 1
            self.size += len(frame.payload)
            self.recv_ts += frame.recv_ts

    def sums(self) -> Sums:
        """As `FRAMES_SQL` gives them."""
        return self.number, self.number, self.size, self.recv_ts


@dataclass(slots=True)
class Truth:
    """All that was made. `late`, `again` and `lost`: trades logged late, logged again, and ids that never arrive."""

    counters: dict[Counter, Counted] = field(default_factory=dict)
    frames: dict[str, Frames] = field(default_factory=dict)
    gaps: int = 0
    late: int = 0
    again: int = 0
    lost: int = 0

    @property
    def trades(self) -> int:
        return sum(one.trades for one in self.counters.values())

    def largest(self) -> Counter:
        """The counter with the most trades."""
        return max(self.counters, key=lambda counter: self.counters[counter].trades)


@dataclass(slots=True)
class Difference:
    """Cold against the truth: trades that it lacks, that it has twice, and counters whose content differs."""

    lost: int = 0
    doubled: int = 0
    different: list[str] = field(default_factory=list)


def compare(truth: Truth, trades: Sequence[Sequence[Any]], frames: Sequence[Any], gaps: Sequence[Any]) -> Difference:
    """The answers to the three statements against the truth."""
    found = Difference()
    wanted: dict[Any, Sums] = {key: one.sums() for key, one in truth.counters.items() if one.trades}
    _compare(found, wanted, {(str(row[0]), str(row[1]), int(row[2])): _plain(row[3:]) for row in trades})
    wanted = {(name, "frames"): one.sums() for name, one in truth.frames.items() if one.number}
    _compare(found, wanted, {(str(row[0]), "frames"): _plain(row[1:]) for row in frames})
    _compare(found, {("gaps",): (truth.gaps, truth.gaps)}, {("gaps",): _plain(gaps[0])})
    return found


def _compare(found: Difference, wanted: Mapping[Any, Sums], have: Mapping[Any, Sums]) -> None:
    for key in sorted(wanted.keys() | have.keys()):
        right = wanted.get(key, (0,) * len(have.get(key, ())))
        is_ = have.get(key, (0,) * len(right))
        found.lost += max(0, right[0] - is_[1])
        found.doubled += is_[0] - is_[1]
        if right != is_:
            found.different.append(f"{' '.join(map(str, key))}: {is_} in cold, {right} were made")


def _plain(values: Iterable[Any]) -> Sums:
    """Numbers as they come: decimals, which have all their places, in units of the last one."""
    return tuple(_units(str(value)) for value in values)


def _units(text: str) -> int:
    whole, _, fraction = text.partition(".")
    return int(whole + fraction)
