"""Looking into the blocks in which two sides differ: which of their rows are wrong, and how.

First come identities and hashes, of all rows of these blocks, into a table on disk: each file or stretch of the log is
read once for them, however many blocks differ. The table is ordered by block, and judged some blocks at a time, so that
memory stays bounded. Only the few rows that are then shown are fetched whole.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pyiceberg.schema import Schema

from k2.tier.prove.digests import BLOCK_BITS, Block, Digester, Named
from k2.tier.prove.shapes import kind

SHOWN = 20  # rows named, of each kind and counter
AT_ONCE = 8  # blocks judged together: about 130,000 rows of each side

MISSING, EXCESS, DOUBLED, DIFFERS = "missing", "excess", "doubled", "differs"

_SIDES, _BLOCKS, _NAMED, _WHOLE = "sides", "blocks", "named", "whole"
_BLOCK = "row_exchange, row_symbol, row_epoch, row_block"
_PLACE = "row_position, row_source, row_day, row_must, row_city, row_xx"
_NAME = "row_exchange, row_symbol, row_epoch, row_id"
_LIGHT = (
    "row_position, row_source, row_exchange, row_symbol, row_epoch, row_id, row_day, row_block, row_must, row_city,"
    " row_xx"
)
_PASSING = (
    "row_position Int64, row_source Int32, row_exchange String, row_symbol String, row_epoch Int32, row_id Int64,"
    " row_day Int32, row_block Int64, row_must Bool, row_city UInt64, row_xx UInt64"
)
_IN_MEMORY = _PASSING.replace(" String", " LowCardinality(String)")
_ON_DISK = (
    "row_number UInt32, row_id Int64, row_position Int64, row_source Int32, row_day Int32, row_must Bool,"
    " row_city UInt64, row_xx UInt64, row_side Enum8('cold' = 1, 'other' = 2, 'tail' = 3)"
)
_NAMES = "row_exchange String, row_symbol String, row_epoch Int32, row_{} Int64"


class Judged(NamedTuple):
    """Rows of one counter with one thing wrong: how many, and the first ids."""

    kind: str
    exchange: str
    symbol: str
    epoch: int
    total: int
    ids: list[int]


class Place(NamedTuple):
    """Where a row stands, in its side's numbers."""

    name: Named
    source: int
    position: int
    day: int


def structure_of_rows(schema: Schema) -> str:
    """The columns that `Form.rows` gives, as ClickHouse reads them."""
    return f"{', '.join(f'{one.name} {kind(one)}' for one in schema.fields)}, {_PASSING}"


def structure_of_light() -> str:
    """The columns that `light` gives, as ClickHouse reads them."""
    return _PASSING


def light(rows: str) -> str:
    """Of rows, a SELECT such as `Form.rows` gives: what identifies them and tells them apart."""
    return f"SELECT {_LIGHT} FROM ({rows})"


def light_table(name: str) -> str:
    """The statement that makes a table in memory for `light` rows."""
    return f"CREATE OR REPLACE TABLE {name} ({_IN_MEMORY}) ENGINE = Memory"


class Sides:
    """The rows of both sides in these blocks, once they were put there."""

    def __init__(self, digester: Digester, blocks: Iterable[Block]) -> None:
        self._digester = digester
        self._blocks = sorted(blocks)
        numbered = ((*block, number) for number, block in enumerate(self._blocks))
        digester.listed(_BLOCKS, f"{_NAMES.format('block')}, row_number UInt32", numbered)
        digester.execute(f"CREATE OR REPLACE TABLE {_SIDES} ({_ON_DISK}) ENGINE = MergeTree ORDER BY row_number")

    def judged(self, day: int | None, first_may_be_gone: bool) -> list[Judged]:
        """What is wrong with cold's rows among them."""
        found: dict[tuple[str, str, str, int], Judged] = {}
        for first in range(0, len(self._blocks), AT_ONCE):
            for what, number, total, ids in self._digester.rows(_judging(first, day, first_may_be_gone)):
                exchange, symbol, epoch, _ = self._blocks[number]
                one = Judged(what, exchange, symbol, epoch, total, ids)
                known = found.get(one[:4])
                both = known and one._replace(total=known.total + total, ids=sorted(known.ids + ids)[:SHOWN])
                found[one[:4]] = both or one
        return list(found.values())

    def places(self, schema: Schema, names: Iterable[Named]) -> dict[str, list[Place]]:
        """Where these rows stand, by side, the first ones of each; and make the table that takes them whole."""
        self._digester.listed(_NAMED, _NAMES.format("id"), names)
        columns = f"{structure_of_rows(schema)}, row_side String"
        self._digester.execute(f"CREATE OR REPLACE TABLE {_WHOLE} ({columns}) ENGINE = Memory")
        wanted = (
            "SELECT row_number, row_id FROM"
            f" (SELECT *, bitShiftRight(row_id, {BLOCK_BITS}) AS row_block FROM {_NAMED}) AS named"
            f" INNER JOIN {_BLOCKS} USING ({_BLOCK})"
        )
        found: dict[str, list[Place]] = {"cold": [], "other": []}
        for side, number, row_id, source, position, day in self._digester.rows(
            f"SELECT toString(row_side), row_number, row_id, row_source, row_position, row_day FROM {_SIDES}"
            f" WHERE (row_number, row_id) IN ({wanted}) AND row_side != 'tail'"
            f" ORDER BY row_side, row_number, row_id, row_position LIMIT {SHOWN} BY row_side, row_number, row_id"
        ):
            exchange, symbol, epoch, _ = self._blocks[number]
            found[side].append(Place((exchange, symbol, epoch, row_id), source, position, day))
        return found

    def drop(self) -> None:
        """Give back what all that took."""
        for table in (_SIDES, _BLOCKS, _NAMED, _WHOLE):
            self._digester.execute(f"DROP TABLE IF EXISTS {table} SYNC")


