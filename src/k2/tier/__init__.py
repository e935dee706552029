"""The cold tier: all of history in Iceberg tables, each record exactly once.

The tables are `cold.trades`, `cold.frames` and `cold.gaps` (`schema.py`). An archiver moves records from the log into
them in slices. A slice is one Iceberg commit: its data files and, in the snapshot's summary, the log offsets that the
table now contains. No other place remembers them, so data and watermark cannot disagree (`watermark.py`). Whoever else
commits to these tables (compaction, schema changes) carries the summary on: `watermark.carried` says how.

Who calls what: a scheduler or a person calls `run`, as often as it likes; two may do so at once, on different machines.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol


class TierError(Exception):
    """The cold tier could not do what was asked; what it holds is whole. The text says what to do."""


class ArchiverConflict(TierError):
    """Another archiver committed first. Nothing of this slice was written: run again to go on after what it wrote."""


class ForeignLog(TierError):
    """The log ends before an offset that cold has already passed: the two do not belong together."""


class LostRecords(TierError):
    """The log has dropped records that cold does not have yet. Nothing was written past them."""


class BrokenRecord(TierError):
    """A record of the log cannot be understood; the text names stream and offset. Nothing was written past it."""


class Written(NamedTuple):
    """What a run did to one table. `duplicates` are records of the log whose identity cold had already.

    `offsets`: stream to the next offset to read. `snapshot_id`: the table's snapshot after the run, if any. `missed`:
    stream to the number of records that retention had dropped from the log before any of the stream was archived; each
    run that finds such a stream also logs a warning.
    """

    rows: int
    duplicates: int
    files: int
    bytes: int
    commits: int
    offsets: Mapping[str, int]
    snapshot_id: int | None
    missed: Mapping[str, int] = {}


class Progress(NamedTuple):
    """After each slice: records of the log read so far by this run for `table`, and how many there were to read."""

    table: str
    done: int
    total: int


class Archive(Protocol):
    """Moves records from the log into the cold tier. Single-threaded; interrupt it anywhere."""

    def run(
        self, on_progress: Callable[[Progress], object] | None = None, stop: Callable[[], bool] | None = None
    ) -> Mapping[str, Written]:
        """Move everything that the log held when the call began, and return it by table.

        `stop` is asked between slices; True ends the run after the last whole one. With nothing new no snapshot is
        made. Raises ArchiverConflict, ForeignLog, LostRecords, BrokenRecord, TierError, and the log's LogError.
        """

    def offsets(self, table: str) -> Mapping[str, int]:
        """Stream to the next offset that the table lacks, from its current snapshot. Empty if nothing was archived."""
