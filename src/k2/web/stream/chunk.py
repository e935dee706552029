"""Records on their way to subscribers: runs of one stream, and the newest of them kept for all."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from k2.log import Batch


class Chunk(NamedTuple):
    """Consecutive records of a stream: `values[i]` has offset `offset + i`. `size` is in bytes of the values."""

    stream: str
    offset: int
    append_ts: int
    keys: Sequence[str]
    values: Sequence[bytes]
    size: int

    @property
    def end(self) -> int:
        return self.offset + len(self.values)

    def part(self, first: int, end: int) -> "Chunk":
        """The records with offsets from `first` on and before `end`."""
        a = max(first - self.offset, 0)
        b = max(min(end, self.end) - self.offset, a)
        values = self.values[a:b]
        return Chunk(self.stream, self.offset + a, self.append_ts, self.keys[a:b], values, sum(map(len, values)))


def chunks(batches: Iterable[Batch], most_bytes: int) -> Iterator[Chunk]:
    """Batches as they were read, joined where one follows the other and cut to about `most_bytes`."""
    keys: list[str] = []
    values: list[bytes] = []
    stream, offset, append_ts, size = "", 0, 0, 0
    for batch in batches:
        if values and (batch.stream != stream or batch.offset != offset + len(values)):
            yield Chunk(stream, offset, append_ts, keys, values, size)
            keys, values, size = [], [], 0
        for key, value in zip(batch.keys, batch.values, strict=True):
            if values and size + len(value) > most_bytes:
                yield Chunk(stream, offset, append_ts, keys, values, size)
                offset += len(values)
                keys, values, size = [], [], 0
            elif not values:
                stream, offset = batch.stream, batch.offset
            keys.append(key)
            values.append(value)
            size += len(value)
            append_ts = batch.append_ts
    if values:
        yield Chunk(stream, offset, append_ts, keys, values, size)


class Recent:
    """The newest records of a stream, at most about `most_bytes`: every one from `start` on, until `end`."""

    def __init__(self, start: int, most_bytes: int) -> None:
        self.start = self.end = start
        self._most_bytes = most_bytes
        self._chunks: list[Chunk] = []
        self._ends: list[int] = []
        self._size = 0

    def add(self, chunk: Chunk) -> None:
        """The records that follow those before; they begin later where a repair cut records out of the log."""
        self._chunks.append(chunk)
        self._ends.append(chunk.end)
        self._size += chunk.size
        self.end = chunk.end
        drop = 0
        while self._size > self._most_bytes and drop < len(self._chunks) - 1:
            self._size -= self._chunks[drop].size
            self.start = self._ends[drop]
            drop += 1
        if drop:
            del self._chunks[:drop], self._ends[:drop]

    def restart(self, offset: int) -> None:
        """Forget all: the next chunk does not follow the ones before."""
        self.start = self.end = offset
        self._size = 0
        self._chunks.clear()
        self._ends.clear()

    def after(self, offset: int) -> Chunk | None:
        """The chunk with the first record at or past `offset`, which is not before `start`; None at the end."""
        if offset >= self.end:
            return None
        last = self._chunks[-1]
        if offset >= last.offset:
            return last
        return self._chunks[bisect_right(self._ends, offset)]
