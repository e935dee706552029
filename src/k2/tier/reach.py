"""How far a cold table reaches into the log, and whether what it lacks can still be had."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from k2.log import Log, Position
from k2.tier import ForeignLog, LostRecords
from k2.tier.names import CONSUMER, NAMESPACE


class Reach(NamedTuple):
    """Offsets of a stream that a table lacks: `start` to `end` (exclusive).

    `missed`: so many records before `start` were dropped by retention before cold ever had any of the stream.
    """

    start: int
    end: int
    missed: int = 0


def to_read(log: Log, table: str, streams: Iterable[str], offsets: Mapping[str, int]) -> dict[str, Reach]:
    """Stream to what the table lacks, for those streams that have something new.

    `offsets` are the table's. Raises ForeignLog, LostRecords, LogError.
    """
    found = {}
    for stream in streams:
        start, end = log.bounds(stream)
        have = offsets.get(stream)
        if have is None:
            if end > start:
                found[stream] = Reach(start, end, start)
            continue
        if end < have:
            raise ForeignLog(
                f"the log's stream {stream} ends at offset {end}, {NAMESPACE}.{table} has it up to {have}: this log and"
                " this cold tier do not belong together; put the right log back"
            )
        if have < start:
            raise LostRecords(
                f"the log begins at offset {start} of {stream}, {NAMESPACE}.{table} ends at {have}: what lies between"
                " is in no log any more. Restore it to the log before archiving on"
            )
        if end > have:
            found[stream] = Reach(have, end)
    return found


def protect(log: Log, streams: Iterable[str]) -> None:
    """From now on the log drops nothing of these streams that cold lacks, though the archiver has never run.

    Call it whenever a platform starts; where the archiver has a position already, that stays. Raises LogError.
    """
    known = log.committed(CONSUMER)
    new = {stream: Position(log.bounds(stream)[0]) for stream in streams if stream not in known}
    if new:
        log.commit(CONSUMER, new)
