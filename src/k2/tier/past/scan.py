"""Reading cold tables back: rows of one exchange and span of time, in bounded memory.

PyIceberg's own scan holds a data file's rows in memory, and those of the files after it; here a file is read a few
thousand rows at a time.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.conversions import from_bytes
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.types import LongType

from k2.core.types import Frame, Gap
from k2.tier import TierError
from k2.tier.faults import told

BATCH_ROWS = 8192
STREAM_ROWS = 200_000
RECV = "recv_ts_ns"
_FRAME = ("recv_ts_ns", "kind", "connection", "request", "payload")


class Span(NamedTuple):
    """Rows of one exchange whose receive time (ns) is `since` or later and before `until`; None: no bound."""

    exchange: str
    since: int | None = None
    until: int | None = None

    @property
    def condition(self) -> str:
        """As PyIceberg's scans understand it."""
        parts = [f"exchange = '{self.exchange}'"]
        if self.since is not None:
            parts.append(f"{RECV} >= {self.since}")
        if self.until is not None:
            parts.append(f"{RECV} < {self.until}")
        return " and ".join(parts)

    def within(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        if self.since is not None:
            rows = rows.filter(pc.greater_equal(rows[RECV], self.since))
        if self.until is not None:
            rows = rows.filter(pc.less(rows[RECV], self.until))
        return rows


def first_received(table: Table, exchange: str) -> int | None:
    """The least receive time (ns) of the exchange's rows, as the manifests say it; None: no rows. Raises TierError."""
    field = table.schema().find_field(RECV).field_id
    return min((_lower(file, field) for file in _files(table, Span(exchange))), default=None)


def trades(table: Table, span: Span, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """These columns of the trades in the span, in no order; never an empty batch. Raises TierError."""
    with told(f"reading {_name(table)}"):
        read = list(dict.fromkeys((*columns, RECV)))
        for file in _files(table, span):
            for batch in _batches(table.io, file, read):
                if (rows := span.within(batch)).num_rows:
                    yield rows.select(list(columns))


def arrow_streams(table: Table, span: Span, columns: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    """The same as Arrow IPC streams, some hundred thousand rows each with their number. Raises TierError."""
    parts: list[pa.RecordBatch] = []
    for batch in trades(table, span, columns):
        parts.append(batch)
        if sum(part.num_rows for part in parts) >= STREAM_ROWS:
            yield _arrow_stream(parts)
            parts = []
    if parts:
        yield _arrow_stream(parts)


def _arrow_stream(parts: list[pa.RecordBatch]) -> tuple[int, bytes]:
    rows = pa.Table.from_batches(parts)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    return rows.num_rows, sink.getvalue().to_pybytes()


def count(table: Table, span: Span) -> int:
    """About how many rows the span has: those of every file that may hold some of them. Raises TierError."""
    return sum(file.record_count for file in _files(table, span))


def frames(table: Table, span: Span) -> Iterator[list[tuple[int, Frame]]]:
    """The frames of the span with their offsets in the log, in the order of the log, some thousand at a time.

    Raises TierError, also for a data file whose rows are not in that order.
    """
    with told(f"reading {_name(table)}"):
        for rows in _in_order(table, span):
            offsets = rows["log_offset"].to_pylist()
            fields = [rows[name].to_pylist() for name in _FRAME]
            yield list(zip(offsets, map(Frame, *fields), strict=True))


def gaps(table: Table, exchange: str) -> list[Gap]:
    """The exchange's events of the gap ledger, in the order of the log. Raises TierError."""
    with told(f"reading {_name(table)}"):
        found = []
        for file in _files(table, Span(exchange)):
            for batch in _batches(table.io, file, [field.name for field in table.schema().fields]):
                found += [(row["log_offset"], _gap(row)) for row in batch.to_pylist()]
        return [gap for _, gap in sorted(found, key=lambda pair: pair[0])]


def _gap(row: dict[str, Any]) -> Gap:
    return Gap(
        row["exchange"],
        row["symbol"],
        row["first_id"],
        row["last_id"],
        row["state"],
        row["reason"],
        row["event_ts_ns"],
        row["detected_ts_ns"],
        tuple((one["first_id"], one["last_id"]) for one in row["missing"]),
        row["epoch"],
    )


def _name(table: Table) -> str:
    return ".".join(table.name())


def _files(table: Table, span: Span) -> list[DataFile]:
    with told(f"looking for the files of {_name(table)}"):
        tasks = list(table.scan(row_filter=span.condition).plan_files())
        deleted = next((task.file.file_path for task in tasks if task.delete_files), None)
        if deleted:
            raise TierError(
                f"{_name(table)} has rows that are deleted in place, in {deleted}: rewrite its data files with the tool"
                " that deleted them, then try again"
            )
        return [task.file for task in tasks]


def _lower(file: DataFile, field: int) -> int:
    bounds = file.lower_bounds or {}
    if field not in bounds:
        raise TierError(f"{file.file_path} says nothing of its least value of column {field}: rewrite it")
    return int(from_bytes(LongType(), bounds[field]))


def _batches(io: FileIO, file: DataFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """A file's rows; a column that is younger than the file is null."""
    with io.new_input(file.file_path).open() as source, pq.ParquetFile(source) as parquet:
        there = [name for name in columns if name in parquet.schema_arrow.names]
        for batch in parquet.iter_batches(BATCH_ROWS, columns=there, use_threads=False):
            for name in columns:
                if name not in there:
                    batch = batch.append_column(name, pa.nulls(batch.num_rows))  # noqa: PLW2901
            yield batch.select(list(columns))


# -- order of the log --------------------------------------------------------------------------------------------------


class _Run:
    """One file's rows in order: `rows` are those at hand, not empty while there are any."""

    def __init__(self, io: FileIO, file: DataFile, span: Span) -> None:
        self._file = file
        self._batches = _batches(io, file, ("log_offset", *_FRAME))
        self._span = span
        self._last = -1
        self.rows: pa.RecordBatch | None = None
        self.advance()

    def advance(self) -> None:
        """Have rows at hand, if there are more."""
        while self.rows is None or not self.rows.num_rows:
            rows = next(self._batches, None)
            if rows is None:
                self.rows = None
                return
            offsets = rows["log_offset"]
            steps = pc.subtract(offsets[1:], offsets[:-1])
            if offsets[0].as_py() <= self._last or (len(steps) and pc.min(steps).as_py() <= 0):
                raise TierError(
                    f"{self._file.file_path} is not in the order of log_offset: rewrite it (k2 archive maintain), then"
                    " try again"
                )
            self._last = offsets[-1].as_py()
            self.rows = self._span.within(rows)

    @property
    def last(self) -> int:
        assert self.rows is not None
        return int(self.rows["log_offset"][-1].as_py())

    def take(self, last: int) -> pa.RecordBatch:
        """The rows at hand up to that offset."""
        assert self.rows is not None
        within = pc.sum(pc.less_equal(self.rows["log_offset"], last)).as_py()
        taken, self.rows = self.rows.slice(0, within), self.rows.slice(within)
        return taken


def _in_order(table: Table, span: Span) -> Iterator[pa.Table]:
    """Files of one day follow each other; those of two days may overlap where a clock stepped, or a request waited."""
    field = table.schema().find_field("log_offset").field_id
    files = sorted(((_lower(file, field), file) for file in _files(table, span)), key=lambda pair: pair[0])
    waiting = deque(files)
    runs: list[_Run] = []
    while waiting or runs:
        last = min((run.last for run in runs), default=None)
        while waiting and (last is None or waiting[0][0] <= last):
            run = _Run(table.io, waiting.popleft()[1], span)
            if run.rows is not None:
                runs.append(run)
                last = run.last if last is None else min(last, run.last)
        if last is None:
            return
        rows = pa.Table.from_batches([run.take(last) for run in runs])
        yield rows.sort_by("log_offset") if len(runs) > 1 else rows
        for run in runs:
            run.advance()
        runs = [run for run in runs if run.rows is not None]
