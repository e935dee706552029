"""Ordered rows as data files of one partition, written as they come."""

import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from k2.tier.faults import told
from k2.tier.files import ROW_GROUP, data_file, parquet_options
from k2.tier.keep.reading import held_schema
from k2.tier.schema import ColdTable

GROUP_BYTES = 64 << 20  # of rows in memory: what bounds a row group of large frames


class FileWriter:
    """Writes rows that come in the order of `cold.sort`; begins another file when one has `target_bytes` on disk.

    `finish` gives the files, not committed. A `with` block left by an error removes them. Row groups are written by a
    thread of their own, and begin with a new group of rows (a new symbol, say) where that leaves none too small.
    """

    def __init__(self, table: Table, cold: ColdTable, partition: Record, target_bytes: int) -> None:
        self._table = table
        self._cold = cold
        place = table.spec().partition_to_path(partition, table.schema())
        self._folder = f"{table.location()}/data/{place}".rstrip("/")
        self._target_bytes = target_bytes
        self._schema = held_schema(table, cold)
        self._paths: list[str] = []
        self._files: list[DataFile] = []
        self._open: _OpenFile | None = None
        self._rows: list[pa.Table] = []
        self._group: object = None
        self._pool = ThreadPoolExecutor(1, "compaction")
        self._under_way: Future[None] | None = None

    def write(self, group: object, rows: pa.Table) -> None:
        """Add rows. Raises TierError."""
        count = sum(part.num_rows for part in self._rows)
        if group != self._group and count >= ROW_GROUP // 4:
            self._flush()
        self._group = group
        while rows.num_rows:
            room = ROW_GROUP - sum(part.num_rows for part in self._rows)
            self._rows.append(rows.slice(0, room))
            rows = rows.slice(room)
            if room <= self._rows[-1].num_rows or sum(part.nbytes for part in self._rows) >= GROUP_BYTES:
                self._flush()

    def finish(self) -> list[DataFile]:
        """Write what is left and close. Raises TierError."""
        self._flush()
        self._wait()
        with told(f"a data file of {self._cold.identifier} cannot be written"):
            self._close()
        self._pool.shutdown()
        return self._files

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            return
        self._pool.shutdown()
        if self._open:
            # It failed already, and now only has to let go of the file; RuntimeError: no footer, the disk is full.
            with suppress(OSError, pa.ArrowException, RuntimeError):
                self._open.close()
        for path in self._paths:
            with suppress(OSError):
                self._table.io.delete(path)

    def _flush(self) -> None:
        if not self._rows:
            return
        rows = pa.concat_tables(self._rows).unify_dictionaries()
        self._rows = []
        self._wait()
        self._under_way = self._pool.submit(self._write, rows)

    def _wait(self) -> None:
        if self._under_way:
            with told(f"a data file of {self._cold.identifier} cannot be written"):
                self._under_way.result()
            self._under_way = None

    def _write(self, rows: pa.Table) -> None:
        if self._open is None:
            path = f"{self._folder}/{uuid.uuid4()}.parquet"
            self._paths.append(path)
            options = parquet_options(self._table, self._cold, self._schema)
            self._open = _OpenFile(self._table, self._schema, path, options)
        self._open.writer.write_table(rows, row_group_size=ROW_GROUP)
        if self._open.sink.tell() >= self._target_bytes:
            self._close()

    def _close(self) -> None:
        if self._open:
            self._open.close()
            self._files.append(data_file(self._table, self._open.path, self._open.footer[0]))
            self._open = None


class _OpenFile:
    def __init__(self, table: Table, schema: pa.Schema, path: str, options: dict[str, Any]) -> None:
        self.path = path
        self.footer: list[pq.FileMetaData] = []
        self.sink = table.io.new_output(path).create(overwrite=False)
        self.writer = pq.ParquetWriter(self.sink, schema, metadata_collector=self.footer, **options)

    def close(self) -> None:
        try:
            self.writer.close()
        finally:
            self.sink.close()
