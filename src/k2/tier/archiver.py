"""From the log to Iceberg: read a bounded slice, drop what cold has, write files, commit them with the watermark."""

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from k2.core.codec import GAPS_STREAM, frames_stream, trades_stream
from k2.log import Batch, Log, OffsetOutOfRange, Position
from k2.tier import ArchiverConflict, ForeignLog, LostRecords, Progress, TierError, Written, columns
from k2.tier.catalog import never_retries, open_table
from k2.tier.files import remove_files, write_files
from k2.tier.identities import Identities, digest
from k2.tier.names import CONSUMER, IDENTITIES
from k2.tier.order import by_identity
from k2.tier.schema import FRAMES, GAPS, RETRIES, TABLES, TRADES, ColdTable
from k2.tier.watermark import read_identities, read_offsets, write_offsets

logger = logging.getLogger("k2.tier")

SLICE_ROWS = 250_000
SLICE_BYTES = 128 << 20  # of records in the log: what bounds a slice of large frames
READ_BYTES = 4 << 20
FOREIGN_COMMITS = 5  # commits of maintenance that one slice gives way to


class Source(NamedTuple):
    """A stream of the log and how its records become columns. `exchange` is "" where a stream holds several."""

    stream: str
    exchange: str
    columns: Callable[[str, Batch], pa.Table]


class Slice(NamedTuple):
    """Records to commit together. `rows` by exchange, not yet sorted; `read` counts records of the log."""

    rows: Mapping[str, pa.Table]
    offsets: Mapping[str, int]
    read: int


