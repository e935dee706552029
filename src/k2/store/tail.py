"""The live tail: where trades are visible some milliseconds after they are in the log, until a commit holds them.

An INSERT costs milliseconds of processor time, however small. So few trades go into a file that the store reads with
every question (`fresh.py`), and some hundred milliseconds of them at a time, a chunk, into a Memory table. Many at once
go there directly, and so do all where the store's file cannot be written from here.

A chunk goes there in a thread of its own, so that the next trades do not wait for the INSERT; they are in the file
behind it, and shown from there until it has ended.

A Memory table copies its list of blocks on every insert, so it is replaced now and then by one without the generations
that have long been committed. Replacing is atomic and, unlike TRUNCATE, does not wait for readers.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as all_done
from typing import NamedTuple

from k2.log import Batch
from k2.store import Store
from k2.store.commit import fence
from k2.store.fresh import TABLE as FRESH
from k2.store.fresh import Fresh, open_fresh
from k2.store.seen import Admission

TAIL = "k2.silver_tail"
RECENT = "k2.silver_recent"
STAGE = "k2.silver_stage"

_SHOWN = (  # the condition of the view `silver_tail`
    f"generation > (SELECT max(generation) FROM {RECENT})"
    f" AND bitShiftRight(generation, 20) = bitShiftRight((SELECT max(generation) FROM {RECENT}), 20)"
)
RUN = 1 << 20  # generations; a chunk that goes past the file begins a run: see the view `silver_tail`
CHUNK_S = 0.5
CHUNK_ROWS = 1_000
CROWD_ROWS = 4_000  # in the file behind a chunk on its way: at this bound `put` waits for the store
MANY = 64  # trades at once that are worth an INSERT of their own
KEEP_S = 1.0  # a chunk stays in the file so long after it went into memory: for questions that began before ...
KEEP_LONG_S = 5.0  # ... and up to so long where the file has few rows, for a machine that stalls
KEEP_ROWS = 500
_LEFT = b'{"side":"left","trade_id":%d,"generation":0}\n'  # the file's first line: what is no longer in it


class Kept(NamedTuple):
    """Lines that are in the file and in memory, since when, and the newest generation among them."""

    since: float
    generation: int
    lines: bytes


class Tail:
    """What the loader puts there. Every trade carries a generation, which counts chunks.

    `inserts` and `rows` tell how much went into the Memory table since it was last replaced. The store's connection
    belongs to the tail between `take_over` and `close`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._fresh: Fresh | None = None
        self._side: ThreadPoolExecutor | None = None
        self._under_way: deque[tuple[Future[None], Callable[[], None]]] = deque()  # statements, and what follows each
        self._begin(0)

    def _begin(self, number: int) -> None:
        self._number = number
        self._first = True  # the first chunk goes past the file: from then on memory tells the run
        self.inserts = 0
        self.rows = 0
        self._chunk: list[bytes] = []  # in the file, and not on the way to memory yet
        self._chunk_rows = 0
        self._chunk_since = 0.0
        self._kept: deque[Kept] = deque()
        self._kept_rows = 0
        self._left = 0  # the newest generation that was taken out of the file

    def take_over(self, number: int) -> None:
        """Go on from generation `number`; what is shown stays so. Raises StoreError.

        The chunks that the loader before left in the file go into memory first, as any chunk does before its commit:
        the first chunk from here begins a run, which hides the file from questions that know of no commit yet.
        """
        self.close()
        self._begin(number)
        self._fresh = open_fresh(self._store)
        self._side = ThreadPoolExecutor(1, "tail")
        self._store.execute(f"INSERT INTO {RECENT} SELECT * FROM {FRESH} WHERE {_SHOWN}")

    def committed(self) -> None:
        """All that is in the file was committed; it leaves the file like a chunk that went into memory."""
        if self._fresh:
            self._keep(self._number - 1, self._fresh.content())

    def number(self, rows: int = 0) -> int:
        """The generation that so many trades, put next and at once, must carry."""
        if rows and self._goes_past(rows):
            self._number = (self._number // RUN + 1) * RUN
        return self._number

    def _goes_past(self, rows: int) -> bool:
        return self._first or self._fresh is None or rows >= MANY

    def put(self, lines: bytes, rows: int) -> None:
        """Make trades visible: JSON lines with the generation `number(rows)`. Raises StoreError, also for an earlier
        chunk; all since the last commit has to come again then, after `take_over`."""
        self._follow_up()
        if self._fresh is None or self._goes_past(rows):
            self._end_chunk(lines, rows)
            return
        now = time.monotonic()
        if not self._chunk:
            self._chunk_since = now
        self._fresh.append(lines)
        self._chunk.append(lines)
        self._chunk_rows += rows
        if self._chunk_rows >= CROWD_ROWS:
            self._follow_up(wait=True)
        if not self._under_way and (now - self._chunk_since >= CHUNK_S or self._chunk_rows >= CHUNK_ROWS):
            self._send_chunk()

    def seal(self) -> int:
        """Move everything into memory; returns the generation up to which it is there. Raises StoreError."""
        self._end_chunk()
        return self._number - 1

    def _send_chunk(self) -> None:
        """Begin the chunk's way into memory, and the next chunk."""
        number = self._number
        in_file, rows = self._take_chunk()
        self._number += 1
        self._later(lambda: insert(self._store, RECENT, in_file), lambda: self._arrived(number, in_file, rows))

    def _end_chunk(self, more: bytes = b"", rows: int = 0) -> None:
        """Put the chunk and these lines into memory, after all that is on the way there."""
        self._follow_up(wait=True)
        in_file, chunk_rows = self._take_chunk()
        if in_file or more:
            insert(self._store, RECENT, in_file + more)
        self._number += 1
        self._arrived(self._number - 1, in_file, chunk_rows + rows)

    def _take_chunk(self) -> tuple[bytes, int]:
        taken = b"".join(self._chunk), self._chunk_rows
        self._chunk.clear()
        self._chunk_rows = 0
        return taken

    def _arrived(self, number: int, in_file: bytes, rows: int) -> None:
        """A chunk is in memory: what has been long enough in both leaves the file."""
        if rows:
            self._first = False
            self.inserts += 1
            self.rows += rows
        if in_file:
            self._keep(number, in_file)
        if (self._let_go() or in_file) and self._fresh:
            kept = [kept.lines for kept in self._kept]
            self._fresh.begin_anew(b"".join([_LEFT % self._left, *kept, *self._chunk]))

    def _later(self, statement: Callable[[], None], then: Callable[[], None]) -> None:
        assert self._side
        self._under_way.append((self._side.submit(statement), then))

    def _follow_up(self, wait: bool = False) -> None:
        """Do what follows the statements that have ended; `wait`: until all have."""
        while self._under_way and (wait or self._under_way[0][0].done()):
            ended, then = self._under_way.popleft()
            ended.result()
            then()

    def _keep(self, number: int, in_file: bytes) -> None:
        self._kept.append(Kept(time.monotonic(), number, in_file))
        self._kept_rows += in_file.count(b"\n")

    def _let_go(self) -> bool:
        before = len(self._kept)
        now = time.monotonic()
        while self._kept and now - self._kept[0].since >= (KEEP_S if self._kept_rows > KEEP_ROWS else KEEP_LONG_S):
            _, self._left, lines = self._kept.popleft()
            self._kept_rows -= lines.count(b"\n")
        return len(self._kept) < before

    def drop(self, generation: int, incarnation: int) -> None:
        """Forget the generations up to this one, which were committed a while ago, but for the newest of all: soon, in
        the order of what goes into memory. What the store has against it, the next `put` says."""
        last = f"least({generation}, (SELECT max(generation) FROM {RECENT}) - 1)"
        self._later(lambda: keep_after(self._store, RECENT, last, incarnation), lambda: None)
        self.inserts = self.rows = 0

    def close(self) -> None:
        """Let statements under way end, and release the file. Idempotent."""
        all_done([ended for ended, _ in self._under_way])
        self._under_way.clear()
        if self._side:
            self._side.shutdown()
            self._side = None
        if self._fresh:
            self._fresh.close()
            self._fresh = None


def lines(batch: Batch, admission: Admission, generation: int) -> bytes:
    """The admitted records as JSON lines: as they are in the log, with generation (and `apart`) put in at the end."""
    values: Sequence[bytes] = batch.values
    end = b',"generation":%d}\n' % generation
    if not admission.dropped and not admission.apart:
        return b"".join([value[:-1] + end for value in values])
    dropped, apart = set(admission.dropped), set(admission.apart)
    apart_end = b',"apart":1' + end
    return b"".join(
        [value[:-1] + (apart_end if i in apart else end) for i, value in enumerate(values) if i not in dropped]
    )


def insert(store: Store, table: str, body: bytes) -> None:
    """Put JSON lines into a table of the tail's kind. The text never changes, so that the store parses it once."""
    store.insert(f"INSERT INTO {table} FORMAT JSONEachRow", body)


def keep_after(store: Store, table: str, generation: int | str, incarnation: int) -> None:
    """Replace a Memory table by one that holds only the generations past `generation`."""
    store.execute(
        f"CREATE OR REPLACE TABLE {table} ENGINE = Memory AS SELECT * FROM {table}"
        f" WHERE generation > {generation} AND {fence(incarnation)}"
    )
