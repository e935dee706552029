"""A stream and its `.raw` companion in one LMDB environment, so that both are committed together or not at all."""

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from k2.log import Batch, Entry, LogCorrupt, LogError, OffsetOutOfRange, StreamInfo, block
from k2.log.datafile import Damaged, entries
from k2.log.doorbell import Bell
from k2.log.environment import Environment, Handles, explain, mend, why_unwritten
from k2.log.names import RAW, past_the_end
from k2.log.salvage import whole_runs

_COMMIT_TOUCHES = 64 << 10  # bytes of the map that a commit looks at, about: a path of pages and their neighbours
_READ_TOUCHES = 64 << 10
_VERIFIED_AT_ONCE = 8 << 20  # bytes of one read transaction of `verify`
_DELETES = 500  # blocks in one transaction of `retain`


class _Ticket:
    """One caller's part of a commit."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.offsets: dict[str, int] = {}
        self.error: LogError | None = None
        self.done = False


class _Tail(NamedTuple):
    """Where a stream goes on: the next offset, the end of its last block, the bytes of all its blocks so far, and
    whether an empty block holds the place of the next one."""

    offset: int
    follows: int
    total: int
    held: bool


class Pair(Environment):
    """The trees `records` and `raw` of one environment. Thread-safe."""

    def __init__(self, folder: Path, map_bytes: int) -> None:
        super().__init__(folder, map_bytes, (b"records", b"raw"))
        self.streams = (folder.name, folder.name + RAW)
        self._seeds = tuple(block.seed(stream) for stream in self.streams)
        self._queue: deque[_Ticket] = deque()
        self._writing = threading.Lock()
        self._transaction = -1  # the last one that this process committed; the tails are true if nobody did since
        self._tails: dict[int, _Tail] = {}
        self.bell = str(folder / "bell")
        self._bell = Bell(self.bell)

    # -- writing

    def append(self, entries: Sequence[Entry]) -> Mapping[str, int]:
        """Group commit: whoever gets the lock writes for all who queue behind it."""
        ticket = _Ticket(entries)
        self._queue.append(ticket)
        with self._writing:
            if not ticket.done:
                self._commit_queue()
        if ticket.error is not None:
            raise ticket.error
        return ticket.offsets

    def _commit_queue(self) -> None:
        tickets: list[_Ticket] = []
        while self._queue:
            tickets.append(self._queue.popleft())
        error: LogError | None = LogError(
            f"{self.folder}: the append was interrupted; it is not known whether it was kept"
        )
        try:
            self._commit(tickets)
            error = None
        except LogError as refused:
            error = refused
        finally:
            for ticket in tickets:
                ticket.error = type(error)(str(error)) if error and len(tickets) > 1 else error
                ticket.done = True

    def _commit(self, tickets: list[_Ticket]) -> None:
        handles = self.acquire(create=True)
        assert handles is not None
        size = 0
        parts = tickets[0].entries if len(tickets) == 1 else _merged(tickets)
        try:
            with handles.env.begin(write=True) as txn:
                transaction = txn.id()
                tails = self._tails if transaction == self._transaction + 1 else {}
                self._transaction = -1
                starts: dict[str, int] = {}
                for stream, keys, values in parts:
                    which = 1 if stream.endswith(RAW) else 0
                    tail = tails.get(which) or self._tail(handles, txn, which)
                    starts.setdefault(stream, tail.offset)
                    tails[which] = after = self._put(handles, txn, which, tail, keys, values) if values else tail
                    size += after.total - tail.total
            self._tails = tails
            self._transaction = transaction if size else transaction - 1
            self.drop_stale_readers(handles)
        except (lmdb.Error, OSError) as error:
            self.renew()
            raise explain(why_unwritten(error, self.file, size), self.folder, "written", size) from error
        finally:
            self.release(size + _COMMIT_TOUCHES)
        _tell(tickets, starts)
        if size:
            self._bell.ring()

    def _tail(self, handles: Handles, txn: Any, which: int) -> _Tail:
        cursor = txn.cursor(handles.trees[which])
        if not cursor.last():
            return _Tail(0, 0, 0, held=False)
        head = block.header(*cursor.item())
        if head.length:
            return _Tail(head.end, head.end, head.total, held=False)
        return _Tail(head.end, head.follows, head.before, held=True)

    def _put(
        self, handles: Handles, txn: Any, which: int, tail: _Tail, keys: Sequence[str], values: Sequence[bytes]
    ) -> _Tail:
        offset, follows, total, held = tail
        now = time.time_ns()
        for first, to in block.cuts(values):
            whole = to - first == len(values)
            part = (keys, values) if whole else (keys[first:to], values[first:to])
            key, value = block.encode(self._seeds[which], *part, offset, now, follows, total)
            txn.put(key, value, append=not held, db=handles.trees[which])
            offset += to - first
            follows, held = offset, False
            total += len(value) + 8
        return _Tail(offset, follows, total, held)

    # -- reading

    def read(self, which: int, offset: int, max_bytes: int) -> list[Batch]:
        handles = self.acquire()
        if handles is None:
            return self._read_nothing(which, offset)
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
            self.release(taken + _READ_TOUCHES)
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
            self.release(0)
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

    # -- keeping

    def retain(self, which: int, before_ts: int, max_bytes: int | None, needed: int | None) -> int:
        """Drop blocks older than `before_ts` (ns) or beyond `max_bytes`, but none that ends after `needed`."""
        more = True
        while more:
            with self._writing:
                handles = self.acquire()
                if handles is None:
                    return 0
                self._transaction = -1
                try:
                    with handles.env.begin(write=True) as txn:
                        start, more = self._drop(handles, txn, which, before_ts, max_bytes, needed)
                    handles.env.reader_check()
                except (lmdb.Error, OSError) as error:
                    self.renew()
                    raise explain(why_unwritten(error, self.file, 0), self.folder, "shortened") from error
                finally:
                    self.release(_DELETES * 4096)
        return start

    def _drop(
        self, handles: Handles, txn: Any, which: int, before_ts: int, max_bytes: int | None, needed: int | None
    ) -> tuple[int, bool]:
        cursor = txn.cursor(handles.trees[which])
        if not cursor.last():
            return 0, False
        last = block.header(*cursor.item())
        total = last.total if last.length else last.before
        cursor.first()
        for _ in range(_DELETES):
            head = block.header(*cursor.item())
            old = head.append_ts < before_ts
            large = max_bytes is not None and total - head.before > max_bytes
            if not head.length or not (old or large) or (needed is not None and head.end > needed):
                return head.offset, False
            cursor.delete()
            if head.offset == last.offset:
                place = block.encode(self._seeds[which], (), (), last.end, last.append_ts, last.end, total)
                txn.put(*place, db=handles.trees[which])
                return last.end, False
        return block.header(*cursor.item()).offset, True

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

    def close(self) -> None:
        self._bell.close()
        super().close()


def _merged(tickets: Sequence[_Ticket]) -> list[Entry]:
    """The entries of all tickets, one for each stream, in the order of the tickets."""
    parts: dict[str, tuple[list[str], list[bytes]]] = {}
    for ticket in tickets:
        for stream, keys, values in ticket.entries:
            part = parts.setdefault(stream, ([], []))
            part[0].extend(keys)
            part[1].extend(values)
    return [Entry(stream, *part) for stream, part in parts.items()]


def _tell(tickets: Sequence[_Ticket], starts: dict[str, int]) -> None:
    """Give every ticket the first offset of each of its streams."""
    ahead = dict(starts)
    for ticket in tickets:
        for stream, _, values in ticket.entries:
            ticket.offsets.setdefault(stream, ahead[stream])
            ahead[stream] += len(values)


def _cut(batch: Batch, offset: int) -> Batch:
    at = offset - batch.offset
    return Batch(batch.stream, offset, batch.append_ts, batch.keys[at:], batch.values[at:])
