"""A partition's files as one ordered sequence of rows, in bounded memory.

Files that do not overlap are read one after the other. Those that do are cut into runs: rows of one file, in order,
that agree in all sort columns but the last. The runs are put aside and taken up again by their first rows, a few at a
time, so that rows are sorted only where runs overlap, and no more is in memory than what overlaps.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from k2.tier.keep.reading import PIECE_ROWS, ends, read
from k2.tier.keep.spill import Fetch, Spill
from k2.tier.order import by_columns
from k2.tier.schema import ColdTable

STEP_ROWS = 1 << 17
OVERLAP_ROWS = 1 << 20  # most rows in memory when every run overlaps with every other
LEAST_ROWS = 1024  # of a run that is cut for that reason
TINY_ROWS = 1 << 14
TINY_BYTES = 4 << 20
LOOKED_AT = 16  # more files than this are taken to overlap


class Disorder(Exception):
    """A file turned out not to be in its table's order: read the files with `trust` off."""


class Piece(NamedTuple):
    """Rows in order that agree in all sort columns but the last; `group` are the values that they agree in."""

    group: tuple[Any, ...]
    rows: pa.Table


class _Run(NamedTuple):
    group: tuple[Any, ...]
    first: int
    last: int
    fetch: Fetch


def in_order(
    table: Table, cold: ColdTable, files: Sequence[DataFile], folder: Path, *, trust: bool = True
) -> Iterator[Piece]:
    """All rows of these files in the order of `cold.sort`.

    `folder` is where rows are put aside. With `trust` each file is taken to be sorted until one is caught out: K2's are
    sorted, other engines' need not be. Raises TierError, Disorder.
    """
    before: tuple[Any, ...] | None = None
    for piece in _pieces(table, cold, files, folder, trust=trust):
        ids = piece.rows[cold.sort[-1]]
        if before is not None and (*piece.group, ids[0].as_py()) < before:
            raise Disorder
        before = (*piece.group, ids[-1].as_py())
        yield piece


def _pieces(table: Table, cold: ColdTable, files: Sequence[DataFile], folder: Path, *, trust: bool) -> Iterator[Piece]:
    for cluster in _clusters(table, cold, files) if trust else [list(files)]:
        if len(cluster) == 1 and trust:
            yield from _straight(table, cold, cluster[0])
        else:
            with Spill(folder) as spill:
                yield from _interleaved(_runs(table, cold, cluster, spill), cold.sort[-1])


def _clusters(table: Table, cold: ColdTable, files: Sequence[DataFile]) -> list[list[DataFile]]:
    """The files in order, those together that overlap."""
    if len(files) == 1:
        return [list(files)]
    if len(cold.sort) > 1 and len(files) > LOOKED_AT:
        return [list(files)]
    spans = sorted(((*ends(table, cold, file), i) for i, file in enumerate(files)), key=itemgetter(0, 2))
    found: list[list[int]] = []
    reach: Any = None
    for first, last, i in spans:
        if reach is not None and first <= reach:
            found[-1].append(i)
            reach = max(reach, last)
        else:
            found.append([i])
            reach = last
    return [[files[i] for i in sorted(cluster)] for cluster in found]


def _straight(table: Table, cold: ColdTable, file: DataFile) -> Iterator[Piece]:
    for rows in read(table, cold, file):
        pieces = _cut(rows, cold.sort)
        if pieces is None:
            raise Disorder
        yield from pieces


# -- cutting into runs -------------------------------------------------------------------------------------------------


