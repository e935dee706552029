"""The writer thread: appends that are durable when they are reported, off the event loop, one after the other."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

from k2.log import Entry, Log, LogFull, Position

RETRY_FULL = 1.0  # s between attempts while the disk is full
SAY_FULL = 30.0  # s between the errors that say so

_log = logging.getLogger("k2.feed")
_T = TypeVar("_T")


class Job(NamedTuple):
    """Entries to append, then, if given, a checkpoint: the streams' metadata, to which the writer adds the offsets."""

    entries: Sequence[Entry]
    checkpoint: Mapping[str, bytes] | None = None


class Done(NamedTuple):
    """What became of a job. `error` None: durable, at `durable_ts` (ns)."""

    durable_ts: int
    error: Exception | None = None


class Writer:
    """One thread over one Log, one job at a time. `ends` holds each stream's next offset, known from the appends.

    A finished job does not wake the event loop, which has other reasons to wake: it is handed back when the loop asks
    (`settled`), at once only if the loop waits for it already or the job failed.
    """

    def __init__(self, log: Log, consumer: str, ends: dict[str, int]) -> None:
        self.log = log
        self.consumer = consumer
        self.ends = ends
        self._jobs: SimpleQueue[tuple[Job, Callable[[Done], None]] | None] = SimpleQueue()
        self._in_hand = 0  # jobs submitted and not handed back; touched by the loop alone
        self._finished: deque[tuple[Callable[[Done], None], Done]] = deque()
        self._awaiting: list[Callable[[], None]] = []  # filled by the loop, read by the thread
        self._loop = asyncio.get_running_loop()
        self._give_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="k2-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job, done: Callable[[Done], None]) -> None:
        """Do the job; `done` is called in the event loop. While the log is full the job waits and is tried again."""
        self._in_hand += 1
        self._jobs.put((job, done))

    def settled(self, then: Callable[[], None] | None = None) -> bool:
        """Hand back what is finished. False: a job is still in hand; `then` is called in the loop once none is."""
        asked = then if self._in_hand else None
        if asked is not None:
            self._awaiting.append(asked)  # before looking: the thread has finished first when it looks here
        while self._finished:
            done, result = self._finished.popleft()
            self._in_hand -= 1
            done(result)
        if self._in_hand:
            return False
        if asked is not None:
            self._awaiting.remove(asked)
        return True

    def _hand_back(self) -> None:
        if self.settled():
            awaiting, self._awaiting = self._awaiting, []
            for then in awaiting:
                then()

    def give_up(self) -> None:
        """Stop waiting for room: a job that the full log refuses is reported with its LogFull."""
        self._give_up.set()

    async def close(self) -> None:
        """Finish the job in hand and end the thread."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            try:
                result = self._do(job)
            except Exception as error:  # noqa: BLE001  told to the event loop, which ends the process
                result = Done(time.time_ns(), error)
            del item, job  # or they would live until the next one comes
            self._finished.append((done, result))
            if self._awaiting or result.error is not None:
                self._loop.call_soon_threadsafe(self._hand_back)
            del done, result

    def _do(self, job: Job) -> Done:
        if job.entries:
            self._append(job.entries)
        durable_ts = time.time_ns()
        if job.checkpoint is not None:
            positions = {stream: Position(self.ends[stream], state) for stream, state in job.checkpoint.items()}
            self._retry(lambda: self.log.commit(self.consumer, positions))
        return Done(durable_ts)

    def _append(self, entries: Sequence[Entry]) -> None:
        firsts = self._retry(lambda: self.log.append(entries))
        for entry in entries:
            self.ends[entry.stream] = firsts[entry.stream] + len(entry.values)

    def _retry(self, act: Callable[[], _T]) -> _T:
        said = -SAY_FULL
        while True:
            try:
                return act()
            except LogFull as error:
                now = time.monotonic()
                if now - said >= SAY_FULL:
                    said = now
                    _log.error("the log is full, frames wait in memory until there is room: %s", error)
                if self._give_up.wait(RETRY_FULL):
                    raise
