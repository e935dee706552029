"""The cold tables in the store, and `k2.trades` over hot and cold: what is shown, when, and to whom."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.store.conftest import READER_PASSWORD, StoreProcess, start
from tests.store.history import DAY, PER_DAY, START, History, emptied, trade
from tests.store.wire import ask

from k2.store import StoreError
from k2.store import seam as seams
from k2.store.pins import KEPT_S, newest, show


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    process = start(tmp_path_factory.mktemp("history") / "data")
    yield process
    assert process.stop() == 0


@pytest.fixture
def history(running: StoreProcess, tmp_path: Path) -> Iterator[History]:
    made = History(tmp_path, emptied(running))
    yield made
    made.close()


def test_before_there_is_a_cold_tier_its_tables_are_empty(history: History) -> None:
    history.put_days(0, 1)
    history.load()
    for table in ("trades", "frames", "gaps", "ohlcv_1m", "proofs"):
        assert history.store.rows(f"SELECT count() FROM cold.{table}") == [(0,)]
    assert show(history.store, {}).pinned == ()
    assert history.columns() == history.expected()


def test_what_was_archived_is_shown_and_what_is_not_new_costs_nothing(history: History) -> None:
    history.put_days(0, 3)
    history.put_frames()
    history.load()
    assert history.show() == (("frames", "trades"), {})
    assert history.store.rows("SELECT count(), uniqExact(trade_id) FROM cold.trades") == [(120, 120)]
    assert history.store.rows("SELECT count() FROM cold.frames") == [(120,)]
    pins = newest(history.store)
    assert history.show() == ((), {})
    assert newest(history.store) == pins
    history.put_days(3, 1)
    history.load()
    assert history.show().pinned == ("trades",)
    assert history.store.rows("SELECT count() FROM cold.trades") == [(160,)]
    assert history.columns() == history.expected()


def test_a_snapshot_waits_for_the_loader(history: History) -> None:
    history.put_days(0, 2)
    history.load()
    history.show()
    history.put_days(2, 1)
    shown = history.show()
    assert shown.behind == {"market.crypto.trades.kraken": PER_DAY}
    assert "trades" not in shown.pinned
    assert history.store.rows("SELECT count() FROM cold.trades") == [(80,)]
    loading = threading.Timer(0.3, history.load)
    loading.start()
    assert show(history.store, history.heads(), wait_s=20) == (("trades",), {})
    loading.join()
    assert history.store.rows("SELECT count() FROM cold.trades") == [(120,)]


def test_a_cold_tier_that_lost_what_was_handed_over_is_not_shown(history: History) -> None:
    history.put_days(0, 3)
    history.load()
    history.show()
    history.expire(2)
    heads = history.heads()
    back = heads["trades"]._replace(metadata_location="file:///other", offsets={"market.crypto.trades.kraken": 100})
    with pytest.raises(StoreError, match=r"ends at offset 100 of market\.crypto\.trades\.kraken"):
        show(history.store, {**heads, "trades": back})
    assert history.columns() == history.expected()


def test_hot_and_cold_have_the_same_columns(history: History) -> None:
    history.put_days(0, 3)
    history.load()
    plain = history.store.rows("DESCRIBE k2.silver_trades")
    assert history.store.rows("DESCRIBE k2.trades") == plain
    history.expire(2)
    history.expire(2)
    assert history.store.rows("DESCRIBE k2.trades") == plain
    assert len(history.hot()) == PER_DAY
    assert history.columns() == history.expected()
    described = history.store.rows("DESCRIBE k2.trades")
    types = ", ".join(f"toTypeName({name})" for name, *_ in described)
    one = history.store.rows(f"SELECT {types} FROM k2.trades LIMIT 1")
    assert list(one[0]) == [kind for _, kind, *_ in described]


def test_conditions_leave_out_files(history: History) -> None:
    history.put_days(0, 6)
    history.load()
    history.expire(5)
    asking = history.running.client(settings={"log_profile_events": "1"})
    read = "SELECT sum(value) FROM system.events WHERE event = 'ParquetReadRowGroups'"

    def row_groups(condition: str) -> int:
        """How many were read for it: each day of cold is one."""
        before = asking.rows(read)[0][0]
        asking.rows(f"SELECT sum(trade_id), max(price) FROM k2.trades WHERE {condition}")
        return int(asking.rows(read)[0][0] - before)

    day = [f"toDateTime64({(START + n * DAY) // 1_000_000_000}, 9)" for n in range(7)]
    assert row_groups("1") == 5
    assert row_groups(f"exchange_ts >= {day[2]} AND exchange_ts < {day[3]}") == 1
    assert row_groups(f"exchange = 'kraken' AND symbol = 'BTC-USD' AND exchange_ts < {day[2]}") == 2
    assert row_groups(f"exchange_ts >= {day[5]}") == 0
    assert row_groups("exchange = 'binance'") == 0
    assert row_groups("symbol = 'ETH-USD'") == 0
    assert row_groups(f"trade_id = {PER_DAY + 1}") == 1
    asking.close()


def test_rows_of_several_sorted_files_are_in_order(history: History) -> None:
    """The engine takes a table that declares an order for one sorted stream, however many files it has."""
    symbols = ("BTC-USD", "ETH-USD", "XRP-USD")
    for turn in range(3):
        history.put(*(trade(number, START + number, symbol=s) for number in range(10 - turn, 31, 3) for s in symbols))
        history.load()
        history.expire(1)
    for table in ("cold.trades", "k2.trades"):
        rows = history.store.rows(f"SELECT symbol, epoch, trade_id FROM {table} ORDER BY symbol, epoch, trade_id")
        assert rows == sorted(rows)
        assert len(rows) == len(set(rows)) == len(history.expected())
        assert sorted(history.store.rows(f"SELECT DISTINCT symbol FROM {table}")) == [(name,) for name in symbols]
        jumps = "trade_id - lagInFrame(trade_id) OVER (PARTITION BY symbol ORDER BY epoch, trade_id) AS step"
        assert history.store.rows(f"SELECT max(step) FROM (SELECT {jumps} FROM {table})") == [(8,)]


def test_what_was_never_committed_is_not_shown(history: History) -> None:
    """A file of a killed commit has the highest number; PyIceberg removes a pinned file after some more commits."""
    history.put_days(0, 3)
    history.load()
    old = Path(history.archive()["trades"].metadata_location.removeprefix("file://"))
    history.put_days(3, 1)
    history.load()
    history.expire(2)
    current = Path(history.heads()["trades"].metadata_location.removeprefix("file://"))
    shutil.copy(old, old.with_name("00099-00000000-0000-0000-0000-000000000000.metadata.json"))
    assert history.columns() == history.expected()
    current.rename(current.with_suffix(".away"))
    again = history.client()
    again.execute("SYSTEM DROP ICEBERG METADATA CACHE")
    assert history.columns() == history.expected()
    assert again.rows("SELECT count() FROM cold.trades") == [(160,)]
    again.close()


def test_old_pins_are_let_go(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = "SELECT count() FROM system.tables WHERE database = 'cold_pins'"
    for day in range(3):
        history.put_days(day, 1)
        history.load()
        history.show()
    assert history.store.rows(tables) == [(3,)]
    monkeypatch.setattr("k2.store.pins.KEPT_S", -1)
    history.put_days(3, 1)
    history.load()
    history.show()
    assert KEPT_S > 5
    assert history.store.rows(tables) == [(2,)]
    copies = list(history.folder.rglob("cold/trades/pins/*"))
    assert len(copies) == 2
    assert history.columns() == history.expected()


def test_readers_may_read_cold_and_no_more(history: History) -> None:
    history.put_days(0, 3)
    history.load()
    history.expire(2)

    def read(sql: str, **params: str) -> object:
        reply = ask(history.running.port, sql.encode(), user="reader", password=READER_PASSWORD, **params)
        return reply.code or reply.body

    assert read("SELECT count() FROM k2.trades") == b"120\n"
    assert read("SELECT count() FROM cold.trades") == b"120\n"
    assert read("SELECT count() FROM trades", database="cold") == b"120\n"
    assert read("SHOW TABLES FROM cold") == b"frames\ngaps\nohlcv_1m\nproofs\ntrades\n"
    assert read(f"SELECT count() FROM cold_pins.trades_{newest(history.store)['trades'].number}") == 497
    for sql in (
        "INSERT INTO cold.trades SELECT * FROM cold.trades",
        "TRUNCATE TABLE cold.trades",
        "DROP TABLE cold.trades",
        "ALTER TABLE cold.trades DELETE WHERE 1",
        "OPTIMIZE TABLE cold.trades",
        "SELECT * FROM icebergLocal('/tmp')",
    ):
        assert read(sql) in (164, 497), sql
    assert history.ids() == list(range(1, 121))


def test_a_store_starts_and_serves_hot_while_cold_is_gone(tmp_path: Path) -> None:
    process = start(tmp_path / "data")
    history = History(tmp_path / "data", process)
    history.put_days(0, 3)
    history.load()
    history.show()
    cold = history.folder / "cold"
    away = cold.with_name("away")
    for handed_over in (False, True):
        if handed_over:
            history.expire(2)
            history.expire(2)
        history.close()
        process.kill()
        cold.rename(away)
        process = history.running = start(tmp_path / "data")
        history.store = history.client()
        assert history.ids("k2.silver_trades") == list(range(81 if handed_over else 1, 121))
        assert history.store.rows("SELECT sum(trade_count) FROM k2.ohlcv_1d") == [(120,)]
        if handed_over:  # never a part for the whole
            with pytest.raises(StoreError, match=r"metadata\.json"):
                history.ids()
        else:
            assert history.ids() == list(range(1, 121))
        away.rename(cold)
        assert history.columns() == history.expected()
    history.close()
    assert process.stop() == 0


def test_a_view_that_is_not_the_seams_is_made_anew(history: History) -> None:
    history.put_days(0, 3)
    history.load()
    history.expire(2)
    history.expire(2)
    history.store.execute(seams.HOT)
    assert len(history.ids()) == PER_DAY
    history.show()
    assert history.columns() == history.expected()


def test_the_cold_tables_as_they_were(history: History) -> None:
    moments = []
    for day in range(3):
        history.put_days(day, 1)
        history.load()
        history.show()
        moments.append(history.heads()["trades"])
    environ = {
        "PATH": os.environ["PATH"],
        "K2_STORE_PORT": str(history.running.port),
        "K2_STORE_READONLY_PASSWORD": READER_PASSWORD,
    }

    def sql(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "k2", "--data", str(history.folder), "sql", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60, check=False)

    count = "SELECT count() AS n FROM trades"
    assert sql("--as-of", str(moments[1].snapshot_id), count).stdout == "n\n80\n"
    assert sql("--as-of", str(moments[0].committed_ms * 1_000_000), count).stdout == "n\n40\n"
    early = sql("--as-of", "2020-01-01", count)
    assert (early.returncode, "no snapshot is as old as 2020-01-01T00:00:00" in early.stderr) == (1, True)
    mixed = sql("--as-of", "-0s", "SELECT count() FROM k2.trades")
    assert (mixed.returncode, "hot tables know only today" in mixed.stderr) == (1, True)
    history.put(trade(1000))
    history.archive()
    behind = sql("--as-of", "-0s", count)
    assert (behind.returncode, "k2 archive" in behind.stderr) == (1, True)
    as_reader = {"user": "reader", "password": READER_PASSWORD, "database": "cold"}
    asked = [
        ask(history.running.port, count.encode(), iceberg_timestamp_ms=str(moment.committed_ms), **as_reader).body
        for moment in moments
    ]
    assert asked == [b"40\n", b"80\n", b"120\n"]
    assert ask(history.running.port, count.encode(), **as_reader).body == b"120\n"