def _runs(table: Table, cold: ColdTable, files: Sequence[DataFile], spill: Spill) -> list[_Run]:
    chunks = 1 + len(files) + sum(file.record_count for file in files) // PIECE_ROWS
    most = max(LEAST_ROWS, OVERLAP_ROWS // chunks)
    found: list[_Run] = []
    with ThreadPoolExecutor(1, "spill") as pool:  # one chunk is put aside while the next is read
        under_way = None
        for chunk in _chunks(table, cold, files):
            if under_way:
                found += under_way.result()
            under_way = pool.submit(_put_aside, chunk, cold.sort, most, spill)
        if under_way:
            found += under_way.result()
    return found


def _chunks(table: Table, cold: ColdTable, files: Iterable[DataFile]) -> Iterator[pa.Table]:
    """The rows of all files as they stand in them, tiny files put together."""
    parts: list[pa.Table] = []
    for file in files:
        for rows in read(table, cold, file):
            parts.append(rows)
            if sum(part.num_rows for part in parts) >= TINY_ROWS or sum(part.nbytes for part in parts) >= TINY_BYTES:
                yield _joined(parts)
                parts = []
    if parts:
        yield _joined(parts)


def _joined(parts: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks() if len(parts) > 1 else parts[0]


def _put_aside(rows: pa.Table, sort: Sequence[str], most: int, spill: Spill) -> list[_Run]:
    pieces = _cut(rows, sort)
    if pieces is None:
        pieces = _cut(by_columns(rows, sort), sort) or []
    parts = [
        Piece(piece.group, piece.rows.slice(at, most)) for piece in pieces for at in range(0, piece.rows.num_rows, most)
    ]
    fetches = spill.put([part.rows for part in parts])
    last = sort[-1]
    return [
        _Run(part.group, part.rows[last][0].as_py(), part.rows[last][-1].as_py(), fetch)
        for part, fetch in zip(parts, fetches, strict=True)
    ]


def _cut(rows: pa.Table, sort: Sequence[str]) -> list[Piece] | None:
    """The rows cut where a leading sort column changes; None: they are not in order."""
    if not rows.num_rows:
        return []
    *leading, last = sort
    changes = [_unequal(rows[name]) for name in leading]
    changed = pc.indices_nonzero(reduce(pc.or_, changes)).to_pylist() if changes else []
    falls = set(pc.indices_nonzero(_falling(rows[last])).to_pylist())
    if not falls <= set(changed):
        return None
    starts = [0, *(i + 1 for i in changed)]
    heads = rows.select(leading).take(pa.array(starts, pa.int64()))
    groups = list(zip(*(heads[name].to_pylist() for name in leading), strict=True)) if leading else [()]
    if any(groups[i] <= groups[i - 1] for i in range(1, len(groups))):
        return None
    stops = [*starts[1:], rows.num_rows]
    return [Piece(group, rows.slice(a, b - a)) for group, a, b in zip(groups, starts, stops, strict=True)]


def _unequal(column: pa.ChunkedArray) -> pa.Array:
    """For each row but the last whether the next one's value is another."""
    whole = column.combine_chunks()
    if pa.types.is_dictionary(whole.type):
        whole = whole.indices
    return pc.not_equal(whole.slice(1), whole.slice(0, len(whole) - 1))


def _falling(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return pc.less(whole.slice(1), whole.slice(0, len(whole) - 1))


# -- putting runs together ---------------------------------------------------------------------------------------------


def _interleaved(runs: list[_Run], last: str) -> Iterator[Piece]:
    order = sorted(range(len(runs)), key=lambda i: (runs[i].group, runs[i].first, i))
    for group, members in groupby(order, key=lambda i: runs[i].group):
        for rows in _merged([runs[i] for i in members], last):
            yield Piece(group, rows)


def _merged(runs: Sequence[_Run], last: str) -> Iterator[pa.Table]:
    """The rows of one group's runs, which come by their first rows."""
    held: list[pa.Table] = []
    at = 0
    while at < len(runs) or held:
        while at < len(runs) and _wants(held, runs[at].first, last):
            held.append(runs[at].fetch())
            at += 1
        if at < len(runs):
            taken, held = _split(held, runs[at].first, last)
        else:
            taken, held = held, []
        yield _sorted_together(taken, last)


def _wants(held: Sequence[pa.Table], following: int, last: str) -> bool:
    """Whether there is too little to go on with before the run that begins with `following` is there."""
    rows = sum(part.num_rows for part in held)
    return bool(rows < STEP_ROWS or min(part[last][0].as_py() for part in held) >= following)


def _split(held: Sequence[pa.Table], bound: int, last: str) -> tuple[list[pa.Table], list[pa.Table]]:
    below, rest = [], []
    for part in held:
        at = pc.search_sorted(part[last], bound).as_py()
        if at:
            below.append(part.slice(0, at))
        if at < part.num_rows:
            rest.append(part.slice(at))
    return below, rest


def _sorted_together(parts: Sequence[pa.Table], last: str) -> pa.Table:
    spans = [(part[last][0].as_py(), part[last][-1].as_py()) for part in parts]
    rows = _joined(parts)
    if all(spans[i - 1][1] <= spans[i][0] for i in range(1, len(spans))):
        return rows
    return rows.take(pc.sort_indices(rows[last]))
