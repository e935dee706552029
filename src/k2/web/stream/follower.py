"""Follows the log for all subscribers, in the event loop: from the log's bell to the sockets nobody else must wake up.

Only the stream that rang is read, only what was appended, and only where that makes the loop wait for nobody
(`Log.read_now`); otherwise it is read in a thread. The time until the next step is set by how long this one took: the
more subscribers there are, and the busier the loop, the fewer and larger the messages.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from k2.log import Batch, Ear, Log, LogError, OffsetOutOfRange
from k2.web.stream.chunk import Chunk, chunks

LOOK_S = 0.25  # between two looks without a bell
DEAF_S = 0.01  # the same where the log can give no ear
_READ_BYTES = 2 << 20  # of one stream at once: some ms ...
_CUT_BYTES = 256 << 10  # ... which the log keeps in blocks of 1 MiB: what is cut off by that bound is larger than this
_SHARE = 1.25  # sending may take one of so many parts of the time


class Skipped(NamedTuple):
    """The log dropped the stream's records before `offset` while they were waiting to be read."""

    stream: str
    offset: int


News = Sequence[Chunk | Skipped]


class Follower:
    """Reads every stream from its position on. `take` gets what is new; after `fail` nothing comes."""

    def __init__(
        self,
        log: Log,
        positions: Mapping[str, int],
        chunk_bytes: int,
        linger_s: tuple[float, float],
        take: Callable[[News], None],
        fail: Callable[[LogError], None],
    ) -> None:
        self._log = log
        self._positions = dict(positions)
        self._chunk_bytes = chunk_bytes
        self._linger_s = linger_s
        self._take = take
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._ears: dict[str, Ear] = {}
        self._due: dict[str, None] = {}
        self._waited_for: dict[str, bool] = {}  # streams that a thread reads: whether it rang meanwhile
        self._threads = ThreadPoolExecutor(len(self._positions), thread_name_prefix="k2-follow")
        self._sending = False
        self._not_before = 0.0
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; `take` may be called before this returns."""
        self._look()

    def stop(self) -> None:
        """End now; what is being read is not taken any more. Idempotent."""
        self._stopped = True
        for timer in (self._timer, self._looking):
            if timer is not None:
                timer.cancel()
        for ear in self._ears.values():
            self._loop.remove_reader(ear.fileno())
            ear.close()
        self._ears.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- when to read --------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Read every stream: a bell may have been missed, and a stream begun."""
        for stream in self._positions.keys() - self._ears.keys():
            if (ear := self._log.listen(stream)) is not None:
                self._ears[stream] = ear
                self._loop.add_reader(ear.fileno(), self._rang, stream, ear)
        deaf = any(end and stream not in self._ears for stream, end in self._positions.items())
        self._looking = self._loop.call_later(DEAF_S if deaf else LOOK_S, self._look)
        self._due.update(dict.fromkeys(self._positions))
        self._soon()

    def _rang(self, stream: str, ear: Ear) -> None:
        ear.hear()
        self._due[stream] = None
        self._soon()

    def _soon(self) -> None:
        if self._due and not self._sending and self._timer is None and not self._stopped:
            wait = self._not_before - time.monotonic()
            if wait > 0:
                self._timer = self._loop.call_later(wait, self._step)
            else:
                self._step()

    # -- reading -------------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        self._timer = None
        began = time.monotonic()
        due, self._due = self._due, {}
        news: list[Chunk | Skipped] = []
        for stream in due:
            if stream in self._waited_for:
                self._waited_for[stream] = True
            elif not self._read(stream, news):
                return
        self._hand_over(news, began)

    def _read(self, stream: str, news: list[Chunk | Skipped]) -> bool:
        """False: nothing can be read any more."""
        try:
            found = self._log.read_now(stream, self._positions[stream], _READ_BYTES)
        except LogError as error:
            return self._excused(stream, error, news)
        if found is None:
            self._waited_for[stream] = False
            job = partial(self._log.read, stream, self._positions[stream], _READ_BYTES)
            self._loop.run_in_executor(self._threads, job).add_done_callback(partial(self._have_read, stream))
        else:
            self._put(stream, found, news)
        return True

    def _have_read(self, stream: str, done: "asyncio.Future[list[Batch]]") -> None:
        """A thread has read."""
        rang = self._waited_for.pop(stream)
        if self._stopped or done.cancelled():
            return
        began = time.monotonic()
        news: list[Chunk | Skipped] = []
        try:
            self._put(stream, done.result(), news)
        except LogError as error:
            if not self._excused(stream, error, news):
                return
        if rang:
            self._due[stream] = None
        self._hand_over(news, began)

    def _put(self, stream: str, found: list[Batch], news: list[Chunk | Skipped]) -> None:
        if found:
            self._positions[stream] = found[-1].end
            new = list(chunks(found, self._chunk_bytes))
            news += new
            if sum(chunk.size for chunk in new) > _CUT_BYTES:
                self._due[stream] = None  # there may be more

    def _excused(self, stream: str, error: LogError, news: list[Chunk | Skipped]) -> bool:
        if isinstance(error, OffsetOutOfRange):
            self._positions[stream] = error.start
            self._due[stream] = None
            news.append(Skipped(stream, error.start))
            return True
        self.stop()
        self._fail(error)
        return False

    # -- sending -------------------------------------------------------------------------------------------------------

    def _hand_over(self, news: News, began: float) -> None:
        if news:
            self._sending = True
            self._loop.call_soon(self._sent, began)
            self._take(news)
        else:
            self._soon()

    def _sent(self, began: float) -> None:
        """Everybody was written to."""
        shortest, longest = self._linger_s
        now = time.monotonic()
        self._not_before = now + min(max(shortest, (now - began) * (_SHARE - 1)), longest)
        self._sending = False
        self._soon()
