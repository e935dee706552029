"""`k2 archive` on a real log, as people and the resident archiver run it."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE_S

from k2.config import Config, TierConfig
from k2.core.codec import encode_trade, trades_stream
from k2.core.types import Trade
from k2.log import Entry, Log
from k2.metrics import ARCHIVE_RUNS, ARCHIVED, LAG
from k2.ops import archiver
from k2.ops.archiver import OFFLOAD, Resident, maintenance_due
from k2.wire import open_log, read_heads

DAY = 86_400.0
PLAIN = (sys.executable, "-m", "k2")


def trade(number: int) -> Trade:
    at = 1_767_225_600_000_000_000 + number
    return Trade("kraken", "BTC-USD", "BTC/USD", number, "61000.10", "0.5", "buy", at, at + 5, "live")


def put(log: Log, first: int, count: int) -> None:
    values = [encode_trade(trade(number)) for number in range(first, first + count)]
    log.append([Entry(trades_stream("kraken"), ["BTC-USD"] * count, values)])


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data=str(tmp_path), tier=TierConfig(every_s=0.2))


@pytest.fixture
def log(config: Config) -> Iterator[Log]:
    opened = open_log(config)
    yield opened
    opened.close()


def k2(config: Config, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [*PLAIN, "--data", config.data, *arguments]
    environ = {**os.environ, "K2_STORE_PORT": "1"}  # nothing listens there
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ)


def test_what_the_log_has_is_moved_and_told(config: Config, log: Log) -> None:
    put(log, 1, 300)
    done = k2(config, "archive", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["tables"]["trades"]["rows"], found["left"]) == (300, 0)
    assert "the store does not run" in found["visible"]["why_not"]
    again = k2(config, "archive")
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing new" in again.stderr
    assert "the store does not run" in again.stderr


def test_a_log_that_does_not_belong_to_the_cold_tier_is_refused_in_words(config: Config) -> None:
    for count in (5, 2):
        shutil.rmtree(config.log_dir, ignore_errors=True)
        young = open_log(config)
        put(young, 1, count)
        young.close()
        done = k2(config, "archive")
        assert done.returncode == (1 if count == 2 else 0)
    assert "do not belong together" in done.stderr
    assert "Traceback" not in done.stderr


def wait_until(condition: Callable[[], Any], within: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def rows(config: Config) -> int:
    head = read_heads(config).get("trades")
    return head.rows if head else 0


def test_the_resident_archiver_offloads_again_and_again(config: Config, log: Log) -> None:
    stop = threading.Event()
    before = ARCHIVED.labels("trades")._value.get()
    resident = Resident(config, log, stop, ["env", f"K2_DATA={config.data}", "K2_STORE_PORT=1", *PLAIN])
    run = threading.Thread(target=resident.run)
    put(log, 1, 10)
    run.start()
    try:
        wait_until(lambda: rows(config) == 10)
        put(log, 11, 7)
        wait_until(lambda: rows(config) == 17)
        wait_until(lambda: LAG.labels("archiver", trades_stream("kraken"))._value.get() == 0)
    finally:
        stop.set()
        run.join(PATIENCE_S)
    assert not run.is_alive()
    assert ARCHIVED.labels("trades")._value.get() - before >= 10


def test_what_fails_is_counted_and_tried_again(
    config: Config, log: Log, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(archiver, "RETRY_FIRST_S", 0.05)
    put(log, 1, 3)
    stop = threading.Event()
    errors = ARCHIVE_RUNS.labels(OFFLOAD, "error")
    before = errors._value.get()
    resident = Resident(config, log, stop, ["sh", "-c", "echo the disk is full >&2; exit 1"])
    run = threading.Thread(target=resident.run)
    run.start()
    try:
        wait_until(lambda: errors._value.get() >= before + 2)
    finally:
        stop.set()
        run.join(PATIENCE_S)
    assert "the disk is full" in caplog.text


@pytest.mark.parametrize(
    ("last", "due"),
    [(None, True), (10 * DAY + 7199.0, True), (10 * DAY + 7200.0, False), (10 * DAY + 7300.0, False)],
)
def test_maintenance_is_due_when_none_ended_since_its_time_of_day(last: float | None, due: bool) -> None:
    assert maintenance_due("02:00", last, 10 * DAY + 8000.0) is due
    assert maintenance_due("02:00", last, 11 * DAY + 7100.0) is due
    assert maintenance_due("02:00", last, 11 * DAY + 7200.0) is True
