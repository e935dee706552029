"""The one thread that follows the log for all subscribers.

It waits for the log's bell, reads what is new and hands it to the event loop with one wakeup, and does not read on
before all that was sent. The time until it looks again is set by how long that took: the more subscribers there are,
and the busier the loop, the fewer and larger the messages.
"""

import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from k2.log import Log, LogError, OffsetOutOfRange
from k2.web.stream.chunk import Chunk, chunks

LOOK_S = 0.25  # between two looks whether to stop
_READ_BYTES = 1 << 20  # of one stream at once
_SHARE = 1.25  # sending may take one of so many parts of the time


class Skipped(NamedTuple):
    """The log dropped the stream's records before `offset` while they were waiting to be read."""

    stream: str
    offset: int


News = Sequence[Chunk | Skipped]


class Follower:
    """Reads every stream from its position on. `take` and `fail` are called in the loop; after `fail` nothing comes."""

    def __init__(
        self,
        log: Log,
        positions: Mapping[str, int],
        chunk_bytes: int,
        linger_s: tuple[float, float],
        take: Callable[["Follower", News], None],
        fail: Callable[["Follower", LogError], None],
    ) -> None:
        self._log = log
        self._positions = dict(positions)
        self._chunk_bytes = chunk_bytes
        self._linger_s = linger_s
        self._linger = 0.0
        self._take = take
        self._fail = fail
        self._stop = threading.Event()
        self._taken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="k2-stream", daemon=True)

    def start(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """End soon; what is under way is not taken any more. Does not wait."""
        self._stop.set()
        self._taken.set()

    def join(self) -> None:
        """Wait for the end."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if not self._log.wait(self._positions, LOOK_S):
                    continue
                news = self._read()
            except LogError as error:
                if not self._stop.is_set():
                    self._call(lambda error=error: self._fail(self, error))  # type: ignore[misc]
                return
            if news:
                self._taken.clear()
                self._call(lambda news=news: self._hand_over(news))  # type: ignore[misc]
                while not self._taken.wait(LOOK_S) and not self._stop.is_set():
                    pass
                self._stop.wait(self._linger)

    def _call(self, act: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(act)
        except RuntimeError:  # the loop was closed
            self.stop()

    def _hand_over(self, news: News) -> None:
        began = time.perf_counter()
        try:
            if not self._stop.is_set():
                self._take(self, news)
        finally:
            self._loop.call_soon(self._sent, began)  # by then the sockets have been written to

    def _sent(self, began: float) -> None:
        shortest, longest = self._linger_s
        self._linger = min(max(shortest, (time.perf_counter() - began) * (_SHARE - 1)), longest)
        self._taken.set()

    def _read(self) -> list[Chunk | Skipped]:
        found: list[Chunk | Skipped] = []
        for stream, offset in self._positions.items():
            try:
                batches = self._log.read(stream, offset, _READ_BYTES)
            except OffsetOutOfRange as error:
                self._positions[stream] = error.start
                found.append(Skipped(stream, error.start))
                continue
            if batches:
                self._positions[stream] = batches[-1].end
                found += chunks(batches, self._chunk_bytes)
        return found
