"""A data folder that nothing runs on: read without changing it, shared, left to a platform that starts."""

import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.patience import PATIENCE_S
from tests.store.conftest import start
from tests.store.history import PER_DAY, START, History, trade

import k2
from k2 import local
from k2.cli import main
from k2.client import AccessDenied, Client, InvalidQuestion, K2Error, Unavailable
from k2.commands import run
from k2.config import Config
from k2.metrics import read_status

LEFT = range(1, 3 * PER_DAY + 1)  # ids that were committed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a platform that was killed: two days hot, one handed over to cold, some trades not committed yet."""
    data = tmp_path_factory.mktemp("folder") / "data"
    running = start(data)
    history = History(data, running)
    history.put_days(0, 3)
    history.load()
    history.show()
    history.expire(1)
    history.expire(1)  # what was handed over is deleted the next time
    history.put(*(trade(number) for number in range(3 * PER_DAY + 1, 3 * PER_DAY + 8)))
    history.loader.load()
    assert len(history.ids()) == 3 * PER_DAY + 7
    running.kill()
    history.close()
    return data


@pytest.fixture
def opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Client]]:
    """Opens clients of the folder, with the present in its own time."""
    monkeypatch.chdir(folder.parent)
    clients: list[Client] = []

    def connect() -> Client:
        clients.append(k2.connect(data=folder))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def contents(folder: Path) -> dict[str, str]:
    """All files but those that say who has it open."""
    own = {folder / "run" / "reader.json", folder / "store" / "k2.lock", folder / "store" / "status"}
    return {str(p): hashlib.md5(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file() and p not in own}


def test_it_answers_what_was_committed_and_changes_nothing(folder: Path, opened: Callable[[], Client]) -> None:
    before = contents(folder)
    client = opened()
    assert client.trades().to_arrow()["trade_id"].to_pylist() == list(LEFT)
    assert client.sql("SELECT count() AS n FROM silver_trades").to_pylist() == [{"n": 2 * PER_DAY}]
    days = client.candles(interval="1d").to_pylist()
    assert [day["trade_count"] for day in days] == [PER_DAY] * 3
    minutes = client.candles(start=START, end=START + 3_600_000_000_000).to_pylist()
    assert sum(minute["trade_count"] for minute in minutes) == PER_DAY
    assert len(client.trades(as_of=time.time_ns())) == 3 * PER_DAY
    with pytest.raises(InvalidQuestion, match="no snapshot is as old"):
        client.trades(as_of="2020-01-01T00:00:00Z")
    with pytest.raises(AccessDenied):
        client.sql("INSERT INTO k2.silver_base SELECT * FROM k2.silver_base")
    run._refuse_second(Config(data=str(folder)))  # what `k2 up` does first sends our store away
    assert not read_status(folder / "run")
    assert contents(folder) == before


@pytest.mark.slow
def test_clients_share_it_and_begin_it_again(
    folder: Path, opened: Callable[[], Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = opened(), opened()
    assert len(first.trades(limit=5)) == len(second.trades(limit=5)) == 5
    first.close()  # the store was its own
    assert len(second.trades(limit=5)) == 5
    os.kill(int(read_status(folder / "run")["reader"]["pid"]), signal.SIGKILL)
    assert len(second.trades(limit=5)) == 5
    monkeypatch.setattr(local, "IDLE_S", 0.1)
    end = time.monotonic() + PATIENCE_S
    while read_status(folder / "run"):
        assert time.monotonic() < end, "it holds the folder though nobody asks"
        time.sleep(0.02)
    assert len(second.trades(limit=5)) == 5


def test_a_running_store_is_used_and_never_pushed_aside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(local, "FOUND_WITHIN", 0.0)
    running = start(folder)
    client = k2.connect(data=folder)
    assert list(read_status(folder / "run")) == ["store"]
    with pytest.raises(AccessDenied, match="readonly_password"):
        client.trades()  # the tests' store has a password that is configured nowhere
    client.close()
    word = folder / "run" / "store.json"
    word.rename(word.with_suffix(".gone"))  # nobody knows where it answers
    with pytest.raises(Unavailable, match=f"already open in process {running.process.pid}"):
        k2.connect(data=folder)
    assert running.stop() == 0


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(K2Error, match="k2 demo"):
        k2.connect(data=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    told = CliRunner().invoke(main, ["--data", str(tmp_path / "none"), "store", "--read-only"])
    assert (told.exit_code, "holds no store" in told.output) == (1, True)
    assert not (tmp_path / "none").exists()
    with pytest.raises(K2Error, match="give one of them"):
        k2.connect("http://127.0.0.1:1", data=tmp_path)
