"""Logs of every backend, and writers in processes of their own."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k2.log import Log
from k2.log.lmdb import LmdbLog
from k2.log.memory import MemoryLog

MAP_BYTES = 1 << 30

WRITER = """
import sys
from pathlib import Path
from k2.log import Entry
from k2.log.lmdb import LmdbLog
folder, stream, records, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
log = LmdbLog(folder, 1 << 30)
n = log.bounds(stream)[1]
while True:
    values = [b"%016d" % (n + i) + b"." * size for i in range(records)]
    frames = [value[::-1] for value in values]
    offsets = log.append([Entry(stream + ".raw", [""] * records, frames), Entry(stream, ["K"] * records, values)])
    assert offsets[stream] == n, (offsets, n)
    n += records
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
"""


@pytest.fixture(params=["lmdb", "memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    backend: Log = LmdbLog(tmp_path / "log", MAP_BYTES) if request.param == "lmdb" else MemoryLog()
    yield backend
    backend.close()


@pytest.fixture
def lmdb_log(tmp_path: Path) -> Iterator[LmdbLog]:
    backend = LmdbLog(tmp_path / "log", MAP_BYTES)
    yield backend
    backend.close()


@pytest.fixture
def writer() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that appends to a stream and its frames for ever, and prints the end after each append."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path, stream: str = "a.b", records: int = 3, size: int = 200) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, str(folder), stream, str(records), str(size)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run_python() -> Callable[..., dict[str, object]]:
    """Run a script in a process of its own; its last line of output is JSON."""

    def run(script: str, *args: object) -> dict[str, object]:
        command = [sys.executable, "-c", script, *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return answer

    return run
