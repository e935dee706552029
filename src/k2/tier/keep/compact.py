"""Compaction: the small files of a partition become sorted ones of about a given size."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from k2.tier import TierError
from k2.tier.catalog import open_table
from k2.tier.files import remove_files
from k2.tier.keep.commits import replace_files
from k2.tier.keep.merge import Disorder, in_order
from k2.tier.keep.reading import files_by_partition
from k2.tier.keep.writer import FileWriter
from k2.tier.schema import ColdTable

BIG = 0.75  # of the target size: a file that large is left alone
TOGETHER_BYTES = 256 << 20  # of files to rewrite before a commit


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


def together(works: Iterable[Due]) -> Iterator[list[Due]]:
    """The works in groups to commit at once: a commit takes its time however few rows it has, and what a killed process
    had not committed is lost."""
    group: list[Due] = []
    for work in works:
        group.append(work)
        if sum(one.bytes for one in group) >= TOGETHER_BYTES:
            yield group
            group = []
    if group:
        yield group


class Compaction:
    """Partitions of one table: rewritten one after the other, then replaced in one commit.

    `folder` takes what memory does not. Leaving the `with` block removes what was rewritten and not committed.
    Raises TierError.
    """

    def __init__(self, catalog: Catalog, cold: ColdTable, folder: Path, target_bytes: int) -> None:
        self._catalog = catalog
        self._cold = cold
        self._folder = folder
        self._target_bytes = target_bytes
        self._table = open_table(catalog, cold)
        self._old: list[DataFile] = []
        self._new: list[DataFile] = []

    def rewrite(self, work: Due, on_rows: Callable[[int], object] = lambda _: None) -> list[DataFile]:
        """The partition's rows in order in new files, which `commit` puts in the place of the old ones.

        `on_rows` hears how many rows are written. Raises TierError; the others can still be committed.
        """
        try:
            new = self._rewritten(work, on_rows, trust=True)
        except Disorder:
            new = self._rewritten(work, on_rows, trust=False)
        _same_rows(self._table, self._cold, work, new)
        self._old += work.files
        self._new += new
        return new

    def commit(self) -> None:
        """Replace exactly the files that were rewritten; appends that came meanwhile stay.

        Raises Overtaken, TierError; the table is then as it was.
        """
        old, new, self._old, self._new = self._old, self._new, [], []
        if old:
            replace_files(self._catalog, self._cold, old, new)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        remove_files(self._table, self._new)

    def _rewritten(self, work: Due, on_rows: Callable[[int], object], *, trust: bool) -> list[DataFile]:
        done = 0
        with FileWriter(self._table, self._cold, work.partition, self._target_bytes) as writer:
            for group, rows in in_order(self._table, self._cold, work.files, self._folder, trust=trust):
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