def into_sides(side: str, rows: str) -> str:
    """The statement that puts those of the rows there that lie in the blocks."""
    return (
        f"INSERT INTO {_SIDES} SELECT row_number, row_id, {_PLACE}, '{side}' FROM ({light(rows)}) AS found"
        f" INNER JOIN {_BLOCKS} USING ({_BLOCK})"
    )


def _judging(first: int, day: int | None, first_may_be_gone: bool) -> str:
    on = "1" if day is None else f"other_day = {day}"
    wrong = (
        f"[if(in_cold = 0 AND in_other > 0 AND in_tail = 0 AND {on}, '{MISSING}', ''),"
        f" if(in_cold > 1, '{DOUBLED}', ''),"
        f" if(in_cold > 0 AND in_other = 0 AND in_tail = 0 AND must, '{EXCESS}', ''),"
        " if(in_cold > 0 AND in_other > 0 AND NOT has(have, want)"
        f"{' AND must' if first_may_be_gone else ''}, '{DIFFERS}', '')]"
    )
    these = f"FROM {_SIDES} WHERE row_number >= {first} AND row_number < {first + AT_ONCE}"
    by = "GROUP BY row_number, row_id"
    alike = (  # as nearly all are: once on each side
        "countIf(row_side = 'cold') = 1 AND countIf(row_side = 'other') = 1"
        " AND min(row_city) = max(row_city) AND min(row_xx) = max(row_xx)"
    )
    rows = (
        "SELECT row_number, row_id, countIf(row_side = 'cold') AS in_cold,"
        " countIf(row_side = 'other') AS in_other, countIf(row_side = 'tail') AS in_tail,"
        " argMinIf((row_city, row_xx), row_position, row_side = 'other') AS want,"
        " argMinIf(row_day, row_position, row_side = 'other') AS other_day,"
        " groupUniqArrayIf((row_city, row_xx), row_side = 'cold') AS have, maxIf(row_must, row_side = 'cold') AS must"
        f" {these} AND (row_number, row_id) IN (SELECT row_number, row_id {these} {by} HAVING NOT ({alike})) {by}"
    )
    return (
        f"SELECT kind, row_number, sum(if(kind = '{DOUBLED}', in_cold - 1, 1)), groupArraySorted({SHOWN})(row_id)"
        f" FROM ({rows}) ARRAY JOIN arrayFilter(one -> one != '', {wrong}) AS kind GROUP BY kind, row_number"
    )


def into_whole(side: str, rows: str) -> str:
    """The statement that puts those of the rows there that are to be shown."""
    return f"INSERT INTO {_WHOLE} SELECT *, '{side}' FROM ({rows}) WHERE ({_NAME}) IN (SELECT * FROM {_NAMED})"


def whole(digester: Digester, columns: Sequence[str]) -> dict[Named, dict[str, list[tuple[object, ...]]]]:
    """The rows that are shown, by identity and side: the number of the source, then the columns as text."""
    found: dict[Named, dict[str, list[tuple[object, ...]]]] = {}
    for exchange, symbol, epoch, number, side, source, *values in digester.rows(
        f"SELECT {_NAME}, row_side, row_source, {', '.join(f'toString({name})' for name in columns)} FROM {_WHOLE}"
        f" ORDER BY {_NAME}, row_side, row_position"
    ):
        rows = found.setdefault((exchange, symbol, epoch, number), {})
        rows.setdefault(side, []).append((source, *values))
    return found
