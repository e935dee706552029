"""Reading the log forward, over the edge of what it still retains."""

import logging

from k2.log import Batch, Log, LogError, OffsetOutOfRange

logger = logging.getLogger("k2.loader")


class LogReplacedError(LogError):
    """The log ends before a position that the store has already passed: they do not belong together."""


def read_on(log: Log, stream: str, offset: int, max_bytes: int = 4 << 20) -> list[Batch]:
    """Batches from `offset` on; from the stream's start where retention has dropped the offset, with a warning."""
    try:
        return log.read(stream, offset, max_bytes)
    except OffsetOutOfRange as error:
        if error.start <= offset:
            raise
        logger.warning(
            "the log no longer has offsets %d to %d of %s: going on at its start", offset, error.start - 1, stream
        )
        return log.read(stream, error.start, max_bytes)


def check_ends(log: Log, positions: dict[str, int]) -> None:
    """Raise LogReplacedError if a stream ends before its position."""
    for stream, offset in positions.items():
        _, end = log.bounds(stream)
        if end < offset:
            raise LogReplacedError(
                f"the log's stream {stream} ends at offset {end}, the store holds it up to {offset}: this log and this"
                " store do not belong together; put the right log back, or start with an empty store (--data DIR)"
            )
