"""Rows put aside while a partition is brought into order: in memory while they are few, else in files of their own."""

import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from k2.tier.faults import told

MEMORY_BYTES = 64 << 20

Fetch = Callable[[], pa.Table]


class Spill:
    """A place for one partition's rows. Leaving its `with` block removes all of it. Raises TierError.

    Files are uncompressed Arrow, some 90 bytes a trade, below `folder`; `sweep` removes what a killed process left.
    """

    def __init__(self, folder: Path, memory_bytes: int = MEMORY_BYTES) -> None:
        self._folder = folder / uuid.uuid4().hex
        self._left = memory_bytes
        self._files = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def put(self, parts: Sequence[pa.Table]) -> list[Fetch]:
        """Put tables aside that are cut from one; each comes back, whole, from the function in its place."""
        size = sum(part.nbytes for part in parts)
        if size <= self._left:
            self._left -= size
            return [_kept(part) for part in parts]
        self._left = 0
        with told(f"rows cannot be put aside in {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{self._files}.arrow"
            self._files += 1
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, parts[0].schema) as writer:
                for part in parts:
                    writer.write_batch(part.combine_chunks().to_batches()[0])
        return [_stored(path, i) for i in range(len(parts))]


def sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder that is for spilling alone."""
    shutil.rmtree(folder, ignore_errors=True)


def _kept(part: pa.Table) -> Fetch:
    return lambda: part


def _stored(path: Path, number: int) -> Fetch:
    def fetch() -> pa.Table:
        with told(f"{path} cannot be read back"), pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
            return pa.Table.from_batches([reader.get_batch(number)])

    return fetch
