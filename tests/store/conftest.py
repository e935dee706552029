"""A real store process for the tests of this folder: `k2 store` on a free port, in a folder of its own."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.patience import PATIENCE_S

from k2.store.clickhouse import ClickHouseStore

READER_PASSWORD = "look-only"


@dataclass
class StoreProcess:
    """A running `k2 store`."""

    process: subprocess.Popen[str]
    port: int
    data: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, user: str = "default", password: str = "", **more: str) -> ClickHouseStore:
        return ClickHouseStore(self.url, user, password, **more)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)


def start(data: Path, port: int = 0, **settings: str) -> StoreProcess:
    """Start a store over `data`; returns once it listens."""
    environ = {
        "PATH": "/usr/bin:/bin",
        "K2_METRICS_PORT": "0",
        "K2_STORE_READONLY_PASSWORD": READER_PASSWORD,
        **settings,
    }
    command = [sys.executable, "-m", "k2", "--data", str(data), "store", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ, cwd=data.parent)
    assert process.stderr is not None
    said = []
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        line = process.stderr.readline()
        said.append(line)
        if match := re.search(r"listening on http://[^:]+:(\d+)", line):
            return StoreProcess(process, int(match[1]), data)
        if not line and process.poll() is not None:
            break
    process.kill()
    raise AssertionError(f"the store did not start: {''.join(said)}")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    """One store for all tests of a worker: every test makes databases or tables of its own."""
    running = start(tmp_path_factory.mktemp("store") / "data")
    yield running
    assert running.stop() == 0


@pytest.fixture
def client(store: StoreProcess) -> Iterator[ClickHouseStore]:
    connection = store.client()
    yield connection
    connection.close()


@pytest.fixture
def table(client: ClickHouseStore, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a table that does not exist yet, dropped afterwards."""
    name = "k2." + re.sub(r"\W", "_", request.node.name)[:60]
    client.execute(f"DROP TABLE IF EXISTS {name}")
    yield name
    client.execute(f"DROP TABLE IF EXISTS {name}")
