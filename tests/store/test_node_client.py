"""npm's @clickhouse/client against a real store process: what its users do must work unchanged.

The package is installed once, as tests/store/node/package-lock.json has it, into a folder beside other temporary files.
"""

import fcntl
import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.store.conftest import READER_PASSWORD, StoreProcess

HERE = Path(__file__).parent / "node"
OLDEST = 20
GET = "get Node.js 20 or newer with npm: `sudo apt-get install nodejs npm` (Debian), `brew install node` (macOS)"


def package() -> Path:
    """The folder in which the package is installed."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip(f"npm's @clickhouse/client was NOT tested, for there is no Node.js: {GET}")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < OLDEST:
        pytest.skip(f"npm's @clickhouse/client was NOT tested, for Node.js is {version.strip()}: {GET}")
    lock = (HERE / "package-lock.json").read_bytes()
    folder = Path(tempfile.gettempdir()) / f"k2-node-{hashlib.sha256(lock).hexdigest()[:12]}"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # one worker installs, the others wait
        if not (folder / "installed").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, folder)
            command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
            assert done.returncode == 0, f"`npm ci` in {folder}: {done.stderr}"
            (folder / "installed").touch()
    return folder


@pytest.fixture(scope="module")
def told(store: StoreProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What came of everything that node/ask.mjs does."""
    folder = tmp_path_factory.mktemp("node")
    (folder / "node_modules").symlink_to(package() / "node_modules")
    shutil.copy(HERE / "ask.mjs", folder)
    command = ["node", "ask.mjs", store.url, READER_PASSWORD, "k2.from_node"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    yield json.loads(done.stdout)
    client = store.client()
    client.execute("DROP TABLE k2.from_node")
    client.close()


def test_ping_and_select(told: dict[str, Any]) -> None:
    assert told["ping"] == {"success": True}
    assert told["select"]["data"] == [{"n": n, "t": str(n)} for n in range(3)]
    assert told["select"]["rows"] == 3
    assert told["raw"] == "1,2\n"


def test_parameters(told: dict[str, Any]) -> None:
    (row,) = told["params"]
    assert row == {
        "text": "it's\ta\\b\n'",
        "ids": [1, 2],
        "price": 1.5,
        "at": "2026-01-02 03:04:05.678",
        "none": None,
    }


def test_inserts_of_values_and_streams(told: dict[str, Any]) -> None:
    assert told["insert"] is True
    assert told["inserted"] == [
        {"id": 1, "symbol": "BTC-USD", "price": "105944.200000000000000001", "tags": ["a", "b'"]},
        {"id": 2, "symbol": "ETH-USD", "price": "0.1", "tags": []},
        {"id": 3, "symbol": "BTC-USD", "price": "1.25", "tags": ["x"]},
        {"id": 4, "symbol": "BTC-USD", "price": "2.5", "tags": []},
    ]
    (counted,) = told["counted"]
    assert {name: int(value) for name, value in counted.items()} == {"n": 20_004, "ids": 20_004 * 20_005 // 2}
    assert told["summary"] == 1


def test_streams_of_rows(told: dict[str, Any]) -> None:
    assert told["streamed"]["rows"] == 100_000
    assert told["streamed"]["sum"] == 100_000 * 99_999 // 2
    assert told["streamed"]["chunks"] > 1


def test_compression_sessions_and_settings(told: dict[str, Any]) -> None:
    assert told["packed"]["data"] == [{"id": 30_000}]
    assert told["session"] == [{"n": 7}]
    assert str(told["settings"][0]["wide"])[:6] in ("184467", "1.8446")  # a number now; JavaScript rounds it


def test_errors_are_clickhouse_errors(told: dict[str, Any]) -> None:
    assert told["wrong"] == {"code": "47", "type": "UNKNOWN_IDENTIFIER"}
    assert told["late"] == {"code": "395", "type": "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"}
    assert told["aborted"] == "aborted"


def test_a_reader_reads_and_does_not_write(told: dict[str, Any]) -> None:
    assert len(told["reads"]) == 1
    assert told["writes"] == {"code": "164", "type": "READONLY"}
    assert told["password"] == {"code": "516", "type": "AUTHENTICATION_FAILED"}
