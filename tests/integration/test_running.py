"""The command as a person runs it: `k2 demo` and `k2 up`, and what the other verbs say beside them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from tests.patience import PATIENCE_S

from k2.cli import main
from k2.config import EXCHANGES

ASK = ("status", "check", "streams", "tail", "trades", "candles", "gaps", "sql", "replay", "verify")


class Person:
    """Runs `k2` on one data folder with ports of its own. What is still running in the end is killed."""

    def __init__(self, data: Path, ports: list[int]) -> None:
        self.data = data
        store, ws, rest, web = ports
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith("K2_")} | {
            "K2_STORE_PORT": str(store), "K2_SIM_WS_PORT": str(ws), "K2_SIM_REST_PORT": str(rest),
            "K2_METRICS_PORT": "0", "K2_WEB_PORT": str(web), "K2_TIER_EVERY_S": "0", "COLUMNS": "120",
        }  # fmt: skip
        self.started: list[subprocess.Popen[bytes]] = []

    def k2(self, *words: str, within: float = 60.0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "k2", "--data", str(self.data), *words]
        return subprocess.run(
            command,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=within,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def here(self, *words: str) -> subprocess.CompletedProcess[str]:
        """As `k2`, in this process: most of a short verb's time is its start."""
        own = {name: value for name, value in self.environ.items() if name.startswith("K2_") or name == "COLUMNS"}
        command = ["--data", str(self.data), *words]
        done = CliRunner().invoke(main, command, env=own)
        if done.exc_info and not isinstance(done.exception, SystemExit | None):
            raise done.exception
        return subprocess.CompletedProcess(command, done.exit_code, done.stdout, done.stderr)

    def start(self, *words: str) -> "Running":
        said = self.data.parent / f"said{len(self.started)}"
        with said.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "k2", "--data", str(self.data), *words],
                env=self.environ, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self.started.append(process)
        return Running(process, said)

    def children(self) -> list[psutil.Process]:
        """Processes of services of this data folder, whoever their parent is."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("K2_DATA") == str(self.data) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()
        for child in self.children():
            child.kill()


class Running:
    """A `k2 demo` or `k2 up` that was started."""

    def __init__(self, process: "subprocess.Popen[bytes]", said: Path) -> None:
        self.process = process
        self._said = said

    @property
    def said(self) -> str:
        return self._said.read_text(errors="replace")

    def wait_said(self, words: str, within: float = PATIENCE_S) -> str:
        deadline = time.monotonic() + within
        while words not in self.said:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.said}"
            assert time.monotonic() < deadline, f"{words!r} was not said within {within:.0f} s:\n{self.said}"
            time.sleep(0.05)
        return self.said

    def signal(self, number: int) -> None:
        """Send a signal, and wait for the end."""
        self.process.send_signal(number)
        self.process.wait(PATIENCE_S)


@pytest.fixture
def person(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> Iterator[Person]:
    one = Person(tmp_path / "data", free_ports(4))
    yield one
    one.close()


@pytest.mark.timeout(300)  # some thirty commands
def test_every_verb_beside_a_running_demo(person: Person, free_ports: Callable[[int], list[int]]) -> None:
    demo = person.start("demo", "--rate", "120")
    demo.wait_said("first candle after")
    try:
        check_verbs(person)
        second = person.k2("up")
        assert second.returncode == 1
        assert "another supervisor runs on this data folder" in second.stderr
        taken = Person(person.data.parent / "other", [int(person.environ["K2_STORE_PORT"]), *free_ports(3)])
        refused = taken.k2("demo")
        assert refused.returncode == 1
        assert f"{person.environ['K2_STORE_PORT']} cannot be listened on" in refused.stderr
        assert "K2_STORE_PORT" in refused.stderr
    finally:
        demo.signal(signal.SIGINT)
    assert demo.process.returncode == 0, demo.said
    assert "had to kill" not in demo.said
    assert person.children() == []


def check_verbs(person: Person) -> None:
    wait_for_trades(person)
    status = json.loads(good(person.here("status", "--json")))
    assert {venue["exchange"] for venue in status["venues"]} == set(EXCHANGES)
    assert all(venue["connected"] for venue in status["venues"])
    assert {p["service"] for p in status["processes"]} >= {"store", "loader", "sim", "feed-handler-kraken"}
    assert "binance" in good(person.k2("status"))

    check = json.loads(good(person.here("check", "--offline", "--json")))
    found = {f["part"]: f["ok"] for f in check["findings"]}
    assert found.pop("cold tier") is not False
    assert found.pop("web") is not None, "it answers; a busy machine may be a little behind"
    assert found == dict.fromkeys(("data folder", "instruments", "log", "store"), True)

    lines = json_lines(good(person.here("streams", "--json")))
    assert any(line["stream"] == "market.crypto.trades.kraken" for line in lines)
    assert "market.crypto.trades.kraken.raw" in good(person.here("streams", "--once"))

    trade = json_lines(good(person.here("tail", "binance", "-n", "3", "--json")))
    assert len(trade) == 3
    assert good(person.here("tail", "coinbase.raw", "-n", "2")).strip()

    listed = json_lines(good(person.here("trades", "binance:BTC-USDT", "-n", "5", "--json")))
    assert len(listed) == 5
    assert all(isinstance(one["price"], str) for one in listed), "prices are exact text in JSON"
    assert len(good(person.k2("trades", "binance:BTC-USDT", "-n", "5")).splitlines()) == 6, "a header and five lines"
    assert json_lines(good(person.here("candles", "BTC-USDT", "--interval", "5m", "--json")))
    assert "open" in good(person.here("candles", "BTC-USDT")).splitlines()[0]
    assert {gap["state"] for gap in json_lines(good(person.here("gaps", "--json")))} >= {"start"}

    count = good(person.here("sql", "SELECT count() FROM k2.silver_trades"))
    assert int(count.split()[1]) > 0
    wrong = person.here("sql", "SELECT nonsense FROM k2.silver_trades")
    assert wrong.returncode == 1
    assert "nonsense" in wrong.stderr

    archived = json.loads(good(person.here("archive", "--json")))
    assert archived["tables"]["trades"]["rows"] > 0
    assert archived["visible"]["why_not"] == ""
    assert "nothing" in person.here("archive", "maintain", "--dry-run").stderr
    (snapshot,) = json_lines(good(person.here("archive", "snapshots", "--json")))
    assert "no difference" in good(person.here("archive", "audit"))
    assert json.loads(good(person.here("archive", "diff", str(snapshot["snapshot_id"]), "--json")))["changes"] == []
    then = good(person.here("sql", "--as-of", str(snapshot["snapshot_id"]), "SELECT count() FROM trades"))
    assert int(then.split()[1]) == snapshot["rows"]

    good(person.here("replay", "kraken"))
    report = json.loads(good(person.here("verify", "--json")))
    assert set(report) == {"commit", "machine", "parameters", "results", "checks"}
    assert all(check["ok"] for check in report["checks"])
    good(person.k2("verify", "--exchange", "binance", "--symbol", "BTC-USDT"))


def wait_for_trades(person: Person) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        asked = person.k2("sql", "SELECT count() FROM k2.silver_trades GROUP BY exchange")
        counts = asked.stdout.split()[1:]
        if asked.returncode == 0 and len(counts) == 3 and min(map(int, counts)) >= 20:
            return
        assert time.monotonic() < deadline, f"no trades of every exchange: {asked}"


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.args}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


def json_lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("verb", ASK)
def test_what_a_verb_says_when_nothing_runs(person: Person, verb: str) -> None:
    subjects = {"tail": "binance", "trades": "BTC-USDT", "candles": "BTC-USDT", "sql": "SELECT 1", "replay": "binance"}
    words = [subjects[verb]] if verb in subjects else []
    if verb == "check":
        done = person.k2("check", "--offline")
        assert done.returncode == 0
        assert "does not answer" in done.stdout
        return
    done = person.k2(verb, *words)
    assert "Traceback" not in done.stderr
    if verb in ("streams", "tail"):
        assert done.returncode == 0, "an empty log is no error"
        return
    assert done.returncode in (1, 2), f"{done.stdout}{done.stderr}"
    assert done.stderr.strip(), "it says why"
    if verb in ("status", "trades", "candles", "gaps", "sql", "verify"):
        assert "k2 up" in done.stderr or "k2 demo" in done.stderr


@pytest.mark.slow
def test_a_demo_ends_by_itself_and_goes_on_where_it_was(person: Person) -> None:
    first = person.start("demo", "--duration", "7", "--rate", "100")
    assert first.process.wait(PATIENCE_S) == 0, first.said
    assert "stopped in" in first.said
    second = person.start("demo", "--rate", "100")
    second.wait_said("first candle after")
    wait_for_trades(person)
    report = json.loads(good(person.k2("verify", "--json")))
    assert all(check["ok"] for check in report["checks"])
    gaps = json_lines(good(person.k2("gaps", "--json")))
    assert {gap["state"] for gap in gaps} >= {"start", "healed"}, "what happened between the two was healed"
    second.signal(signal.SIGTERM)
    assert second.process.returncode == 0, second.said
    assert person.children() == []


def test_kill_9_of_the_supervisor_leaves_nobody_and_the_next_start_works(person: Person) -> None:
    demo = person.start("demo", "--rate", "50")
    demo.wait_said("first candle after")
    assert len(person.children()) >= 6
    demo.process.kill()
    demo.process.wait()
    again = person.start("demo", "--rate", "50")
    again.wait_said("first candle after")
    supervised = psutil.Process(again.process.pid).children()
    strangers = {child.pid for child in person.children()} - {child.pid for child in supervised} - {again.process.pid}
    assert not strangers, "processes of the dead supervisor live on"
    again.signal(signal.SIGINT)
    assert person.children() == []


def test_up_without_any_exchange_says_so_and_names_the_demo(person: Person) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        for name in EXCHANGES:
            person.environ[f"K2_EXCHANGES_{name.upper()}_WS_URL"] = f"ws://127.0.0.1:{port}/ws"
            person.environ[f"K2_EXCHANGES_{name.upper()}_REST_URL"] = f"http://127.0.0.1:{port}"
        up = person.start("up")
        for name in EXCHANGES:
            said = up.wait_said(f"{name} cannot be reached; still trying")
        assert "`k2 demo`" in said
        assert up.process.poll() is None
    up.signal(signal.SIGINT)
    assert up.process.returncode == 0
