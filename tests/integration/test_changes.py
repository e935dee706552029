"""What changes while the platform runs: the list of instruments, the connection by plan, the room on the disk."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

FEEDS = ("feed-handler-binance", "feed-handler-coinbase", "feed-handler-kraken")


def last_trade(platform: Any, exchange: str, symbol: str) -> int:
    return platform.count(
        f"SELECT max(trade_id) FROM k2.silver_trades WHERE exchange = '{exchange}' AND symbol = '{symbol}'"
    )


@pytest.mark.slow
def test_symbols_are_added_and_removed_without_a_restart(run_platform: Callable[..., Any]) -> None:
    platform = run_platform()
    platform.emit(2)
    added = {"binance": "SOL-USDT", "coinbase": "SOL-USD", "kraken": "SOL-USD"}
    symbols = {name: (*listed, added[name]) for name, listed in platform.symbols.items()}
    platform.list_symbols(symbols)
    platform.wait_subscribed(want=4)
    platform.emit(3)
    for exchange, symbol in added.items():
        platform.wait(f"{symbol} of {exchange}", lambda e=exchange, s=symbol: last_trade(platform, e, s) > 0)

    removed = {name: listed[0] for name, listed in platform.symbols.items()}
    platform.list_symbols({name: listed[1:] for name, listed in symbols.items()})
    platform.wait("each first symbol given up", lambda: platform.subscribed() == {3})
    time.sleep(0.5)
    ends = {name: last_trade(platform, name, symbol) for name, symbol in removed.items()}
    platform.emit(2)
    for exchange, symbol in added.items():
        emitted = platform.sim_status()["exchanges"][exchange]["symbols"][symbol]["last_id"]
        platform.wait(
            f"{symbol} of {exchange} goes on",
            lambda e=exchange, s=symbol, last=emitted: last_trade(platform, e, s) == last,
        )
    assert {name: last_trade(platform, name, symbol) for name, symbol in removed.items()} == ends

    platform.list_symbols(symbols)
    platform.wait_subscribed(want=4)
    platform.settle()
    platform.equals_truth()
    platform.proven()
    assert set(platform.restarts.values()) == {0}


@pytest.mark.slow
def test_planned_reconnects_lose_nothing(run_platform: Callable[..., Any]) -> None:
    platform = run_platform(K2_FEED_RECONNECT_AFTER="1.5")
    platform.emit(2)
    platform.trade(300)
    time.sleep(6)
    platform.settle()
    platform.equals_truth()
    platform.proven()
    opened = platform.count("SELECT count() FROM k2.gaps WHERE state NOT IN ('start')")
    assert opened == 0, "the next connection stands before the last one ends, so there is nothing to heal"
    connections = "SELECT uniqExact(connection) AS n FROM k2.bronze_frames GROUP BY exchange"
    assert platform.count(f"SELECT min(n) FROM ({connections})") > 2


@pytest.mark.slow
def test_a_log_that_cannot_be_written_loses_nothing(run_platform: Callable[..., Any]) -> None:
    """To the feed handlers the disk is full: no file of theirs may grow any more, then it may again."""
    platform = run_platform()
    platform.emit(2)
    platform.wait("the first trades stored", platform.all_stored)
    platform.trade(200)
    time.sleep(1)
    let_write(platform, FEEDS, 1)
    time.sleep(2)
    stood = platform.count("SELECT count() FROM k2.silver_trades")
    time.sleep(3)
    assert platform.count("SELECT count() FROM k2.silver_trades") == stood, "nothing can have been written"
    let_write(platform, FEEDS, psutil.RLIM_INFINITY)
    platform.settle()
    platform.equals_truth()
    platform.proven()
    assert set(platform.restarts.values()) == {0}, f"a process ended: {platform.said}"


def let_write(platform: Any, services: tuple[str, ...], most: int) -> None:
    """From now on no file that these processes write may grow past `most` bytes."""
    for name in services:
        process = psutil.Process(platform.supervisor.services[name].pid)
        process.rlimit(psutil.RLIMIT_FSIZE, (most, psutil.RLIM_INFINITY))


@pytest.fixture
def memory_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own, whose free space hardly anybody else changes."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else tmp_path, prefix="k2-full-") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_a_store_without_room_says_so_and_catches_up(memory_disk: Path, run_platform: Callable[..., Any]) -> None:
    """The store leaves `keep_free_mb` free; a large file takes that much away, then goes."""
    room = 64
    keep = (shutil.disk_usage(memory_disk).free >> 20) - room
    platform = run_platform(start=False, K2_STORE_KEEP_FREE_MB=str(keep))
    platform.config.data_dir.mkdir()
    (memory_disk / "store").mkdir()
    platform.config.store_dir.symlink_to(memory_disk / "store")
    platform.start()
    platform.emit(2)
    platform.wait("the first trades stored", platform.all_stored)
    platform.trade(200)
    filler = memory_disk / "filler"
    filler.write_bytes(bytes((room + 4) << 20))
    journal = platform.config.run_dir / "loader.log"
    platform.wait("the loader's word of it", lambda: "not enough space" in journal.read_text())
    filler.unlink()
    platform.settle()
    platform.equals_truth()
    platform.proven()
    assert set(platform.restarts.values()) == {0}, f"a process ended: {platform.said}"
