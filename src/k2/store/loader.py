"""The loader: follows the log into the store, so that every trade is visible within milliseconds and counted once.

Trades go into the live tail at once (see `tail.py`); every few seconds what is there becomes a generation, which a
second thread makes final (see `flush.py`) while the next one fills. After any error, and at the start, the loader takes
the store over anew (see `commit.py`) and goes on at the last commit: what it had done since is invisible refuse, or
done again.
"""

import logging
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from k2.config import LoaderConfig
from k2.core.codec import GAPS_STREAM, frames_stream, trades_stream
from k2.log import Batch, Log, LogError, Position
from k2.log.lag import measure, measure_candles
from k2.metrics import DROPS, INSERT_FAILING, INSERT_FAILURES, LOADED, QUEUE, QUEUE_BOUND, STORE_ERRORS
from k2.store import Store, StoreError, StoreUnavailable
from k2.store import seam as seams
from k2.store.candles import DUE
from k2.store.commit import GENERATIONS_APART, SupersededError, check_fence, take_over
from k2.store.flush import Generation, Written, flush, settle
from k2.store.follow import LogReplacedError, readable
from k2.store.latency import Latencies
from k2.store.seen import Admission, Identity, Seen
from k2.store.tail import RECENT, STAGE, TAIL, Tail, insert, keep_after, lines

logger = logging.getLogger("k2.loader")

TAIL_ROWS = 500_000  # uncommitted trades in the tail; at the bound reading waits for the flush
GENERATION_ROWS = 500_000  # of one generation while catching up
KEEP_S = 10.0  # a committed generation stays in the tail so long: for queries that began before its commit
REPLACE_S = 30.0  # time between two replacements of the tail's memory ...
REPLACE_INSERTS = 1_000  # ... or so many inserts ...
REPLACE_ROWS = 500_000  # ... or so many trades
FLUSH_SHARE = 0.15  # of the time that flushing should take at most ...
FLUSH_AT_LEAST_S = 4.0  # ... but so often it happens anyway
LONGEST_WAIT = 1.0  # s between two tries while the store is away: so long may its return go unnoticed


