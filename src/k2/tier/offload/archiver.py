"""From the log to Iceberg: read a bounded slice, drop what cold has, write files, commit them with the watermark."""

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from k2.core.codec import GAPS_STREAM, frames_stream, trades_stream
from k2.log import Log, Position
from k2.tier import ArchiverConflict, Progress, TierError, Written
from k2.tier.catalog import never_retries, open_table
from k2.tier.faults import told
from k2.tier.files import remove_files, write_files
from k2.tier.identities import digest
from k2.tier.names import CONSUMER, IDENTITIES
from k2.tier.offload import columns
from k2.tier.offload.slices import Slice, Slices, Source
from k2.tier.reach import Reach, ends, refuse_another_log, to_read
from k2.tier.schema import FRAMES, GAPS, RETRIES, TABLES, TRADES, ColdTable
from k2.tier.snapshot_time import keep_order
from k2.tier.watermark import read_ends, read_identities, read_offsets, write_offsets

logger = logging.getLogger("k2.tier")

SLICE_ROWS = 250_000
FOREIGN_COMMITS = 5  # commits of maintenance that one slice gives way to
CONVERTERS = 2  # threads that make columns of records


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
        with told(f"the watermark of {TABLES[table].identifier} cannot be read"):
            return read_offsets(open_table(self._catalog, TABLES[table]))

    def run(
        self, on_progress: Callable[[Progress], object] | None = None, stop: Callable[[], bool] | None = None
    ) -> Mapping[str, Written]:
        found = {}
        for name in self._sources:
            with told(f"archiving into {TABLES[name].identifier} failed"):
                found[name] = self._archive(TABLES[name], on_progress, stop)
        return found

    def _archive(
        self,
        cold: ColdTable,
        on_progress: Callable[[Progress], object] | None,
        stop: Callable[[], bool] | None,
    ) -> Written:
        table = open_table(self._catalog, cold)
        offsets = read_offsets(table)
        sources = self._sources[cold.name]
        reaches = to_read(self._log, cold.name, [source.stream for source in sources], offsets)
        written = Written(0, 0, 0, 0, 0, offsets, _snapshot_id(table), _missed(cold, reaches))
        refuse_another_log(self._log, cold.name, offsets, read_ends(table))
        self._hold(offsets)
        total = sum(reach.end - reach.start for reach in reaches.values())
        if not total:
            return written
        filling = _Filling(self._log, self._catalog, cold, table)
        done = 0
        writing: Future[_Files] | None = None
        with (
            _threads(CONVERTERS, "converter") as converters,
            _threads(1, "writer") as writers,
            _threads(1, "committer") as committers,
        ):
            committing: Future[Written] | None = None
            pieces = Slices(self._log, sources, reaches, self._slice_rows, converters).after(offsets)
            piece = next(pieces, None)
            try:
                while piece or committing:  # one slice is committed while the next is written and that after it read
                    writing = writers.submit(filling.write, piece) if piece else None
                    if committing:
                        added = committing.result()
                        done += added.rows + added.duplicates
                        written = _sum(written, added)
                        self._hold(added.offsets)
                        if on_progress:
                            on_progress(Progress(cold.name, done, total))
                        if stop and stop():
                            break
                    committing = committers.submit(filling.commit, writing) if writing else None
                    writing = None
                    piece = next(pieces, None)
            finally:
                if writing:
                    filling.discard(writing)
        return written

    def _hold(self, offsets: Mapping[str, int]) -> None:
        """What lies past these offsets, the log keeps for the next run."""
        known = self._log.committed(CONSUMER)
        changed = {name: Position(offset) for name, offset in offsets.items() if known.get(name) != Position(offset)}
        if changed:
            self._log.commit(CONSUMER, changed)


class _Files(NamedTuple):
    """A slice as data files that are not committed. `identities`: what trades the table has with them, as text."""

    files: list[DataFile]
    rows: int
    read: int
    offsets: Mapping[str, int]
    identities: str


class _Filling:
    """One table in one run. One thread writes slices in their order, one commits them in their order.

    A slice may be written before the one ahead of it is committed, and is committed only after it: the caller sees to
    that, and after an error commits no more. Each thread has a handle of the table for itself: PyIceberg's remember
    what they are asked, and are copied in a commit.
    """

    def __init__(self, log: Log, catalog: Catalog, cold: ColdTable, table: Table) -> None:
        self._log = log
        self._catalog = catalog
        self._cold = cold
        self._table = table
        self._place = open_table(catalog, cold)  # where the writer writes
        self._seen = read_identities(table) if cold is TRADES else None

    def write(self, piece: Slice) -> _Files:
        files: list[DataFile] = []
        rows = 0
        try:
            for exchange, part in piece.rows().items():
                new = self._seen.admit(exchange, part) if self._seen else part
                if new.num_rows:
                    rows += new.num_rows
                    files += write_files(self._place, self._cold, new)
        except BaseException:
            remove_files(self._place, files)
            raise
        return _Files(files, rows, piece.read, piece.offsets, self._seen.to_text() if self._seen else "")

    def discard(self, writing: Future[_Files]) -> None:
        """Remove what `write` wrote, or is about to write."""
        if not writing.cancel() and not writing.exception():
            remove_files(self._place, writing.result().files)

    def commit(self, writing: Future[_Files]) -> Written:
        """Commit the files, or raise what the catalog raises: then it may have taken them or not, and they stay."""
        new = writing.result()
        self._append(new)
        size = sum(file.file_size_in_bytes for file in new.files)
        return Written(new.rows, new.read - new.rows, len(new.files), size, 1, new.offsets, _snapshot_id(self._table))

    def _append(self, new: _Files) -> None:
        cold, before = self._cold, read_offsets(self._table)
        summary = write_offsets(new.offsets, {**read_ends(self._table), **ends(self._log, new.offsets)})
        if self._seen:
            summary[IDENTITIES] = digest(new.identities)
        for _ in range(FOREIGN_COMMITS):
            table = self._table
            if not never_retries(table):
                raise TierError(f"{cold.identifier} has {RETRIES} = {table.properties.get(RETRIES)}: it must be 0")
            try:
                with table.transaction() as transaction:
                    if self._seen:
                        transaction.set_properties({IDENTITIES: new.identities})
                    with transaction.update_snapshot(snapshot_properties=summary).fast_append() as append:
                        for file in new.files:
                            append.append_data_file(file)
                    keep_order(transaction, table)
                return
            except CommitFailedException as error:
                self._table = open_table(self._catalog, cold)
                if read_offsets(self._table) != before:
                    remove_files(table, new.files)
                    raise ArchiverConflict(
                        f"another archiver committed to {cold.identifier} first; nothing of this slice was written:"
                        " run again to go on after it"
                    ) from error
                logger.info("another commit came first, trying again", extra={"table": cold.identifier})
        remove_files(self._table, new.files)
        raise TierError(f"{cold.identifier}: others kept committing for {FOREIGN_COMMITS} tries: run again later")


@contextmanager
def _threads(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """A pool that begins nothing new once its block was left by an error."""
    pool = ThreadPoolExecutor(count, f"archiver-{name}")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _missed(cold: ColdTable, reaches: Mapping[str, Reach]) -> dict[str, int]:
    missed = {stream: reach.missed for stream, reach in reaches.items() if reach.missed}
    for stream, count in missed.items():
        logger.warning(
            "%s begins at offset %d of %s: the %d records before it had left the log before they were archived, and are"
            " in no log any more",
            cold.identifier, count, stream, count,
        )  # fmt: skip
    return missed


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
        before.missed,
    )
