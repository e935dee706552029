"""The log: append-only streams with integer offsets, the truth from which everything downstream can be rebuilt.

Who calls what: a feed handler (one writer a stream) calls `append` from its writer thread; loaders, archivers and
people call `read`, `wait` and `bounds` from other processes at the same time. What serves live streams follows the log
in its event loop: `listen` and `read_now`. Every backend passes `tests/log/conformance.py`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class LogError(Exception):
    """The log could not do what was asked; the text says what, where and what to do. Nothing acknowledged is lost."""


class LogFull(LogError):
    """No space left on the device (or the configured size is reached). The append did not happen: free space, retry."""


class LogCorrupt(LogError):
    """Stored bytes are not what was written. Up to offset `valid_end` (exclusive) `stream` is whole."""

    def __init__(self, message: str, stream: str = "", valid_end: int = 0) -> None:
        super().__init__(message)
        self.stream = stream
        self.valid_end = valid_end


class OffsetOutOfRange(LogError):
    """The offset is before the retained start of the stream. `start` is the first offset that can be read."""

    def __init__(self, message: str, start: int) -> None:
        super().__init__(message)
        self.start = start


class Entry(NamedTuple):
    """Records to append to one stream. `keys` are parallel to `values` (symbol for trades, "" for frames)."""

    stream: str
    keys: Sequence[str]
    values: Sequence[bytes]


class Batch(NamedTuple):
    """Consecutive records of a stream, as they were appended: `values[i]` has offset `offset + i`."""

    stream: str
    offset: int
    append_ts: int  # ns UTC, just before the commit that made them durable
    keys: Sequence[str]
    values: Sequence[bytes]

    @property
    def end(self) -> int:
        return self.offset + len(self.values)


class Position(NamedTuple):
    """A consumer's place in a stream: `offset` is the next record it wants; `metadata` is its own (small) state."""

    offset: int
    metadata: bytes = b""


class StreamInfo(NamedTuple):
    """`start`..`end` (exclusive) can be read; `size` is bytes on disk or in memory, `last_ts` the last append (ns)."""

    stream: str
    start: int
    end: int
    size: int
    last_ts: int


class Ear(Protocol):
    """Hears when one stream grows, for an event loop. Not thread-safe."""

    def fileno(self) -> int:
        """A file descriptor that can be read once something was appended."""

    def hear(self) -> None:
        """Take note; before reading. Never blocks."""

    def close(self) -> None:
        """Idempotent."""


class Log(Protocol):
    """Append-only streams. Thread-safe. Stream names: letters, digits, dots, dashes."""

    def append(self, entries: Sequence[Entry]) -> Mapping[str, int]:
        """Append and return, once durable, the first offset given in each stream.

        Streams that share a name but for the suffix `.raw` commit together or not at all; across other streams, in the
        order given, a crash may keep a prefix. Concurrent callers share one sync (group commit). Raises LogFull,
        LogError.
        """

    def read(self, stream: str, offset: int, max_bytes: int = 4 << 20) -> list[Batch]:
        """Records from `offset` on, in order, at most about `max_bytes` (but at least one batch if there is any); the
        first batch is cut to begin at `offset`. Empty at the end of the stream; past it, LogError. A batch may begin
        later than the one before it ends, where a repair cut damaged records out: offsets are never given out twice.
        Raises OffsetOutOfRange, LogCorrupt."""

    def wait(self, positions: Mapping[str, int], timeout: float) -> bool:
        """Block until a stream has a record at or past its position (True) or `timeout` seconds went by (False)."""

    def listen(self, stream: str) -> Ear | None:
        """An ear for this stream; None where none can be had (yet). One may miss an append: look now and then, too."""

    def read_now(self, stream: str, offset: int, max_bytes: int) -> list[Batch] | None:
        """As `read`, but None where it would have to wait for somebody: then `read` in a thread."""

    def bounds(self, stream: str) -> tuple[int, int]:
        """(start, end): the first readable offset and the next to be given. (0, 0) for a stream that does not exist."""

    def commit(self, consumer: str, positions: Mapping[str, Position]) -> None:
        """Remember a consumer's positions, durably. Never moves retention past them (see `retain`)."""

    def committed(self, consumer: str) -> dict[str, Position]:
        """What `commit` last stored for the consumer; empty if never."""

    def consumers(self) -> dict[str, dict[str, Position]]:
        """All consumers' positions."""

    def streams(self) -> list[StreamInfo]:
        """Every stream, by name."""

    def retain(self, stream: str, max_age: float | None, max_bytes: int | None, now_ns: int) -> int:
        """Drop the oldest records beyond the age (s) or size; never what a consumer with a committed position in this
        stream has yet to read. Returns the new start."""

    def check(self, stream: str) -> int:
        """Read the whole stream and verify every checksum. Returns the end; raises LogCorrupt."""

    def close(self) -> None:
        """Release everything. Idempotent."""
