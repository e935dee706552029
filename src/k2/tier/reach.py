"""How far a cold table reaches into the log, and whether what it lacks can still be had."""

import hashlib
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


def ends(log: Log, offsets: Mapping[str, int]) -> dict[str, str]:
    """Stream to the digest of the last record before its offset, where the log has it still. Raises LogError."""
    found = {}
    for stream, offset in offsets.items():
        start, end = log.bounds(stream)
        if start < offset <= end:
            batches = log.read(stream, offset - 1, 1)
            if batches and batches[0].offset == offset - 1:
                found[stream] = hashlib.blake2b(batches[0].values[0], digest_size=8).hexdigest()
    return found


def refuse_another_log(log: Log, table: str, offsets: Mapping[str, int], known: Mapping[str, str]) -> None:
    """A log that was begun anew gives old offsets to other records. `known`: the `ends` at the last commit.

    Raises ForeignLog, LogError.
    """
    for stream, digest in ends(log, offsets).items():
        if known.get(stream, digest) != digest:
            raise ForeignLog(
                f"record {offsets[stream] - 1} of {stream} is not the one that {NAMESPACE}.{table} ends with: this log"
                " was begun anew, or belongs to another cold tier; put the right log back, or capture into a new folder"
            )


def protect(log: Log, streams: Iterable[str]) -> None:
    """From now on the log drops nothing of these streams that cold lacks, though the archiver has never run.

    Call it whenever a platform starts; where the archiver has a position already, that stays. Raises LogError.
    """
    known = log.committed(CONSUMER)
    new = {stream: Position(log.bounds(stream)[0]) for stream in streams if stream not in known}
    if new:
        log.commit(CONSUMER, new)
