"""Which trades cold has: ranges of ids by counter. A slice is let in by runs of ids, never id by id."""

import hashlib
from collections.abc import Iterable

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from k2.core.islands import Islands
from k2.tier.order import IDENTITY, by_identity, codes, order_by

Counter = tuple[str, str, int]  # exchange, symbol, epoch
Run = tuple[str, int, int, int, int]  # symbol, epoch, first id, last id, row of the first

_decode = msgspec.json.Decoder(list[tuple[str, str, int, list[tuple[int, int]]]]).decode


class Identities:
    """The ids of every counter that were let in. Dense ids make it a few ranges, however many trades there are."""

    def __init__(self) -> None:
        self._islands: dict[Counter, Islands] = {}

    @classmethod
    def from_text(cls, text: str) -> "Identities":
        """The reverse of `to_text`. Raises msgspec.DecodeError, ValueError."""
        found = cls()
        for exchange, symbol, epoch, ranges in _decode(text):
            found._islands[exchange, symbol, epoch] = Islands.from_list(ranges)
        return found

    def to_text(self) -> str:
        """`[[exchange, symbol, epoch, [[first, last], ...]], ...]`, the same for the same ids."""
        rows = [(*counter, islands.to_list()) for counter, islands in sorted(self._islands.items(), key=lambda c: c[0])]
        return msgspec.json.encode(rows).decode()

    def admit(self, exchange: str, rows: pa.Table) -> pa.Table:
        """The rows whose trades were not let in before, each once, sorted by symbol, epoch and trade_id; all of them
        count as let in from now on.

        `rows` are one exchange's, in any order; of equal ones the first stays. Only their keys are sorted and looked
        at: whole rows are moved once.
        """
        rows = rows.combine_chunks()
        order = order_by(rows, IDENTITY)
        keys = rows.select(IDENTITY).take(order)
        if (first := _firsts(keys)) is not None:
            order, keys = order.filter(first), keys.filter(first)
        keep: list[tuple[int, int]] = []  # first row, number of rows
        for symbol, epoch, low, high, row in runs(keys):
            islands = self._islands.setdefault((exchange, symbol, epoch), Islands())
            for start, end in islands.holes(low, high):
                _extend(keep, row + start - low, end - start + 1)
            islands.add_range(low, high)
        return rows.take(pa.chunked_array([order.slice(*part) for part in keep], pa.uint64()).combine_chunks())

    def add(self, exchange: str, rows: pa.Table) -> None:
        """Let rows in without a question: they are in cold. Any order."""
        keys = by_identity(rows.select(IDENTITY))
        if (first := _firsts(keys)) is not None:
            keys = keys.filter(first)
        for symbol, epoch, low, high, _ in runs(keys):
            self._islands.setdefault((exchange, symbol, epoch), Islands()).add_range(low, high)

    def items(self) -> Iterable[tuple[Counter, Islands]]:
        return self._islands.items()


def digest(text: str) -> str:
    """What a snapshot's summary says of the identities it goes with."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def runs(rows: pa.Table) -> list[Run]:
    """Sorted, distinct rows as runs of consecutive ids."""
    if not rows.num_rows:
        return []
    follows = pc.and_(_same_counter(rows), pc.equal(_steps(rows["trade_id"]), 1))
    heads = [0, *(i + 1 for i in pc.indices_nonzero(pc.invert(follows)).to_pylist())]
    tails = [i - 1 for i in heads[1:]] + [rows.num_rows - 1]
    first = rows.select(IDENTITY).take(pa.array(heads, pa.int64()))
    last = rows["trade_id"].take(pa.array(tails, pa.int64()))
    columns = (first["symbol"], first["epoch"], first["trade_id"], last)
    return list(zip(*(column.to_pylist() for column in columns), heads, strict=True))


def _firsts(keys: pa.Table) -> pa.BooleanArray | None:
    """For each of the sorted keys whether it is not the same as the one before it; None: all are distinct."""
    if keys.num_rows < 2:
        return None
    again = pc.and_(_same_counter(keys), pc.equal(_steps(keys["trade_id"]), 0))
    if not pc.any(again).as_py():
        return None
    return pa.chunked_array([pa.array([True]), *pc.invert(again).chunks]).combine_chunks()


def _same_counter(rows: pa.Table) -> pa.ChunkedArray:
    symbols, epochs = codes(rows["symbol"]), rows["epoch"]
    last = rows.num_rows - 1
    return pc.and_(pc.equal(symbols.slice(0, last), symbols.slice(1)), pc.equal(epochs.slice(0, last), epochs.slice(1)))


def _steps(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.subtract(ids.slice(1), ids.slice(0, len(ids) - 1))


def _extend(parts: list[tuple[int, int]], row: int, count: int) -> None:
    if parts and sum(parts[-1]) == row:
        parts[-1] = (parts[-1][0], parts[-1][1] + count)
    else:
        parts.append((row, count))
