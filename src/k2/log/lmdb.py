"""The embedded log: streams in LMDB, one environment a stream pair; see the modules beside this one for each part.

<folder>/<base stream>/data.mdb   trees `records` (the stream) and `raw` (its `.raw` companion)
<folder>/<base stream>/bell/      sockets of those who wait for a commit
<folder>/_consumers/data.mdb      positions of consumers
"""

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from k2.log import Batch, Entry, LogError, Position, StreamInfo
from k2.log.doorbell import Ear, Waiter
from k2.log.environment import shared
from k2.log.names import RAW, check_entries, check_name, is_stream
from k2.log.positions import FOLDER, Positions
from k2.log.writer import WritablePair


class LmdbLog:
    """The `Log` on LMDB. Opening is late: a folder that does not exist is made by the first append."""

    def __init__(self, folder: Path, map_bytes: int = 1 << 40) -> None:
        self._folder = Path(folder).resolve()  # one environment must not be opened under two names
        self._map_bytes = map_bytes
        self._lock = threading.Lock()
        self._pairs: dict[str, WritablePair] = {}
        self._positions = shared(self._folder / FOLDER, map_bytes, Positions)
        self._idle: list[Waiter] = []
        self._waiting: set[Waiter] = set()
        self._closed = False

    def _pair(self, stream: str) -> tuple[WritablePair, int]:
        """A stream's environment, and which of its two trees."""
        base = stream.removesuffix(RAW)
        pair = self._pairs.get(base)
        if pair is None or self._closed:
            pair = self._attach(stream, base)
        return pair, int(len(base) != len(stream))

    def _attach(self, stream: str, base: str) -> WritablePair:
        check_name(stream)
        with self._lock:
            if self._closed:
                raise LogError(f"the log in {self._folder} was closed")
            if base not in self._pairs:
                self._pairs[base] = shared(self._folder / base, self._map_bytes, WritablePair)
            return self._pairs[base]

    def append(self, entries: Sequence[Entry]) -> Mapping[str, int]:
        check_entries(entries)
        groups: dict[str, list[Entry]] = {}
        for entry in entries:
            base = entry.stream.removesuffix(RAW)
            groups.setdefault(base, []).append(entry)
        if len(groups) == 1:
            return self._pair(base)[0].append(entries)
        pairs = [(self._pair(base)[0], group) for base, group in groups.items()]
        offsets: dict[str, int] = {}
        for pair, group in pairs:
            offsets.update(pair.append(group))
        return offsets

    def read(self, stream: str, offset: int, max_bytes: int = 4 << 20) -> list[Batch]:
        pair, which = self._pair(stream)
        return pair.read(which, offset, max_bytes)

    def read_now(self, stream: str, offset: int, max_bytes: int) -> list[Batch] | None:
        pair, which = self._pair(stream)
        return pair.read_now(which, offset, max_bytes)

    def listen(self, stream: str) -> Ear | None:
        try:
            return Ear(self._pair(stream)[0].bell)
        except OSError:
            return None

    def bounds(self, stream: str) -> tuple[int, int]:
        pair, which = self._pair(stream)
        info = pair.info(which)
        return (info.start, info.end) if info else (0, 0)

    def wait(self, positions: Mapping[str, int], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        places = [(*self._pair(stream), position) for stream, position in positions.items()]
        waiter = self._waiter()
        try:
            while not self._closed:
                for pair, which, position in places:
                    waiter.listen(pair.bell)
                    if pair.readable_end(which) > position:
                        return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                waiter.sleep(left)
            return False
        except LogError:
            if self._closed:
                return False
            raise
        finally:
            self._dismiss(waiter)

    def _waiter(self) -> Waiter:
        with self._lock:
            if self._closed:
                raise LogError(f"the log in {self._folder} was closed")
            waiter = self._idle.pop() if self._idle else Waiter()
            self._waiting.add(waiter)
            return waiter

    def _dismiss(self, waiter: Waiter) -> None:
        with self._lock:
            self._waiting.discard(waiter)
            if not self._closed:
                self._idle.append(waiter)
                return
        waiter.close()

    def commit(self, consumer: str, positions: Mapping[str, Position]) -> None:
        self._require_open()
        self._positions.put(consumer, positions)

    def committed(self, consumer: str) -> dict[str, Position]:
        return self.consumers().get(consumer, {})

    def consumers(self) -> dict[str, dict[str, Position]]:
        self._require_open()
        return self._positions.all()

    def streams(self) -> list[StreamInfo]:
        self._require_open()
        names = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        found = []
        for name in sorted(names):
            if is_stream(name):
                pair, _ = self._pair(name)
                found += [info for which in (0, 1) if (info := pair.info(which))]
        return sorted(found)

    def retain(self, stream: str, max_age: float | None, max_bytes: int | None, now_ns: int) -> int:
        offsets = [at[stream].offset for at in self.consumers().values() if stream in at]
        pair, which = self._pair(stream)
        before_ts = 0 if max_age is None else now_ns - int(max_age * 1e9)
        return pair.retain(which, before_ts, max_bytes, min(offsets, default=None))

    def check(self, stream: str) -> int:
        pair, which = self._pair(stream)
        return pair.verify(which)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for waiter in self._waiting:
                waiter.wake()
            idle, self._idle = self._idle, []
        for waiter in idle:
            waiter.close()
        for pair in self._pairs.values():
            pair.close()
        self._positions.close()

    def _require_open(self) -> None:
        if self._closed:
            raise LogError(f"the log in {self._folder} was closed")
