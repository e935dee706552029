"""The log between processes: nobody is in another's way, everybody hears of a commit, and a kill takes nothing."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from k2.log import Entry, Position
from k2.log.lmdb import LmdbLog

Start = Callable[..., subprocess.Popen[str]]
Run = Callable[..., dict[str, object]]


def one(values: list[bytes], stream: str = "a.b") -> list[Entry]:
    return [Entry(stream, ["K"] * len(values), values)]


def kill_while_writing(writer: Start, folder: Path, seconds: float) -> int:
    """Let a writer run for a while after its first append and kill it; the last end that it acknowledged."""
    process = writer(folder)
    assert process.stdout is not None
    acknowledged = int(process.stdout.readline())
    time.sleep(seconds)
    process.kill()
    rest = process.communicate()[0].splitlines(keepends=True)
    return int(next((line for line in reversed(rest) if line.endswith("\n")), acknowledged))


def require_everything(folder: Path, acknowledged: int) -> None:
    log = LmdbLog(folder, 1 << 30)
    try:
        end = log.check("a.b")
        assert end >= acknowledged
        assert log.check("a.b.raw") == end, "frames and trades commit together"
        offset = 0
        while offset < end:
            for batch in log.read("a.b", offset):
                assert [int(value[:16]) for value in batch.values] == list(range(offset, batch.end))
                offset = batch.end
    finally:
        log.close()


def test_whatever_moment_a_writer_is_killed_all_it_acknowledged_is_there(tmp_path: Path, writer: Start) -> None:
    chance = random.Random(1)
    for _ in range(10):
        require_everything(tmp_path, kill_while_writing(writer, tmp_path, chance.random() * 0.03))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_a_hundred_times(tmp_path: Path, writer: Start) -> None:
    chance = random.Random(2)
    for _ in range(100):
        require_everything(tmp_path, kill_while_writing(writer, tmp_path, chance.random() * 0.2))


def test_a_reader_makes_nothing_and_sees_a_stream_appear_that_another_process_makes(
    tmp_path: Path, writer: Start
) -> None:
    log = LmdbLog(tmp_path / "log", 1 << 30)
    assert log.bounds("a.b") == (0, 0)
    assert not log.wait({"a.b": 0}, 0.01)
    assert list(tmp_path.iterdir()) == []
    writer(tmp_path / "log")
    assert log.wait({"a.b": 0}, 30)
    assert log.read("a.b", 0)[0].values[0].startswith(b"0000")
    log.close()


ONLY_THE_BELL = """
import json, sys
from pathlib import Path
from k2.log import doorbell
from k2.log.lmdb import LmdbLog
doorbell.SLOW_POLL = 1e6
log = LmdbLog(Path(sys.argv[1]), 1 << 30)
woken = []
for _ in range(3):
    end = log.bounds("a.b")[1]
    print("listening", flush=True)
    woken.append(log.wait({"a.b": end}, 60))
print(json.dumps(woken), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("depth", [1, 6], ids=["short path", "longer than a socket's name may be"])
def test_a_commit_wakes_other_processes_by_the_bell_alone(tmp_path: Path, depth: int) -> None:
    folder = tmp_path.joinpath(*["deep" * 6] * depth)
    log = LmdbLog(folder, 1 << 30)
    log.append(one([b"first"]))
    command = [os.sys.executable, "-c", ONLY_THE_BELL, str(folder)]  # type: ignore[attr-defined]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(3):
        assert child.stdout.readline() == "listening\n"
        time.sleep(0.2)
        log.append(one([b"ring"]))
    assert json.loads(child.stdout.readline()) == [True] * 3
    (bell,) = (folder / "a.b" / "bell").iterdir()
    child.kill()
    child.communicate()
    log.append(one([b"nobody listens"]))
    assert not bell.exists(), "the socket of a dead process is removed"
    log.close()


def test_two_processes_may_append_to_one_stream(tmp_path: Path, run_python: Run) -> None:
    script = """
import json, sys
from pathlib import Path
from k2.log import Entry
from k2.log.lmdb import LmdbLog
log = LmdbLog(Path(sys.argv[1]), 1 << 30)
print(json.dumps([log.append([Entry("gaps", [""], [b"child"])])["gaps"] for _ in range(3)]))
"""
    log = LmdbLog(tmp_path, 1 << 30)
    assert log.append(one([b"own"], "gaps")) == {"gaps": 0}
    assert run_python(script, tmp_path) == [1, 2, 3]
    assert log.append(one([b"own"], "gaps")) == {"gaps": 4}
    assert log.check("gaps") == 5
    log.close()


def test_positions_outlive_the_process_that_committed_them(tmp_path: Path, run_python: Run) -> None:
    script = """
import json, os, signal, sys
from pathlib import Path
from k2.log import Position
from k2.log.lmdb import LmdbLog
log = LmdbLog(Path(sys.argv[1]), 1 << 30)
log.commit("loader", {"a.b": Position(7, b"state")})
print("{}", flush=True)
"""
    run_python(script, tmp_path)
    log = LmdbLog(tmp_path, 1 << 30)
    assert log.committed("loader") == {"a.b": Position(7, b"state")}
    log.close()


STUCK_READER = """
import sys, time
from pathlib import Path
from k2.log.lmdb import LmdbLog
log = LmdbLog(Path(sys.argv[1]), 1 << 30)
pair, _ = log._pair("a.b")
txn = pair.acquire().env.begin()
print("reading", flush=True)
time.sleep(600)
"""


def test_pages_of_dropped_records_are_used_again_also_after_a_reader_was_killed(tmp_path: Path) -> None:
    log = LmdbLog(tmp_path, 1 << 30)
    log.append(one([b"x" * 50_000]))
    command = [os.sys.executable, "-c", STUCK_READER, str(tmp_path)]  # type: ignore[attr-defined]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "reading\n"
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    for _ in range(300):
        log.append(one([b"x" * 50_000]))
        log.retain("a.b", None, 200_000, time.time_ns())
    assert (tmp_path / "a.b" / "data.mdb").stat().st_size < 3_000_000
    assert log.check("a.b") == 301
    log.close()
