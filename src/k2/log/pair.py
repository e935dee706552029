"""A stream and its `.raw` companion in one LMDB environment: how they are read and judged; `writer` has the rest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lmdb

from k2.log import Batch, LogCorrupt, OffsetOutOfRange, StreamInfo, block
from k2.log.datafile import Damaged, entries
from k2.log.environment import Environment, Handles, explain, mend
from k2.log.names import RAW, past_the_end
from k2.log.salvage import whole_runs

READ_TOUCHES = 64 << 10  # bytes of the map that one look makes resident: the kernel maps a page's neighbours too
_VERIFIED_AT_ONCE = 8 << 20  # bytes of one read transaction of `verify`


class Pair(Environment):
    """The trees `records` and `raw` of one environment: `which` 0 is the stream, 1 its companion. Thread-safe."""

    def __init__(self, folder: Path, map_bytes: int) -> None:
        super().__init__(folder, map_bytes, (b"records", b"raw"))
        self.streams = (folder.name, folder.name + RAW)
        self.bell = str(folder / "bell")
        self._seeds = tuple(block.seed(stream) for stream in self.streams)

    def read(self, which: int, offset: int, max_bytes: int) -> list[Batch]:
        handles = self.acquire()
        return self._read_nothing(which, offset) if handles is None else self._read(handles, which, offset, max_bytes)

    def read_now(self, which: int, offset: int, max_bytes: int) -> list[Batch] | None:
        """None: the environment is not open, or somebody is in the way."""
        handles = self.enter()
        return None if handles is None else self._read(handles, which, offset, max_bytes)

    def _read(self, handles: Handles, which: int, offset: int, max_bytes: int) -> list[Batch]:
        """Lets go of the handles."""
        taken = 0
        batches: list[Batch] = []
        try:
            with handles.env.begin(buffers=True) as txn, txn.cursor(handles.trees[which]) as cursor:
                if not self._seek(cursor, which, offset):
                    return []
                for key, value in cursor:
                    if taken and taken + len(value) > max_bytes:
                        break
                    taken += len(value)
                    head, batch = block.batch(self.streams[which], self._seeds[which], key, value)
                    if head.length and head.end > offset:
                        batches.append(batch if head.offset >= offset else _cut(batch, offset))
        except lmdb.Error as error:
            raise explain(error, self.folder, "read") from error
        finally:
            self.release(taken + READ_TOUCHES)
        return batches

    def _read_nothing(self, which: int, offset: int) -> list[Batch]:
        if offset:
            raise past_the_end(self.streams[which], offset, 0)
        return []

    def _seek(self, cursor: Any, which: int, offset: int) -> bool:
        """Put the cursor on the block that holds `offset`, else the next one; False at the end of the stream."""
        if cursor.set_range(block.pack_key(offset)):
            if block.unpack_key(cursor.key()) == offset:
                return True
            if cursor.prev():
                if block.header(*cursor.item()).end <= offset:
                    cursor.next()
                return True
            start = block.unpack_key(cursor.key()) if cursor.first() else 0
            raise OffsetOutOfRange(
                f"stream {self.streams[which]} begins at offset {start}; {offset} is no longer kept", start
            )
        end = block.header(*cursor.item()).end if cursor.last() else 0
        if offset > end:
            raise past_the_end(self.streams[which], offset, end)
        return offset < end

    def info(self, which: int) -> StreamInfo | None:
        """None for a stream that has never had a record."""
        handles = self.acquire()
        if handles is None:
            return None
        try:
            with handles.env.begin(buffers=True) as txn, txn.cursor(handles.trees[which]) as cursor:
                if not cursor.first():
                    return None
                first = block.header(*cursor.item())
                cursor.last()
                last = block.header(*cursor.item())
        except lmdb.Error as error:
            raise explain(error, self.folder, "read") from error
        finally:
            self.release(READ_TOUCHES)
        size = last.total - first.before if last.length else last.before - first.before
        return StreamInfo(self.streams[which], first.offset, last.end, size, last.append_ts)

    def readable_end(self, which: int) -> int:
        """The end of the last record, 0 if there is none: less than the next offset where a repair left a hole."""
        handles = self.acquire()
        if handles is None:
            return 0
        try:
            with handles.env.begin(buffers=True) as txn, txn.cursor(handles.trees[which]) as cursor:
                if not cursor.last():
                    return 0
                head = block.header(*cursor.item())
                return head.end if head.length else head.follows
        except lmdb.Error as error:
            raise explain(error, self.folder, "read") from error
        finally:
            self.release(0)

    def verify(self, which: int) -> int:
        """Read every block; the end of the stream. Raises LogCorrupt with the end of what is whole."""
        stream, end, more = self.streams[which], 0, True
        while more:
            handles = self.acquire()
            if handles is None:
                return 0
            try:
                with handles.env.begin():  # LMDB leaves what it shows untouched; the bytes are read without it
                    end, more = self._verify_some(which, end)
            except Damaged as error:
                raise LogCorrupt(
                    f"stream {stream}: {self.file} is damaged after offset {end}: {error}{mend(stream)}", stream, end
                ) from None
            except LogCorrupt as error:
                raise LogCorrupt(f"{error}{mend(stream)}", stream, error.valid_end) from None
            except lmdb.Error as error:
                raise explain(error, self.folder, "read") from error
            finally:
                self.release(0)
        return end

    def _verify_some(self, which: int, end: int) -> tuple[int, bool]:
        """Compare blocks from `end` on with their checksums and with the end of the one before: (new end, more)."""
        stream, taken, fresh = self.streams[which], 0, True
        for key, value in entries(self.file, self.names[which], block.pack_key(end)):
            if taken > _VERIFIED_AT_ONCE:
                return end, True
            head, batch = block.batch(stream, self._seeds[which], key, value)
            if end not in (head.follows, head.offset) and not (fresh and key == self._first_key(which)):
                raise LogCorrupt(f"stream {stream}: records are missing after offset {end}", stream, end)
            taken, fresh, end = taken + len(value), False, batch.end
        return end, False

    def _first_key(self, which: int) -> bytes:
        return next(entries(self.file, self.names[which], b""))[0]

    def inspect(self, last: Mapping[bytes, tuple[bytes, bytes] | None]) -> None:
        for which, name in enumerate(self.names):
            entry = last.get(name)
            if entry is not None and not block.whole(self._seeds[which], *entry):
                raise Damaged(f"the last block of {self.streams[which]} is not what was written")

    def diagnose(self, damage: str) -> LogCorrupt:
        ends = {stream: end for stream, (_, end) in whole_runs(self.file, self.streams).items()}
        stream = self.streams[0]
        kept = " and ".join(f"{name} is whole up to offset {end}" for name, end in ends.items())
        return LogCorrupt(
            f"stream {stream}: {self.file} is damaged: {damage}; {kept}{mend(stream)}", stream, ends[stream]
        )


def _cut(batch: Batch, offset: int) -> Batch:
    at = offset - batch.offset
    return Batch(batch.stream, offset, batch.append_ts, batch.keys[at:], batch.values[at:])
