"""Where reading the log begins: at the last commit, unless the log no longer, or never, had what comes there."""

import logging
from collections.abc import Iterable, Mapping

from k2.log import Log, LogError

logger = logging.getLogger("k2.loader")


class LogReplacedError(LogError):
    """The log ends before a position that the store has already passed: they do not belong together."""


def readable(log: Log, streams: Iterable[str], positions: Mapping[str, int]) -> dict[str, int]:
    """The offsets to read on from; past what retention has dropped, with a warning. Raises LogReplacedError."""
    found = {}
    for stream in streams:
        start, end = log.bounds(stream)
        offset = positions.get(stream, 0)
        if end < offset:
            raise LogReplacedError(
                f"the log's stream {stream} ends at offset {end}, the store holds it up to {offset}: this log and this"
                " store do not belong together; put the right log back, or start with an empty store (--data DIR)"
            )
        if offset < start:
            logger.warning("the log has dropped offsets %d to %d of %s: going on after them", offset, start - 1, stream)
        found[stream] = max(offset, start)
    return found
