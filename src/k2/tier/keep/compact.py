"""Compaction: the small files of a partition become sorted ones of about a given size."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from k2.tier import TierError
from k2.tier.files import remove_files
from k2.tier.keep.commits import replace_files
from k2.tier.keep.merge import Disorder, in_order
from k2.tier.keep.reading import files_by_partition
from k2.tier.keep.writer import FileWriter
from k2.tier.schema import ColdTable

BIG = 0.75  # of the target size: a file that large is left alone


class Due(NamedTuple):
    """Files of one partition to rewrite."""

    partition: Record
    files: list[DataFile]

    @property
    def rows(self) -> int:
        return sum(file.record_count for file in self.files)

    @property
    def bytes(self) -> int:
        return sum(file.file_size_in_bytes for file in self.files)


def due(table: Table, target_bytes: int) -> Iterator[Due]:
    """What there is to rewrite: the small files of each partition that has more than one of them."""
    partitions = files_by_partition(table)
    for partition in sorted(partitions, key=_day_and_exchange):
        files = [file for file in partitions[partition] if file.spec_id == table.spec().spec_id]
        small = [file for file in files if file.file_size_in_bytes < BIG * target_bytes]
        if len(small) > 1:
            yield Due(partition, small)


def _day_and_exchange(partition: Record) -> tuple[int, str]:
    return partition[0], partition[1]


def compact(
    catalog: Catalog,
    cold: ColdTable,
    work: Due,
    folder: Path,
    target_bytes: int,
    on_rows: Callable[[int], object] = lambda _: None,
) -> list[DataFile]:
    """Rewrite these files in order and replace exactly them in one commit; returns the new ones.

    Appends that come meanwhile stay. `folder` takes what memory does not; `on_rows` hears how many rows are written.
    Raises Overtaken, TierError; the table is then as it was.
    """
    table = catalog.load_table(cold.identifier)
    try:
        new = _rewrite(table, cold, work, folder, target_bytes, on_rows, trust=True)
    except Disorder:
        new = _rewrite(table, cold, work, folder, target_bytes, on_rows, trust=False)
    _same_rows(table, cold, work, new)
    replace_files(catalog, cold, work.files, new)
    return new


def _rewrite(
    table: Table,
    cold: ColdTable,
    work: Due,
    folder: Path,
    target_bytes: int,
    on_rows: Callable[[int], object],
    *,
    trust: bool,
) -> list[DataFile]:
    done = 0
    with FileWriter(table, cold, work.partition, target_bytes) as writer:
        for group, rows in in_order(table, cold, work.files, folder, trust=trust):
            writer.write(group, rows)
            done += rows.num_rows
            on_rows(done)
        return writer.finish()


def _same_rows(table: Table, cold: ColdTable, work: Due, new: Sequence[DataFile]) -> None:
    rows = sum(file.record_count for file in new)
    if rows != work.rows:
        remove_files(table, new)
        raise TierError(
            f"{cold.identifier}: {work.rows} rows were read and {rows} written; the files stay as they were. This is a"
            " defect of K2: please report it"
        )
