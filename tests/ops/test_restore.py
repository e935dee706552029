"""A hot store that was lost answers as before once it is restored, whatever interrupts that."""

import fcntl
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from recording import START_MS, Recording, history, page_frame, received, served, trade_frame

from k2.cli import main
from k2.config import EXCHANGES, Config
from k2.core.candle import candles
from k2.core.codec import decode_trade, trades_stream
from k2.core.types import Trade
from k2.log import Entry, Log
from k2.ops import restore as restoring
from k2.ops.evidence import Scope, stored_candles
from k2.ops.ports import free_port
from k2.ops.report import passed
from k2.ops.restore import CannotRestoreError, Restored, restore
from k2.ops.verify import verify
from k2.store.follow import LogReplacedError
from k2.store.loader import Loader
from k2.wire import open_log, open_store

MS = 1_000_000
NOW = received(300)
BEGIN, MIDNIGHT, END = (START_MS - 30_000) * MS, (START_MS + 90_000) * MS, (START_MS + 150_000) * MS
VIEWS = ("trades", "ohlcv_1m", "ohlcv_5m", "ohlcv_1d", "gaps", "bronze_frames")


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Recording]:
    recording = history(tmp_path / "data", K2_STORE_PORT=str(free_port()))
    yield recording
    recording.close()


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Recording, dict[str, Any]]]:
    """A history that stays as it is, and what a store answered that had loaded all of it."""
    recording = history(tmp_path_factory.mktemp("known") / "data", K2_STORE_PORT=str(free_port()))
    with served(recording.config):
        recording.load()
        before = answers(recording)
    yield recording, before
    recording.close()


@pytest.fixture
def lost(known: tuple[Recording, dict[str, Any]]) -> tuple[Recording, dict[str, Any]]:
    """The same without its store."""
    known[0].forget_store()
    return known


def answers(made: Recording) -> dict[str, Any]:
    return {name: made.rows(f"SELECT * FROM k2.{name} ORDER BY ALL") for name in VIEWS}


def again(made: Recording, since: int | None = None, until: int | None = None) -> Restored:
    return restore(made.config, since, until, NOW)


def proven(made: Recording) -> None:
    report = verify(made.config)
    assert passed(report), [check for check in report["checks"] if not check["ok"]]


def trades_of(log: Log) -> list[Trade]:
    (batch, *more) = log.read(trades_stream("binance"), 0, 1 << 30)
    return [decode_trade(value) for one in (batch, *more) for value in one.values]


@pytest.mark.parametrize(
    ("since", "until", "cold"),
    [
        pytest.param(None, None, (), marks=pytest.mark.slow),
        pytest.param(MIDNIGHT, None, ((0, MIDNIGHT),), marks=pytest.mark.slow),
        (BEGIN + 60_000 * MS, END, ((0, BEGIN + 60_000 * MS), (END, END + 120_000 * MS))),
    ],
)
def test_hot_and_cold_answer_as_before(
    lost: tuple[Recording, dict[str, Any]], since: int | None, until: int | None, cold: tuple[tuple[int, int], ...]
) -> None:
    made, before = lost
    with served(made.config):
        found = again(made, since, until)
        assert (found.cold, found.left, found.lost) == (cold, 0, {})
        assert (found.candles, found.frames) == (len(before["ohlcv_1m"]), len(before["bronze_frames"]))
        assert (found.trades < len(before["trades"])) is bool(cold)
        assert made.rows("SELECT count() FROM k2.silver_trades") == [(found.trades,)]
        assert answers(made) == before
        with pytest.raises(CannotRestoreError, match=f"it holds {found.trades} trades"):
            again(made)


@pytest.mark.parametrize("since", [pytest.param(None, marks=pytest.mark.slow), MIDNIGHT])
def test_a_loader_goes_on_from_there_and_lets_nothing_in_twice(made: Recording, since: int | None) -> None:
    """With trades that are older than what was restored, and one that the archive has already."""
    page = page_frame(range(110, 116), received(250))
    made.record([page, *(trade_frame(n) for n in range(240, 250))])
    with served(made.config):
        assert again(made, since).left == 16 + 11  # trades and frames
        made.load()
        recorded = trades_of(made.log)
        assert {(t, i) for t, i in made.rows("SELECT symbol, trade_id FROM k2.trades")} == {
            (t.symbol, t.trade_id) for t in recorded
        }
        stored = stored_candles(open_store(made.config), Scope(("binance",)), "binance", "1m", 60)
        assert sorted(stored) == sorted(candles(recorded, 60))
        proven(made)
        value = made.log.read(trades_stream("binance"), 3)[0].values[0]
        made.log.append([Entry(trades_stream("binance"), ["BTC-USDT"], [value])])
        made.load()
        assert made.rows("SELECT count() FROM k2.trades") == [(len(recorded),)]


