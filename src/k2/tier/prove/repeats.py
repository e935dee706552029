"""Records that a log has again: their identity was there before, and only the first record of an identity counts.

A log is read in pieces, two at once. Each piece drops its own repeats; those of records in earlier pieces show when the
ranges of its ids are laid over those seen before, in the log's order. The hashes of the piece's rows wait until then,
so that repeats can be taken out of its digests without reading anything again.
"""

from collections.abc import Iterable
from typing import Self

from k2.core.islands import Islands
from k2.tier.prove.digests import Digester, Group, Groups, Key, as_groups, digests
from k2.tier.prove.rowwise import light, light_table

_NAME = "row_exchange, row_symbol, row_epoch, row_id"
_RANGE = "row_exchange String, row_symbol String, row_epoch Int32, first_id Int64, last_id Int64"


class Seen:
    """The ids of what was read so far. `repeats`: how many rows were dropped."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str, int], Islands] = {}
        self.repeats = 0

    def again(self, groups: Groups) -> dict[Key, list[tuple[int, int]]]:
        """Which ids of these groups were seen before; and remember all of them. No id may stand in two groups."""
        found = {}
        for key, group in groups.items():
            islands = self._ids.setdefault((key.exchange, key.symbol, key.epoch), Islands())
            ranges = [one for first, last in group.ids for one in _present(islands, first, last)]
            if ranges:
                found[key] = ranges
        for key, group in groups.items():
            for first, last in group.ids:
                self._ids[key.exchange, key.symbol, key.epoch].add_range(first, last)
        return found


def _present(islands: Islands, first: int, last: int) -> Iterable[tuple[int, int]]:
    """The ranges within first..last that are in the set."""
    at = first
    for begin, end in islands.holes(first, last):
        if at < begin:
            yield at, begin - 1
        at = end + 1
    if at <= last:
        yield at, last


class Piece:
    """Consecutive records of a log: their digests, and until those are final, each row's hashes."""

    def __init__(self, digester: Digester, table: str) -> None:
        self._digester = digester
        self._table = table
        self._groups: Groups = {}
        self._repeats = 0
        digester.execute(light_table(table))

    def into(self, rows: str) -> str:
        """The statement that puts rows there, a SELECT such as `Form.rows` gives. They come in the log's order."""
        return f"INSERT INTO {self._table} {light(rows)}"

    def digested(self) -> Self:
        """Make the digests of the first row of each identity."""
        self._groups = as_groups(self._digester.rows(digests(self._first(), ids=True)))
        ((rows,),) = self._digester.rows(f"SELECT count() FROM {self._table}")
        self._repeats = rows - sum(group.rows for group in self._groups.values())
        return self

    def first_ones(self, seen: Seen) -> Groups:
        """The digests of rows with identities not seen before; the piece is then done with."""
        groups, ranges = self._groups, seen.again(self._groups)
        if ranges:
            for key, group in self._digests_of(ranges).items():
                groups[key] = groups[key].minus(group)
                self._repeats += group.rows
        seen.repeats += self._repeats
        self._digester.execute(f"DROP TABLE {self._table} SYNC")
        return {key: group for key, group in groups.items() if group.rows}

    def _digests_of(self, ranges: dict[Key, list[tuple[int, int]]]) -> dict[Key, Group]:
        table = f"{self._table}_again"
        listed = ((*key[:3], first, last) for key, found in ranges.items() for first, last in found)
        self._digester.listed(table, _RANGE, listed)
        wanted = f"SELECT row_exchange, row_symbol, row_epoch, arrayJoin(range(first_id, last_id + 1)) FROM {table}"
        found = as_groups(self._digester.rows(digests(self._first(f"({_NAME}) IN ({wanted})"))))
        self._digester.execute(f"DROP TABLE {table} SYNC")
        return found

    def _first(self, where: str = "1") -> str:
        return f"SELECT * FROM {self._table} WHERE {where} LIMIT 1 BY {_NAME}"
