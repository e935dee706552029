"""What a snapshot holds: its data files, and their rows as Arrow batches, whatever schema a file was written with.

Files are read one by one and in pieces, so that memory stays bounded, and through the table's own FileIO, so that
the storage may be anything. A file that cannot be read is told apart from one that can: `Unreadable` names it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import NestedField

from k2.tier import TierError
from k2.tier.faults import told
from k2.tier.schema import arrow_schema

BATCH_BYTES = 1 << 19  # of a batch of rows, about
ALL = "true"  # the row filter that lets everything through
_FIELD_ID = b"PARQUET:field_id"


class Unreadable(TierError):
    """A data file is missing, cut off or damaged; the text names it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"the data file {path} cannot be read: {reason}; restore it from a backup")
        self.path = path
        self.reason = reason


class Content(NamedTuple):
    """One data file of a snapshot, with where the manifest says that its rows belong."""

    path: str
    rows: int
    size: int
    partition: tuple[Any, ...]


def data_files(table: Table, snapshot_id: int | None = None, where: str = ALL) -> dict[str, Content]:
    """The data files of a snapshot (None: the current one) that may hold such rows, by path. Raises TierError."""
    if snapshot_id is None and table.current_snapshot() is None:
        return {}
    name = ".".join(table.name())
    with told(f"the manifests of {name} cannot be read"):
        tasks = list(table.scan(where, snapshot_id=snapshot_id).plan_files())
    if any(task.delete_files for task in tasks):
        raise TierError(
            f"{name} has row-level delete files, which K2 never writes: rewrite its data files"
            " with the engine that made them (copy-on-write), then ask again"
        )
    return {task.file.file_path: _content(task.file) for task in tasks}


def _content(file: DataFile) -> Content:
    return Content(
        file.file_path,
        file.record_count,
        file.file_size_in_bytes,
        tuple(file.partition[i] for i in range(len(file.partition))),
    )


def batches(io: FileIO, path: str, fields: Sequence[NestedField]) -> Iterator[pa.RecordBatch]:
    """The rows of one file, in its order: one column for each of `fields`, null where the file does not have it.

    Columns are found by field id, so a file from before a column was added, or renamed, reads well. Raises Unreadable.
    """
    try:
        with io.new_input(path).open() as source, pq.ParquetFile(source, pre_buffer=False) as file:
            stored = {int(one.metadata[_FIELD_ID]): one.name for one in file.schema_arrow if one.metadata}
            names = [stored.get(field.field_id) for field in fields]
            wanted = [name for name in names if name is not None]
            for batch in file.iter_batches(_batch_rows(file), columns=wanted, use_threads=False):
                yield _as_asked(batch, fields, names)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise Unreadable(path, " ".join(str(error).split())[:300] or type(error).__name__) from error


def _batch_rows(file: pq.ParquetFile) -> int:
    rows = max(1, file.metadata.num_rows)
    size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
    return int(max(256, min(1 << 16, BATCH_BYTES * rows // max(1, size))))


def _as_asked(batch: pa.RecordBatch, fields: Sequence[NestedField], names: Sequence[str | None]) -> pa.RecordBatch:
    arrow = list(arrow_schema(Schema(*fields)))
    columns = [
        pa.nulls(batch.num_rows, one.type) if name is None else batch.column(name).cast(one.type)
        for one, name in zip(arrow, names, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(arrow))


def rows_of(table: Table, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The rows of the current snapshot as dictionaries: for small tables. Raises TierError."""
    fields = [table.schema().find_field(name) for name in names]
    for path in data_files(table):
        for batch in batches(table.io, path, fields):
            yield from batch.to_pylist()
