"""Writing a stream and its `.raw` companion: group commit, and the dropping of what need not be kept."""

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from k2.log import Entry, LogError, block
from k2.log.doorbell import Bell
from k2.log.environment import Handles, explain, why_unwritten
from k2.log.names import RAW
from k2.log.pair import READ_TOUCHES, Pair

_COMMIT_TOUCHES = 64 << 10  # bytes of the map that a commit looks at, about: a path of pages and their neighbours
_DELETES = 200  # blocks in one transaction of `retain`


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


class WritablePair(Pair):
    """A pair with its writer's state. Thread-safe."""

    def __init__(self, folder: Path, map_bytes: int) -> None:
        super().__init__(folder, map_bytes)
        self._queue: deque[_Ticket] = deque()
        self._writing = threading.Lock()
        self._transaction = -1  # the last one that this process committed; the tails are true if nobody did since
        self._tails: dict[int, _Tail] = {}
        self._bell = Bell(self.bell)

    def append(self, entries: Sequence[Entry]) -> Mapping[str, int]:
        """Group commit: whoever gets the lock writes for all who queue behind it."""
        if not self._queue and self._writing.acquire(blocking=False):
            try:
                return self._commit(entries)
            finally:
                self._writing.release()
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
            _tell(tickets, self._commit(tickets[0].entries if len(tickets) == 1 else _merged(tickets)))
            error = None
        except LogError as refused:
            error = refused
        finally:
            for ticket in tickets:
                ticket.error = type(error)(str(error)) if error and len(tickets) > 1 else error
                ticket.done = True

    def _commit(self, entries: Sequence[Entry]) -> dict[str, int]:
        """Append in one transaction, ring; the first offset of each stream."""
        handles = self.acquire(create=True)
        assert handles is not None
        size = 0
        try:
            with handles.env.begin(write=True) as txn:
                transaction = txn.id()
                tails = self._tails if transaction == self._transaction + 1 else {}
                self._transaction = -1
                starts: dict[str, int] = {}
                for stream, keys, values in entries:
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
        if size:
            self._bell.ring()
        return starts

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
                    self.release(_DELETES * READ_TOUCHES)
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

    def closed(self) -> None:
        self._bell.close()


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