class Archiver:
    """The `Archive` over one log and one catalog."""

    def __init__(self, log: Log, catalog: Catalog, exchanges: tuple[str, ...], slice_rows: int = SLICE_ROWS) -> None:
        self._log = log
        self._catalog = catalog
        self._slice_rows = slice_rows
        self._sources = {
            FRAMES.name: [Source(frames_stream(name), name, columns.frames) for name in exchanges],
            TRADES.name: [Source(trades_stream(name), name, columns.trades) for name in exchanges],
            GAPS.name: [Source(GAPS_STREAM, "", columns.gaps)],
        }

    def offsets(self, table: str) -> Mapping[str, int]:
        return read_offsets(open_table(self._catalog, TABLES[table]))

    def run(
        self, on_progress: Callable[[Progress], object] | None = None, stop: Callable[[], bool] | None = None
    ) -> Mapping[str, Written]:
        return {name: self._archive(TABLES[name], on_progress, stop) for name in self._sources}

    def _archive(
        self,
        cold: ColdTable,
        on_progress: Callable[[Progress], object] | None,
        stop: Callable[[], bool] | None,
    ) -> Written:
        table = open_table(self._catalog, cold)
        offsets = read_offsets(table)
        ends = self._ends(cold, offsets)
        total = sum(end - offsets.get(stream, 0) for stream, end in ends.items())
        written = Written(0, 0, 0, 0, 0, offsets, _snapshot_id(table))
        if not total:
            return written
        seen = read_identities(table) if cold is TRADES else None
        done = 0
        under_way: Future[tuple[Table, Written]] | None = None
        with ThreadPoolExecutor(1, "archiver") as pool:  # one slice is read while the one before is written
            pieces = self._slices(cold, offsets, ends)
            piece = next(pieces, None)
            while piece or under_way:
                if under_way:
                    table, added = under_way.result()
                    done += added.rows + added.duplicates
                    written = _sum(written, added)
                    self._log.commit(CONSUMER, {name: Position(offset) for name, offset in added.offsets.items()})
                    if on_progress:
                        on_progress(Progress(cold.name, done, total))
                    if stop and stop():
                        break
                under_way = pool.submit(self._commit, table, cold, piece, seen) if piece else None
                piece = next(pieces, None)
        return written

    # -- reading -------------------------------------------------------------------------------------------------------

    def _ends(self, cold: ColdTable, offsets: Mapping[str, int]) -> dict[str, int]:
        """Where this run ends in each stream that has something new."""
        found = {}
        for source in self._sources[cold.name]:
            start, end = self._log.bounds(source.stream)
            offset = offsets.get(source.stream, 0)
            if end < offset:
                raise ForeignLog(
                    f"the log's stream {source.stream} ends at offset {end}, {cold.identifier} has it up to {offset}:"
                    " this log and this cold tier do not belong together; put the right log back"
                )
            if offset and offset < start:
                raise LostRecords(
                    f"the log begins at offset {start} of {source.stream}, {cold.identifier} ends at {offset}: what"
                    f" lies between is in no log any more. Restore it to the log before archiving on"
                )
            if end > offset:
                found[source.stream] = end
        return found

    def _slices(self, cold: ColdTable, offsets: Mapping[str, int], ends: Mapping[str, int]) -> Iterator[Slice]:
        at, committed = dict(offsets), dict(offsets)
        parts: dict[str, list[pa.Table]] = {}
        count = size = 0
        for source in self._sources[cold.name]:
            if source.stream not in ends:
                continue
            for batch in self._batches(source.stream, at.get(source.stream, 0), ends[source.stream]):
                while batch.values:
                    end = batch.offset + self._slice_rows - count
                    part, batch = _until(batch, end), _from(batch, end)  # noqa: PLW2901
                    parts.setdefault(source.exchange, []).append(source.columns(source.exchange, part))
                    at[source.stream] = part.end
                    count += len(part.values)
                    size += sum(map(len, part.values))
                    if count >= self._slice_rows or size >= SLICE_BYTES:
                        committed = dict(at)
                        yield Slice(_together(parts), committed, count)
                        parts, count, size = {}, 0, 0
            at[source.stream] = ends[source.stream]
        if at != committed:
            yield Slice(_together(parts), dict(at), count)

    def _batches(self, stream: str, offset: int, end: int) -> Iterator[Batch]:
        """Runs of consecutive records from `offset` to `end`, small appends put together."""
        offset = max(offset, self._log.bounds(stream)[0])
        while offset < end:
            try:
                read = self._log.read(stream, offset, READ_BYTES)
            except OffsetOutOfRange as error:
                raise LostRecords(f"{error}; retention dropped it while it was archived") from error
            if not read:
                return
            for batch in _merged(read):
                yield _until(batch, end)
            offset = read[-1].end

    # -- writing -------------------------------------------------------------------------------------------------------

    def _commit(self, table: Table, cold: ColdTable, piece: Slice, seen: Identities | None) -> tuple[Table, Written]:
        files: list[DataFile] = []
        rows = 0
        for exchange, part in piece.rows.items():
            new = part if seen is None else seen.admit(exchange, by_identity(part))
            if new.num_rows:
                rows += new.num_rows
                files += write_files(table, cold, new)
        table = self._append(table, cold, files, piece.offsets, seen)
        size = sum(file.file_size_in_bytes for file in files)
        return table, Written(rows, piece.read - rows, len(files), size, 1, piece.offsets, _snapshot_id(table))

    def _append(
        self, table: Table, cold: ColdTable, files: list[DataFile], offsets: Mapping[str, int], seen: Identities | None
    ) -> Table:
        before = read_offsets(table)
        summary = write_offsets(offsets)
        text = seen.to_text() if seen else ""
        if seen:
            summary[IDENTITIES] = digest(text)
        for _ in range(FOREIGN_COMMITS):
            if not never_retries(table):
                raise TierError(f"{cold.identifier} has {RETRIES} = {table.properties.get(RETRIES)}: it must be 0")
            try:
                with table.transaction() as transaction:
                    if seen:
                        transaction.set_properties({IDENTITIES: text})
                    with transaction.update_snapshot(snapshot_properties=summary).fast_append() as append:
                        for file in files:
                            append.append_data_file(file)
                return table
            except CommitFailedException as error:
                table = open_table(self._catalog, cold)
                if read_offsets(table) != before:
                    remove_files(table, files)
                    raise ArchiverConflict(
                        f"another archiver committed to {cold.identifier} first; nothing of this slice was written:"
                        " run again to go on after it"
                    ) from error
                logger.info("another commit came first, trying again", extra={"table": cold.identifier})
        remove_files(table, files)
        raise TierError(f"{cold.identifier}: others kept committing for {FOREIGN_COMMITS} tries: run again later")


def _together(parts: Mapping[str, list[pa.Table]]) -> dict[str, pa.Table]:
    return {exchange: pa.concat_tables(tables).unify_dictionaries() for exchange, tables in parts.items()}


def _merged(batches: list[Batch]) -> Iterator[Batch]:
    """Batches that follow each other as one: converting many small ones costs more than their records."""
    first = 0
    for i in range(1, len(batches) + 1):
        if i == len(batches) or batches[i].offset != batches[i - 1].end:
            part = batches[first:i]
            yield (
                part[0]
                if len(part) == 1
                else part[0]._replace(keys=(), values=[value for batch in part for value in batch.values])
            )
            first = i


def _until(batch: Batch, end: int) -> Batch:
    return batch if batch.end <= end else batch._replace(values=batch.values[: end - batch.offset])


def _from(batch: Batch, offset: int) -> Batch:
    return batch._replace(offset=offset, values=batch.values[offset - batch.offset :])


def _snapshot_id(table: Table) -> int | None:
    snapshot = table.current_snapshot()
    return snapshot.snapshot_id if snapshot else None


def _sum(before: Written, added: Written) -> Written:
    return Written(
        before.rows + added.rows,
        before.duplicates + added.duplicates,
        before.files + added.files,
        before.bytes + added.bytes,
        before.commits + added.commits,
        added.offsets,
        added.snapshot_id,
    )