@pytest.mark.slow
def test_old_frames_stay_cold(made: Recording) -> None:
    config = made.config
    made.config = msgspec.structs.replace(config, store=msgspec.structs.replace(config.store, frames_days=1.0))
    with served(made.config):
        restore(made.config, None, None, MIDNIGHT + restoring.DAY_NS)
        assert made.rows("SELECT countIf(recv_ts < toDateTime('2026-01-02 00:00:00', 'UTC')), count() > 0"
                         " FROM k2.bronze_frames") == [(0, 1)]  # fmt: skip


KILLED = """
import os, sys
from k2.config import load
from k2.ops import restore as restoring
from k2.ops.evidence import Scope, stored_candles
from k2.store import refill, seam
owner, name = {place}
setattr(owner, name, lambda *args: os.kill(os.getpid(), 9))
restoring.restore(load(), {since}, None, {now})
"""


@pytest.mark.slow
def test_killed_again_and_again_it_is_done_in_the_end(lost: tuple[Recording, dict[str, Any]]) -> None:
    """Before its candles, and after it counts, before cold answers for the rest."""
    made, before = lost
    environ = {"K2_DATA": made.config.data, "K2_STORE_PORT": str(made.config.store.port), "PATH": "/usr/bin:/bin"}
    with served(made.config):
        for place in ("refill.Refill, 'candles'", "seam, 'move'"):
            script = KILLED.format(place=place, since=MIDNIGHT, now=NOW)
            command = [sys.executable, "-c", script]
            done = subprocess.run(command, env=environ, timeout=60, check=False, capture_output=True)
            assert done.returncode == -signal.SIGKILL, done.stderr.decode()
            assert made.rows("SELECT count() > 0 FROM k2.silver_base") == [(1,)]
            assert made.rows("SELECT count() > 0 FROM k2.trades") == [("seam" in place,)]
        found = again(made, MIDNIGHT)
        assert found.cold == ((0, MIDNIGHT),)
        assert answers(made) == before
        assert made.rows("SELECT count() FROM system.databases WHERE name = 'restore'") == [(0,)]


def test_it_does_not_begin_beside_a_loader_or_another_log(made: Recording) -> None:
    made.config.run_dir.mkdir(exist_ok=True)
    with (made.config.run_dir / "loader.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CannotRestoreError, match="a loader runs"):
            again(made)
    made.close()
    shutil.rmtree(made.config.log_dir)
    with pytest.raises(CannotRestoreError, match="k2 --data NEW up"):
        again(made)
    made.log = open_log(made.config)
    made.record([trade_frame(300)])
    with pytest.raises(CannotRestoreError, match=r"ends at offset 1, cold has it up to \d+"):
        again(made)


def test_without_a_log_it_is_for_reading_and_a_new_log_is_refused(made: Recording) -> None:
    recorded = len(trades_of(made.log))
    made.close()
    shutil.rmtree(made.config.log_dir)
    with served(made.config):
        assert restore(made.config, None, None, NOW, without_log=True).trades == recorded
        assert made.rows("SELECT count() FROM k2.trades") == [(recorded,)]
        made.log = open_log(made.config)
        made.record([trade_frame(300)])
        store = open_store(made.config)
        with pytest.raises(LogReplacedError, match="do not belong together"):
            Loader(made.log, store, store, made.config.loader, EXCHANGES).take_over()
        store.close()


def test_there_must_be_a_cold_tier(tmp_path: Path) -> None:
    with pytest.raises(CannotRestoreError, match="holds no trades"):
        restore(Config(data=str(tmp_path)), None, None, NOW)


def test_the_command_changes_nothing_until_all_is_well_and_tells_what_it_did(made: Recording) -> None:
    file = sorted((made.config.cold_dir / "warehouse").rglob("trades/data/**/*.parquet"))[0]
    with served(made.config):
        assert k2(made, "--since", "2026-01-02", answer="n\n").exit_code == 1
        future = k2(made, "--since", "2030-01-01", "--yes")
        assert (future.exit_code, "--since" in future.output) == (2, True)
        file.rename(file.with_suffix(".away"))
        damaged = k2(made, "--yes")
        assert (damaged.exit_code, file.name in damaged.output) == (2, True)
        file.with_suffix(".away").rename(file)
        assert made.rows("SELECT count() FROM k2.loaders") == [(0,)], "the store was claimed"
        done = k2(made, "--since", "2026-01-02T00:00:30", "--yes", "--json")
        assert done.exit_code == 0, done.output
    told = json.loads(next(line for line in done.output.splitlines() if line.startswith("{")))
    assert told["cold"] == [[0, MIDNIGHT]]


def k2(made: Recording, *words: str, answer: str = "") -> Result:
    environ = {"K2_STORE_PORT": str(made.config.store.port)}
    command = ["--data", made.config.data, "restore", "--from", "cold", *words]
    return CliRunner().invoke(main, command, input=answer, env=environ)
