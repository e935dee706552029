"""The log in bounded slices, as columns: records are converted in threads while the next ones are read."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import NamedTuple

import pyarrow as pa

from k2.log import Batch, Log, OffsetOutOfRange
from k2.tier import LostRecords
from k2.tier.reach import Reach

SLICE_BYTES = 64 << 20  # of records in the log: what bounds a slice of large frames
READ_BYTES = 8 << 20
UNDER_WAY = 3  # reads whose records are being converted


class Source(NamedTuple):
    """A stream of the log and how its records become columns. `exchange` is "" where a stream holds several."""

    stream: str
    exchange: str
    columns: Callable[[str, Batch], pa.Table]


class Slice(NamedTuple):
    """Records to commit together, and where each stream is then. `read` counts records of the log."""

    parts: Mapping[str, Sequence[Future[pa.Table]]]
    offsets: Mapping[str, int]
    read: int

    def rows(self) -> dict[str, pa.Table]:
        """The columns by exchange, in the order of the log. Raises BrokenRecord."""
        return {
            exchange: pa.concat_tables([part.result() for part in parts]).unify_dictionaries()
            for exchange, parts in self.parts.items()
        }


class Slices:
    """Cuts what `reaches` says of the sources' streams into slices of at most `rows` records, in order."""

    def __init__(
        self, log: Log, sources: Sequence[Source], reaches: Mapping[str, Reach], rows: int, pool: Executor
    ) -> None:
        self._log = log
        self._sources = sources
        self._reaches = reaches
        self._rows = rows
        self._pool = pool
        self._under_way: deque[Future[pa.Table]] = deque()

    def after(self, offsets: Mapping[str, int]) -> Iterator[Slice]:
        """The slices; `offsets` are the table's before the first. Raises LostRecords, LogError."""
        at, committed = dict(offsets), dict(offsets)
        parts: dict[str, list[Future[pa.Table]]] = {}
        count = size = 0
        for source in self._sources:
            if source.stream not in self._reaches:
                continue
            for batch in self._batches(source.stream, self._reaches[source.stream]):
                while batch.values:
                    end = batch.offset + self._rows - count
                    part, batch = _until(batch, end), _from(batch, end)  # noqa: PLW2901
                    parts.setdefault(source.exchange, []).append(self._convert(source, part))
                    at[source.stream] = part.end
                    count += len(part.values)
                    size += sum(map(len, part.values))
                    if count >= self._rows or size >= SLICE_BYTES:
                        committed = dict(at)
                        yield Slice(parts, committed, count)
                        parts, count, size = {}, 0, 0
            at[source.stream] = self._reaches[source.stream].end
        if at != committed:
            yield Slice(parts, dict(at), count)

    def _convert(self, source: Source, batch: Batch) -> Future[pa.Table]:
        if len(self._under_way) == UNDER_WAY:
            self._under_way.popleft().exception()  # waits; who takes the slice meets the error
        self._under_way.append(self._pool.submit(source.columns, source.exchange, batch))
        return self._under_way[-1]

    def _batches(self, stream: str, reach: Reach) -> Iterator[Batch]:
        """Runs of consecutive records, small appends put together."""
        offset = reach.start
        while offset < reach.end:
            try:
                read = self._log.read(stream, offset, READ_BYTES)
            except OffsetOutOfRange as error:
                raise LostRecords(f"{error}; retention dropped it while it was archived") from error
            if not read:
                return
            for batch in _merged(read):
                if batch.offset < reach.end:
                    yield _until(batch, reach.end)
            offset = read[-1].end


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
