"""The store as a process: one owner a folder, an orderly end, a violent end, a full disk."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.patience import PATIENCE_S
from tests.store.conftest import StoreProcess, start
from tests.store.wire import ask

from k2.config import load
from k2.store import StoreError, StoreUnavailable
from k2.store.embedded import EmbeddedStore, Engine
from k2.wire import open_store


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    first = start(tmp_path / "data")
    try:
        command = [sys.executable, "-m", "k2", "--data", str(tmp_path / "data"), "store", "--port", "0"]
        second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=tmp_path, check=False)
        assert second.returncode == 1
        assert f"already open in process {first.process.pid}" in second.stderr
        assert "--data" in second.stderr
    finally:
        assert first.stop() == 0


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    first = start(tmp_path / "data")
    try:
        command = [sys.executable, "-m", "k2", "--data", str(tmp_path / "other"), "store", "--port", str(first.port)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=tmp_path, check=False)
        assert second.returncode == 1
        assert f"127.0.0.1:{first.port}" in second.stderr
        assert "store.port" in second.stderr
    finally:
        first.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_statements_finish(tmp_path: Path, number: int) -> None:
    running = start(tmp_path / "data")
    bodies: list[bytes] = []
    slow = threading.Thread(target=lambda: bodies.append(ask(running.port, b"SELECT sleep(1.5)").body))
    slow.start()
    wait_running(running, "SELECT sleep%")
    running.process.send_signal(number)
    assert running.process.wait(PATIENCE_S) == 0
    slow.join()
    assert bodies == [b"0\n"]


def test_a_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    running = start(tmp_path / "data")
    codes: list[int] = []
    endless = b"SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 3"
    thread = threading.Thread(target=lambda: codes.append(ask(running.port, endless).code))
    thread.start()
    wait_running(running, "%sipHash64(number)%")
    assert running.stop() == 0
    thread.join(PATIENCE_S)
    assert codes == [394]


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    running = start(tmp_path / "data")
    client = running.client()
    client.execute("CREATE TABLE k2.kept (a UInt64) ENGINE = MergeTree ORDER BY a")
    acknowledged = 0
    killer = threading.Timer(0.3, running.kill)
    try:
        while True:
            client.insert("INSERT INTO k2.kept FORMAT JSONEachRow", b'{"a":%d}\n' % acknowledged)
            acknowledged += 1
            if acknowledged == 1:
                killer.start()
    except StoreUnavailable:
        killer.join()
    again = start(tmp_path / "data")
    (count,) = again.client().rows("SELECT count() FROM k2.kept WHERE a < {n:UInt64}", {"n": acknowledged})
    assert count == (acknowledged,)
    again.stop()


def test_no_store_is_said_so(tmp_path: Path) -> None:
    config = load(None, {}, data=str(tmp_path), store__port=1, store__password="secret")
    client = open_store(config)
    with pytest.raises(StoreUnavailable, match=r"http://127\.0\.0\.1:1 cannot be reached") as error:
        client.rows("SELECT 1")
    assert "secret" not in str(error.value) + repr(client)


def wait_running(store: StoreProcess, like: str) -> None:
    """Until a statement like this runs."""
    running = "SELECT query FROM system.processes WHERE query LIKE {what:String} AND query NOT LIKE '%processes%'"
    client = store.client()
    deadline = time.monotonic() + PATIENCE_S
    while not client.rows(running, {"what": like}):
        assert time.monotonic() < deadline, f"{like} does not run"
        time.sleep(0.01)
    client.close()


def test_passwords(tmp_path: Path) -> None:
    running = start(tmp_path / "data", K2_STORE_PASSWORD="p:w'd")
    assert running.client(password="p:w'd").rows("SELECT 1") == [(1,)]
    with pytest.raises(StoreError) as error:
        running.client(password="wrong").rows("SELECT 1")
    assert error.value.code == 516
    assert ask(running.port, b"SELECT 1", user="default", password="p:w'd").body == b"1\n"
    basic = {"Authorization": "Basic ZGVmYXVsdDpwOncnZA=="}
    assert ask(running.port, b"SELECT 1", headers=basic).body == b"1\n"
    assert ask(running.port, b"SELECT 1", headers={"Authorization": "Bearer x"}).code == 516
    assert ask(running.port, b"SELECT 1").code == 516
    running.stop()


def test_a_folder_is_left_as_a_store_can_reopen_it(tmp_path: Path) -> None:
    for expected in ([], [(1,)]):
        engine = Engine(tmp_path / "store")
        store = EmbeddedStore(engine)
        store.execute("CREATE TABLE IF NOT EXISTS kept (a UInt8) ENGINE = MergeTree ORDER BY a")
        assert store.rows("SELECT a FROM kept") == expected
        store.insert("INSERT INTO kept FORMAT TSV", b"1\n")
        store.close()
        engine.close()
