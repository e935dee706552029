"""An Arrow IPC stream that comes in chunks of bytes, read batch by batch in little memory."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from k2.client import shape
from k2.client.errors import Unavailable


class ArrowBatches:
    """Record batches as K2 types them. `named`: the columns are K2's own. `done` is called once, at the end or when the
    rest is given up. What `chunks` raises is raised."""

    def __init__(self, chunks: Iterator[bytes], named: bool, done: Callable[[], None]) -> None:
        self._done = done
        self._open = True
        self._reader: Any = None
        with _Giving(self):
            self._reader = pa.ipc.open_stream(pa.PythonFile(_Chunks(chunks), mode="r"))
            self.schema: pa.Schema = shape.schema_of(self._reader.schema, named)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        if not self._open:
            raise StopIteration
        with _Giving(self):
            return shape.cast(self._reader.read_next_batch(), self.schema)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._done()


class _Giving:
    """Closes the stream when it ends or breaks; what is no Arrow becomes an error for the person."""

    def __init__(self, batches: ArrowBatches) -> None:
        self._batches = batches

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        self._batches.close()
        if isinstance(error, pa.ArrowInvalid | pa.ArrowException | OSError) and not isinstance(error, Unavailable):
            raise Unavailable("The answer cannot be read", str(error), "ask again") from error


class _Chunks(io.RawIOBase):
    """Chunks as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Exactly `size` bytes, fewer only at the end: Arrow takes a short read for the end."""
        parts: list[memoryview] = []
        wanted = size
        while wanted:
            if not self._left:
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                self._left = memoryview(chunk)
                continue
            part = self._left if size < 0 else self._left[:wanted]
            self._left = self._left[len(part) :]
            parts.append(part)
            wanted -= len(part) if size >= 0 else 0
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
