"""Following the log in the event loop: whoever holds a stream's writer lock holds up nobody but that stream."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k2.log import Entry, LogError
from k2.log.lmdb import LmdbLog
from k2.web.stream.chunk import Chunk
from k2.web.stream.follower import Follower, News, Skipped

A, B = "market.crypto.trades.a", "market.crypto.trades.b"
HOLDER = """
import sys, lmdb
env = lmdb.open(sys.argv[1], map_size=1 << 30, max_dbs=2, lib_version=0)
with env.begin(write=True):
    print("held", flush=True)
    sys.stdin.read()
"""


class Taken:
    """What a follower hands over."""

    def __init__(self, log: LmdbLog, **positions: int) -> None:
        self.values: list[bytes] = []
        self.skipped: list[Skipped] = []
        self.errors: list[LogError] = []
        names = {"a": A, "b": B}
        at = {names[name]: offset for name, offset in positions.items()}
        self.follower = Follower(log, at, 1 << 16, (0.0, 0.0), self.take, self.errors.append)

    def take(self, news: News) -> None:
        for item in news:
            if isinstance(item, Chunk):
                self.values += item.values
            else:
                self.skipped.append(item)

    async def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline, (self.values, self.skipped, self.errors)
            await asyncio.sleep(0.002)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LmdbLog]:
    backend = LmdbLog(tmp_path / "log", 1 << 30)
    yield backend
    backend.close()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that stands in the middle of a write to A, until its input is closed."""
    (tmp_path / "log").mkdir()
    other = LmdbLog(tmp_path / "log", 1 << 30)
    other.append([Entry(A, [""], [b"a0"])])
    other.close()
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "log" / A)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait(20)
    process.stdout.close()


def put(log: LmdbLog, stream: str, *values: bytes) -> None:
    log.append([Entry(stream, [""] * len(values), values)])


def test_a_writer_that_stands_in_the_middle_holds_up_its_own_stream_alone(
    log: LmdbLog, holder: subprocess.Popen[str]
) -> None:
    async def run() -> None:
        taken = Taken(log, a=0, b=0)
        taken.follower.start()  # to open A may be to wait for its writer: that is a thread's
        for number in range(5):
            await asyncio.to_thread(put, log, B, b"b%d" % number)
            await taken.until(lambda number=number: b"b%d" % number in taken.values)  # type: ignore[misc]
        assert holder.stdin is not None
        holder.stdin.close()
        await taken.until(lambda: b"a0" in taken.values)
        await asyncio.to_thread(put, log, A, b"a1")
        await taken.until(lambda: b"a1" in taken.values)
        taken.follower.stop()
        assert [value for value in taken.values if value[:1] == b"a"] == [b"a0", b"a1"]
        assert [value for value in taken.values if value[:1] == b"b"] == [b"b%d" % n for n in range(5)]

    asyncio.run(run())


def test_a_stream_that_begins_later_and_one_that_is_larger_than_a_read(log: LmdbLog) -> None:
    async def run() -> None:
        taken = Taken(log, a=0, b=0)
        taken.follower.start()
        records = [b"%04d" % number + b"." * 1000 for number in range(8000)]  # eight blocks
        await asyncio.to_thread(put, log, A, *records)
        await taken.until(lambda: len(taken.values) == 8000)
        assert taken.values == records
        taken.follower.stop()

    asyncio.run(run())


def test_what_was_dropped_is_told_and_what_cannot_be_ends_it(log: LmdbLog) -> None:
    async def run() -> None:
        for number in range(3):
            put(log, A, b"a%d" % number)
        log.retain(A, None, 0, time.time_ns())
        taken = Taken(log, a=1)
        taken.follower.start()
        await taken.until(lambda: bool(taken.skipped))
        assert taken.skipped == [Skipped(A, 3)]
        put(log, A, b"a3")
        await taken.until(lambda: taken.values == [b"a3"])
        taken.follower.stop()
        beyond = Taken(log, a=99)
        beyond.follower.start()
        await beyond.until(lambda: bool(beyond.errors))
        assert "99" in str(beyond.errors[0])

    asyncio.run(run())
