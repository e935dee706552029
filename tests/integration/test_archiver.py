"""kill -9 of the resident archiver, of the offloads it starts and of all around them: cold holds the market's trades,
each exactly once and exactly as they were made."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import unquote, urlparse

import duckdb
import psutil
import pytest

from k2.config import EXCHANGES
from k2.core.codec import GAPS_STREAM, frames_stream
from k2.sim.truth import truth
from k2.wire import open_catalog, open_log, read_heads

RATE = 300.0
CHILD, ARCHIVER = "child", "archiver"
OTHERS = ("store", "loader", "feed-handler-binance", "feed-handler-kraken")
VICTIMS = (CHILD, CHILD, CHILD, CHILD, ARCHIVER, ARCHIVER, *OTHERS)
CHILD_WITHIN = 5.0

Place = tuple[str, str, int, int]  # exchange, symbol, epoch, trade id
Content = tuple[Decimal, Decimal, str, int]  # price, quantity, side, exchange time


def offloads(platform: Any) -> list[psutil.Process]:
    """The archiver's children."""
    pid = platform.supervisor.services[ARCHIVER].pid
    try:
        return psutil.Process(pid).children() if pid else []
    except psutil.NoSuchProcess:
        return []


def archived(platform: Any) -> int:
    """How many trades cold has."""
    heads = read_heads(platform.config)
    return heads["trades"].rows if "trades" in heads else 0


def await_offload(platform: Any) -> None:
    before = archived(platform)
    platform.wait("more trades in cold", lambda: archived(platform) > before)


def kill_child(platform: Any, rng: random.Random) -> bool:
    """Kill an offload somewhere between its start and its end."""
    deadline = time.monotonic() + CHILD_WITHIN
    while not (found := offloads(platform)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    time.sleep(rng.uniform(0.0, 3.0))
    if not found[0].is_running():
        found = offloads(platform)
    for child in found:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            return False
    return bool(found)


def murder(platform: Any, kills: int, seed: int) -> Counter[str]:
    """Kill at random while the market trades."""
    rng = random.Random(seed)
    done: Counter[str] = Counter()
    while done.total() < kills:
        victim = rng.choice(VICTIMS) if done else CHILD
        if victim == CHILD:
            done[CHILD] += kill_child(platform, rng)
        else:
            time.sleep(rng.uniform(0.1, 0.8))
            done[victim] += platform.kill(victim)
    return done


def k2(platform: Any, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "k2", *arguments],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **platform.environ},
    )  # fmt: skip


def archive_rest(platform: Any) -> None:
    """What no killed offload has brought; the last of them may still be ending, and then one of the two is refused."""
    for _ in range(10):
        done = k2(platform, "archive", "--json")
        if done.returncode == 0:
            return
        assert "another archiver" in done.stderr, done.stderr
        time.sleep(1.0)
    raise AssertionError(f"refused again and again: {done.stderr}")


def cold(platform: Any, table: str, columns: str) -> list[tuple[Any, ...]]:
    """What the data files of the table's current snapshot hold, by distinct rows, each with its number."""
    tasks = open_catalog(platform.config).load_table(f"cold.{table}").scan().plan_files()
    files = [unquote(urlparse(task.file.file_path).path) for task in tasks]
    connection = duckdb.connect()
    try:
        query = f"SELECT {columns}, count(*) FROM read_parquet($files, hive_partitioning = false) GROUP BY ALL"
        return connection.execute(query, {"files": files}).fetchall()
    finally:
        connection.close()


def trades_equal_truth(platform: Any) -> int:
    """cold.trades against what the simulator made. Returns the number of trades."""
    stored: dict[Place, Content] = {}
    columns = "exchange, symbol, epoch, trade_id, price, quantity, side, exchange_ts_ns"
    for *place, price, quantity, side, at, times in cold(platform, "trades", columns):
        assert times == 1, f"{place} stands {times} times in cold"
        key: Place = (place[0], place[1], place[2], place[3])
        assert key not in stored, f"{key} stands in cold with different fields"
        stored[key] = (price, quantity, side, at)
    made = {
        (t.exchange, t.symbol, t.epoch, t.trade_id): (Decimal(t.price), Decimal(t.quantity), t.side, t.exchange_ts)
        for t in truth(platform.config.data_dir)
    }
    missing, strange = sorted(made.keys() - stored.keys()), sorted(stored.keys() - made.keys())
    assert not missing, f"cold lacks {len(missing)} of {len(made)} trades: {missing[:20]}"
    assert not strange, f"cold has {len(strange)} trades that were never made: {strange[:20]}"
    different = [(key, stored[key], made[key]) for key in made if stored[key] != made[key]]
    assert not different, f"{len(different)} trades differ, (cold, true): {different[:5]}"
    return len(made)


def records_equal_log(platform: Any) -> None:
    """Every frame and every event of the gap ledger stands in cold once, under its offset."""
    log = open_log(platform.config)
    try:
        frames = {name: log.bounds(frames_stream(name))[1] for name in EXCHANGES}
        gaps = log.bounds(GAPS_STREAM)[1]
    finally:
        log.close()
    found = Counter(row[0] for row in cold(platform, "frames", "exchange, log_offset"))
    assert found == frames
    assert all(row[-1] == 1 for row in cold(platform, "frames", "exchange, log_offset"))
    assert sorted(cold(platform, "gaps", "log_offset")) == [(offset, 1) for offset in range(gaps)]


def survive(platform: Any, kills: int, seed: int) -> None:
    platform.trade(RATE)
    done = murder(platform, kills, seed)
    await_offload(platform)  # without anybody's help
    platform.settle()
    platform.stop()
    archive_rest(platform)
    trades = trades_equal_truth(platform)
    records_equal_log(platform)
    audited = k2(platform, "archive", "audit", "--json")
    assert audited.returncode == 0, f"{audited.stdout}\n{audited.stderr}"
    print(f"{done.total()} kills {dict(done)}, {trades} trades")
    assert done[CHILD]


@pytest.mark.slow
def test_some_kills(run_platform: Callable[..., Any], seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2.ops.supervise.STEADY_AFTER", 0.0)
    survive(run_platform(K2_TIER_EVERY_S="0.5"), 4, seed)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_kills(run_platform: Callable[..., Any], seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2.ops.supervise.STEADY_AFTER", 0.0)
    survive(run_platform(K2_TIER_EVERY_S="0.5"), 50, seed)
