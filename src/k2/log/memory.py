"""The log in memory, for tests and for trying things out: the same behaviour, gone with the process."""

import socket
import threading
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from weakref import WeakSet

from k2.log import Batch, Entry, LogError, OffsetOutOfRange, Position, StreamInfo
from k2.log.names import check_entries, check_name, past_the_end


class _Stream:
    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.end = 0
        self.size = 0
        self.last_ts = 0

    @property
    def start(self) -> int:
        return self.batches[0].offset if self.batches else self.end


class MemoryEar:
    """A socket that the log writes to."""

    def __init__(self) -> None:
        self._hear, self._shout = socket.socketpair()
        self._hear.setblocking(False)
        self._shout.setblocking(False)
        self.fileno = self._hear.fileno

    def ring(self) -> None:
        with suppress(OSError):  # full: there is a ring to hear already; or closed
            self._shout.send(b"\0")

    def hear(self) -> None:
        with suppress(OSError):
            while self._hear.recv(4096):
                pass

    def close(self) -> None:
        self._hear.close()
        self._shout.close()


class MemoryLog:
    """The `Log` in this process's memory. Thread-safe; nothing is durable."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._streams: dict[str, _Stream] = {}
        self._positions: dict[str, dict[str, Position]] = {}
        self._ears: WeakSet[MemoryEar] = WeakSet()
        self._closed = False

    def _require_open(self) -> None:
        if self._closed:
            raise LogError("the log in memory was closed")

    def append(self, entries: Sequence[Entry]) -> Mapping[str, int]:
        check_entries(entries)
        for entry in entries:
            check_name(entry.stream)
        offsets: dict[str, int] = {}
        with self._changed:
            self._require_open()
            for name, keys, values in entries:
                stream = self._streams.get(name) or _Stream()
                offsets.setdefault(name, stream.end)
                if not values:
                    continue
                self._streams[name] = stream
                stream.last_ts = time.time_ns()
                stream.batches.append(Batch(name, stream.end, stream.last_ts, list(keys), list(values)))
                stream.end += len(values)
                stream.size += _size(stream.batches[-1])
            self._changed.notify_all()
            for ear in self._ears:
                ear.ring()
        return offsets

    def read(self, stream: str, offset: int, max_bytes: int = 4 << 20) -> list[Batch]:
        check_name(stream)
        with self._changed:
            self._require_open()
            found = self._streams.get(stream) or _Stream()
            if offset > found.end:
                raise past_the_end(stream, offset, found.end)
            if offset < found.start:
                raise OffsetOutOfRange(
                    f"stream {stream} begins at offset {found.start}; {offset} is no longer kept", found.start
                )
            first = max(bisect_right(found.batches, offset, key=lambda batch: batch.offset) - 1, 0)
            taken, batches = 0, []
            for batch in found.batches[first:]:
                if taken and taken + _size(batch) > max_bytes:
                    break
                taken += _size(batch)
                batches.append(batch)
        if not batches or batches[0].end <= offset:
            return []
        at = offset - batches[0].offset
        name, _, append_ts, keys, values = batches[0]
        return [Batch(name, offset, append_ts, keys[at:], values[at:]), *batches[1:]]

    def wait(self, positions: Mapping[str, int], timeout: float) -> bool:
        def arrived() -> bool:
            return self._closed or any(self.bounds(name)[1] > at for name, at in positions.items())

        with self._changed:
            self._require_open()
            return self._changed.wait_for(arrived, timeout) and not self._closed

    def listen(self, stream: str) -> MemoryEar:
        """It hears of every stream."""
        check_name(stream)
        with self._changed:
            self._require_open()
            ear = MemoryEar()
            self._ears.add(ear)
            return ear

    def read_now(self, stream: str, offset: int, max_bytes: int) -> list[Batch]:
        return self.read(stream, offset, max_bytes)

    def bounds(self, stream: str) -> tuple[int, int]:
        check_name(stream)
        with self._changed:
            self._require_open()
            found = self._streams.get(stream) or _Stream()
            return found.start, found.end

    def commit(self, consumer: str, positions: Mapping[str, Position]) -> None:
        with self._changed:
            self._require_open()
            self._positions.setdefault(consumer, {}).update(positions)

    def committed(self, consumer: str) -> dict[str, Position]:
        return self.consumers().get(consumer, {})

    def consumers(self) -> dict[str, dict[str, Position]]:
        with self._changed:
            self._require_open()
            return {consumer: dict(places) for consumer, places in self._positions.items()}

    def streams(self) -> list[StreamInfo]:
        with self._changed:
            self._require_open()
            return [
                StreamInfo(name, stream.start, stream.end, stream.size, stream.last_ts)
                for name, stream in sorted(self._streams.items())
            ]

    def retain(self, stream: str, max_age: float | None, max_bytes: int | None, now_ns: int) -> int:
        check_name(stream)
        with self._changed:
            self._require_open()
            found = self._streams.get(stream)
            if found is None:
                return 0
            needed = [places[stream].offset for places in self._positions.values() if stream in places]
            while found.batches:
                batch = found.batches[0]
                old = max_age is not None and batch.append_ts < now_ns - int(max_age * 1e9)
                large = max_bytes is not None and found.size > max_bytes
                if not (old or large) or batch.end > min(needed, default=batch.end):
                    break
                found.size -= _size(batch)
                del found.batches[0]
            return found.start

    def check(self, stream: str) -> int:
        return self.bounds(stream)[1]

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _size(batch: Batch) -> int:
    return sum(map(len, batch.values)) + sum(map(len, batch.keys))
