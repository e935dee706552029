"""Looking into the blocks in which two sides differ: which of their rows are wrong, and how.

First come identities and hashes, of all rows of these blocks, into a table on disk: each file or stretch of the log is
read once for them, however many blocks differ. What that finds is counted; only the few rows that are then shown are
fetched whole.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pyiceberg.schema import Schema

from k2.tier.prove.digests import Block, Digester, Named
from k2.tier.prove.shapes import kind

SHOWN = 20  # rows named, of each kind and counter

MISSING, EXCESS, DOUBLED, DIFFERS = "missing", "excess", "doubled", "differs"

_SIDES, _BLOCKS, _NAMED, _WHOLE = "sides", "blocks", "named", "whole"
_BLOCK = "row_exchange, row_symbol, row_epoch, row_block"
_NAME = "row_exchange, row_symbol, row_epoch, row_id"
_LIGHT = (
    "row_position, row_source, row_exchange, row_symbol, row_epoch, row_id, row_day, row_block, row_must, row_city,"
    " row_xx"
)
_PASSING = (
    "row_position Int64, row_source Int32, row_exchange String, row_symbol String, row_epoch Int32, row_id Int64,"
    " row_day Int32, row_block Int64, row_must Bool, row_city UInt64, row_xx UInt64"
)
_ON_DISK = _PASSING.replace(" String", " LowCardinality(String)")
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
    return f"CREATE OR REPLACE TABLE {name} ({_ON_DISK}) ENGINE = Memory"


def prepare(digester: Digester, blocks: Iterable[Block]) -> None:
    """Make the table of the sides, for rows of these blocks."""
    digester.listed(_BLOCKS, _NAMES.format("block"), blocks)
    side = "row_side Enum8('cold' = 1, 'other' = 2, 'tail' = 3)"
    digester.execute(f"CREATE OR REPLACE TABLE {_SIDES} ({_ON_DISK}, {side}) ENGINE = MergeTree ORDER BY ({_NAME})")


def into_sides(side: str, rows: str) -> str:
    """The statement that puts those of the rows there that lie in the blocks."""
    return f"INSERT INTO {_SIDES} SELECT {_LIGHT}, '{side}' FROM ({rows}) WHERE ({_BLOCK}) IN (SELECT * FROM {_BLOCKS})"


def judged(digester: Digester, day: int | None, first_may_be_gone: bool) -> list[Judged]:
    """What is wrong with cold's rows among the sides."""
    on = "1" if day is None else f"other_day = {day}"
    wrong = (
        f"[if(in_cold = 0 AND in_other > 0 AND in_tail = 0 AND {on}, '{MISSING}', ''),"
        f" if(in_cold > 1, '{DOUBLED}', ''),"
        f" if(in_cold > 0 AND in_other = 0 AND in_tail = 0 AND must, '{EXCESS}', ''),"
        " if(in_cold > 0 AND in_other > 0 AND NOT has(have, want)"
        f"{' AND must' if first_may_be_gone else ''}, '{DIFFERS}', '')]"
    )
    rows = (
        f"SELECT {_NAME}, countIf(row_side = 'cold') AS in_cold,"
        " countIf(row_side = 'other') AS in_other, countIf(row_side = 'tail') AS in_tail,"
        " argMinIf((row_city, row_xx), row_position, row_side = 'other') AS want,"
        " argMinIf(row_day, row_position, row_side = 'other') AS other_day,"
        " groupUniqArrayIf((row_city, row_xx), row_side = 'cold') AS have, maxIf(row_must, row_side = 'cold') AS must"
        f" FROM {_SIDES} GROUP BY {_NAME}"
    )
    found = digester.rows(
        f"SELECT kind, row_exchange, row_symbol, row_epoch, sum(if(kind = '{DOUBLED}', in_cold - 1, 1)),"
        f" groupArraySorted({SHOWN})(row_id) FROM ({rows}) ARRAY JOIN arrayFilter(one -> one != '', {wrong}) AS kind"
        " GROUP BY kind, row_exchange, row_symbol, row_epoch"
    )
    return [Judged(*row) for row in found]


def places(digester: Digester, schema: Schema, names: Iterable[Named]) -> dict[str, list[Place]]:
    """Where these rows stand, by side, the first ones of each; and make the table that takes them whole."""
    digester.listed(_NAMED, _NAMES.format("id"), names)
    digester.execute(f"CREATE OR REPLACE TABLE {_WHOLE} ({structure_of_rows(schema)}, row_side String) ENGINE = Memory")
    found: dict[str, list[Place]] = {"cold": [], "other": []}
    for side, *name, source, position, day in digester.rows(
        f"SELECT toString(row_side), {_NAME}, row_source, row_position, row_day FROM {_SIDES}"
        f" WHERE ({_NAME}) IN (SELECT * FROM {_NAMED}) AND row_side != 'tail'"
        f" ORDER BY row_side, {_NAME}, row_position LIMIT {SHOWN} BY row_side, {_NAME}"
    ):
        found[side].append(Place(tuple(name), source, position, day))
    return found


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


def done(digester: Digester) -> None:
    """Give back what all that took."""
    for table in (_SIDES, _BLOCKS, _NAMED, _WHOLE):
        digester.execute(f"DROP TABLE IF EXISTS {table} SYNC")