class Loader:
    """One loader over one log and one store. `store` and `flush_store` are two connections to the same store.

    `take_over`, `load`, `seal`, `flush` and `replace_tail` are its steps, in the order that `run` takes them.
    """

    def __init__(
        self,
        log: Log,
        store: Store,
        flush_store: Store,
        config: LoaderConfig,
        exchanges: Sequence[str],
    ) -> None:
        self._log = log
        self._store = store
        self._flush_store = flush_store
        self._config = config
        self._exchanges = exchanges
        self._streams = {trades_stream(exchange): exchange for exchange in exchanges}
        self._latencies = Latencies()
        others = [frames_stream(exchange) for exchange in exchanges] + [GAPS_STREAM]
        self._all_streams = [*self._streams, *others]
        self._owner = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self._incarnation = 0
        self._tail = Tail(store)
        self._seam = seams.Seam()
        self._due = False
        self._failing_since = 0.0
        self._begin(0, {}, Seen())

    def _begin(self, sealed: int, positions: dict[str, int], seen: Seen) -> None:
        self._sealed = sealed
        self._seen = seen
        self._positions = {stream: positions.get(stream, 0) for stream in self._streams}
        self._flushed = {
            stream: positions.get(stream, 0) for stream in self._all_streams if stream not in self._streams
        }
        self._committed: deque[tuple[float, int]] = deque()
        self._empty_generation()

    def _empty_generation(self) -> None:
        self._trades = 0
        self._first_ts = 0
        self._last_ts = 0
        self._joined: list[Identity] = []

    # -- steps ---------------------------------------------------------------------------------------------------------

    def take_over(self) -> None:
        """Claim the store, then bring it up to the log's end. Raises SupersededError, StoreError, LogError."""
        self._tail.close()
        self._incarnation, commit = take_over(self._store, self._owner, self._incarnation)
        positions = readable(self._log, self._all_streams, commit.positions)
        self._begin(commit.generation + GENERATIONS_APART, positions, commit.seen)
        self._tail.take_over(self._sealed + 1)
        self._seam = seams.read(self._store)
        self._due = bool(self._store.rows(f"{DUE} LIMIT 1"))
        logger.info(
            "loader %d takes over at generation %d", self._incarnation, commit.generation, extra={"stage": "take_over"}
        )
        shown = self._store.rows(f"SELECT count() FROM {TAIL} WHERE generation > {commit.generation}")
        whole = int(shown[0][0]) > 0  # the next commit hides that tail: it must hold all that it shows
        keep_after(self._store, STAGE, self._tail.number(), self._incarnation)
        behind = True
        while behind:
            behind = self._stage(whole)
            self.flush(self.seal())
        self._tail.committed()

    def _stage(self, whole: bool) -> bool:
        """Put a generation's trades into the base by way of the stage. True: there is more to read."""
        ends = {stream: self._log.bounds(stream)[1] for stream in self._streams}
        while any(self._positions[stream] < end for stream, end in ends.items()):
            batches = self._read()
            number = self._tail.number()
            if body := _lines(batches, self._admit(batches), number):
                insert(self._store, STAGE, body)
            settle(self._store, STAGE, self._sealed, number, self._incarnation)
            keep_after(self._store, STAGE, number, self._incarnation)
            if self._trades >= GENERATION_ROWS and not whole:
                return True
        return False

    def load(self) -> int:
        """Put new trades into the live tail, at most `max_batch_mb` of them. Returns their number."""
        batches = self._read()
        if not batches:
            return 0
        read_ts = time.time_ns()
        before = self._trades
        admissions = self._admit(batches)
        new = self._trades - before
        if new:
            self._tail.put(_lines(batches, admissions, self._tail.number(new)), new)
        self._latencies.record(self._streams, batches, admissions, read_ts, time.time_ns())
        return new

    def seal(self) -> Generation:
        """End the current generation: trades loaded from now on belong to the next. Raises StoreError."""
        positions = {**self._flushed, **self._positions}
        generation = Generation(
            self._sealed,
            self._tail.seal(),
            self._trades,
            self._first_ts,
            self._last_ts,
            {stream: offset for stream, offset in positions.items() if offset},
            self._seen.to_json(),
            self._seen.apart(),
            self._joined,
        )
        self._sealed = generation.number
        self._empty_generation()
        return generation

    def flush(self, generation: Generation, settled: bool = True) -> Written:
        """Make a sealed generation final. Not `settled`: its trades are in the tail still."""
        store = self._store if settled else self._flush_store
        if generation.trades and not settled:
            settle(store, RECENT, generation.after, generation.number, self._incarnation)
        written = self._flushed_at_seam(store, generation)
        self._flushed = {stream: written.positions.get(stream, 0) for stream in self._flushed}
        self._committed.append((time.monotonic(), generation.number))
        self._log.commit("loader", {stream: Position(offset) for stream, offset in written.positions.items()})
        for table, count in written.rows.items():
            LOADED.labels(table).inc(count)
        return written

    def _flushed_at_seam(self, store: Store, generation: Generation) -> Written:
        while True:
            try:
                log, seam = self._log, self._seam
                written = flush(store, log, generation, self._incarnation, self._exchanges, seam, self._due)
            except seams.SeamMoved:
                self._seam = seams.read(store)
            else:
                self._due = written.due
                return written

    def replace_tail(self, keep_s: float = KEEP_S) -> None:
        """Drop the generations from the tail's memory that were committed `keep_s` ago."""
        old = 0
        while self._committed and time.monotonic() - self._committed[0][0] >= keep_s:
            old = self._committed.popleft()[1]
        if old:
            self._tail.drop(old, self._incarnation)

    # -- within --------------------------------------------------------------------------------------------------------

    def _read(self) -> list[Batch]:
        limit = self._config.max_batch_mb << 20
        found: list[Batch] = []
        for stream, offset in self._positions.items():
            batches = self._log.read(stream, offset, limit // len(self._positions))
            if batches:
                found += batches
                self._positions[stream] = batches[-1].end
        return found

    def _admit(self, batches: Sequence[Batch]) -> list[Admission]:
        admissions = []
        for batch in batches:
            admission = self._seen.admit(self._streams[batch.stream], batch.values)
            self._count(admission)
            admissions.append(admission)
        return admissions

    def _count(self, admission: Admission) -> None:
        times = [key.exchange_ts for key in admission.keys]
        self._first_ts = min(times) if not self._trades else min(self._first_ts, *times)
        self._last_ts = max(self._last_ts, *times) if self._trades else max(times)
        self._trades += len(times) - len(admission.dropped)
        self._joined += admission.joined
        if admission.dropped:
            DROPS.labels("trades", "loaded-before").inc(len(admission.dropped))

    def _pending(self) -> bool:
        return self._trades > 0 or any(self._log.bounds(s)[1] > offset for s, offset in self._flushed.items())

    # -- figures -------------------------------------------------------------------------------------------------------

    def positions(self) -> dict[str, int]:
        """Stream to the offset of the record that comes next: trades to be shown, all else to be committed."""
        return {**self._flushed, **self._positions}

    def measure(self) -> None:
        """Have lag, candle delay, tail and trouble shown with this process's metrics. Costs when somebody asks."""
        measure(self._log, "loader", self._all_streams, self.positions)
        measure_candles(self._log, self._streams, self.positions)
        QUEUE.labels("loader-tail").set_function(lambda: self._trades)
        QUEUE_BOUND.labels("loader-tail").set(TAIL_ROWS)
        for reason in ("unavailable", "refused"):
            INSERT_FAILURES.labels(reason)
        INSERT_FAILING.set_function(lambda: time.monotonic() - self._failing_since if self._failing_since else 0.0)

    def _note_failure(self, error: StoreError | LogError) -> None:
        STORE_ERRORS.labels("loader").inc()
        if isinstance(error, StoreError):
            INSERT_FAILURES.labels("unavailable" if isinstance(error, StoreUnavailable) else "refused").inc()
            self._failing_since = self._failing_since or time.monotonic()

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event, pause: Callable[[float], object] | None = None) -> None:
        """Load until `stop`, then flush. Raises SupersededError, LogReplacedError; any other error it survives."""
        try:
            self._run(stop, pause or stop.wait)
        finally:
            self._tail.close()

    def _run(self, stop: threading.Event, wait: Callable[[float], object]) -> None:
        failures = 0
        while not stop.is_set():
            try:
                self.take_over()
                failures = 0
                self._failing_since = 0.0
                self._follow(stop)
            except (StoreError, LogError) as caught:
                error = check_fence(caught) if isinstance(caught, StoreError) else caught
                if isinstance(error, SupersededError | LogReplacedError):
                    raise error from None
                failures += 1
                self._note_failure(error)
                logger.warning("loading stopped, trying again: %s", error, extra={"failures": failures})
                wait(min(0.1 * 2 ** min(failures, 6), LONGEST_WAIT))

    def _follow(self, stop: threading.Event) -> None:
        interval = self._config.interval_ms / 1000
        next_flush = time.monotonic() + self._config.flush_s
        next_replace = time.monotonic() + REPLACE_S
        flushing: Future[tuple[Written, float]] | None = None
        with ThreadPoolExecutor(1, "flush") as pool:
            while not stop.is_set():
                begun = time.monotonic()
                if self._trades < TAIL_ROWS:
                    self.load()
                if flushing and (flushing.done() or self._trades >= TAIL_ROWS):
                    _, took = flushing.result()
                    period = max(self._config.flush_s, min(took / FLUSH_SHARE, FLUSH_AT_LEAST_S))
                    next_flush = time.monotonic() + period - took
                    flushing = None
                now = time.monotonic()
                if not flushing and (now >= next_flush or self._trades >= TAIL_ROWS):
                    if self._pending():
                        flushing = pool.submit(self._timed_flush, self.seal())
                    else:
                        next_flush = now + self._config.flush_s
                crowded = self._tail.inserts >= REPLACE_INSERTS or self._tail.rows >= REPLACE_ROWS
                if now >= next_replace or crowded:
                    self.replace_tail()
                    next_replace = now + REPLACE_S
                self._latencies.hand_over(now)
                self._log.wait(self._positions, 0.1)
                time.sleep(max(0.0, begun + interval - time.monotonic()))
            if flushing:
                flushing.result()
            self.load()
            if self._pending():
                self.flush(self.seal(), settled=False)

    def _timed_flush(self, generation: Generation) -> tuple[Written, float]:
        begun = time.monotonic()
        return self.flush(generation, settled=False), time.monotonic() - begun


def _lines(batches: Sequence[Batch], admissions: Sequence[Admission], generation: int) -> bytes:
    return b"".join([lines(*both, generation) for both in zip(batches, admissions, strict=True)])
