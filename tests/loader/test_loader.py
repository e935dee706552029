import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.patience import PATIENCE_S

from k2 import trace
from k2.config import LoaderConfig
from k2.core.codec import encode_frame, encode_trade, frames_stream, trades_stream
from k2.core.types import Frame, Trade
from k2.log import Entry
from k2.log.memory import MemoryLog
from k2.store import StoreError, fresh, migrate, tail
from k2.store import loader as loading
from k2.store.commit import GENERATIONS_APART, SupersededError, last_commit
from k2.store.follow import LogReplacedError
from k2.store.loader import Loader
from k2.store.rows import MOVED_ON

BASE = 1_700_000_000_000_000_000


def append(log: MemoryLog, first: int, count: int, symbol: str = "BTC-USDT") -> None:
    trades = [
        Trade("binance", symbol, "x", number, "1.5", "2", "buy", BASE + number * 20_000_000, time.time_ns(), "live")
        for number in range(first, first + count)
    ]
    frames = [encode_frame(Frame(trade.recv_ts, "ws", "c1", "", b"{}")) for trade in trades]
    log.append(
        [
            Entry(frames_stream("binance"), [""] * count, frames),
            Entry(trades_stream("binance"), [symbol] * count, [encode_trade(trade) for trade in trades]),
        ]
    )


def loader(log: MemoryLog, connect: Callable[[], Any], **settings: Any) -> Loader:
    return Loader(log, connect(), connect(), LoaderConfig(**settings), ("binance",))


def count(store: Any) -> int:
    return int(store.rows("SELECT count() FROM k2.silver_trades")[0][0])


def test_trades_are_visible_before_they_are_final(connect: Callable[[], Any]) -> None:
    log, store = MemoryLog(), connect()
    one = loader(log, connect)
    one.take_over()
    append(log, 1, 10)
    assert one.load() == 10
    assert count(store) == 10
    assert store.rows("SELECT count() FROM k2.silver_base") == [(0,)]
    assert store.rows("SELECT trade_count, complete FROM k2.ohlcv_1d") == [(10, 1)]
    one.flush(one.seal(), settled=False)
    assert store.rows("SELECT count() FROM k2.silver_base") == [(10,)]
    assert count(store) == 10
    assert log.committed("loader")[trades_stream("binance")].offset == 10


def test_taking_over_never_hides_what_was_visible(connect: Callable[[], Any]) -> None:
    log, store = MemoryLog(), connect()
    dead = loader(log, connect)
    dead.take_over()
    append(log, 1, 10)
    dead.load()
    seen: list[int] = []

    class Watching:
        """Counts after every statement of the new loader."""

        def __init__(self) -> None:
            self.store = connect()

        def __getattr__(self, name: str) -> Any:
            def call(*arguments: Any) -> Any:
                try:
                    return getattr(self.store, name)(*arguments)
                finally:
                    seen.append(count(store))

            return call

    watching: Any = Watching()
    Loader(log, watching, watching, LoaderConfig(), ("binance",)).take_over()
    assert len(seen) > 5
    assert set(seen) == {10}


def test_a_superseded_loader_ends_and_changes_nothing(connect: Callable[[], Any]) -> None:
    log, store = MemoryLog(), connect()
    old, new = loader(log, connect), loader(log, connect)
    old.take_over()
    append(log, 1, 10)
    old.load()
    new.take_over()
    sealed = old.seal()
    with pytest.raises(Exception, match="another loader has taken over"):
        old.flush(sealed, settled=False)
    assert count(store) == 10
    assert last_commit(store).positions[trades_stream("binance")] == 10


def test_a_running_loader_that_is_superseded_says_so(connect: Callable[[], Any]) -> None:
    log = MemoryLog()
    old = loader(log, connect, flush_s=0.05)
    failed: list[Exception] = []

    def run() -> None:
        try:
            old.run(threading.Event())
        except SupersededError as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    append(log, 1, 10)
    wait_until(lambda: "loader" in log.consumers())
    loader(log, connect).take_over()
    append(log, 11, 10)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert "only one may run" in str(failed[0])


def test_trades_lost_from_the_tail_are_noticed_before_the_commit(connect: Callable[[], Any]) -> None:
    log, store = MemoryLog(), connect()
    one = loader(log, connect)
    one.take_over()
    append(log, 1, 10)
    one.load()
    sealed = one.seal()
    restart(store)
    with pytest.raises(Exception, match="trades are missing"):
        one.flush(sealed, settled=False)
    one.take_over()
    assert count(store) == 10


def test_a_log_that_does_not_belong_to_the_store_is_refused(connect: Callable[[], Any]) -> None:
    log = MemoryLog()
    append(log, 1, 10)
    loader(log, connect).take_over()
    with pytest.raises(LogReplacedError, match="do not belong together"):
        loader(MemoryLog(), connect).take_over()


def test_a_store_begun_anew_is_filled_from_what_the_log_retains(connect: Callable[[], Any]) -> None:
    log, store = MemoryLog(), connect()
    for first in range(1, 101, 10):
        append(log, first, 10)
    for stream in (trades_stream("binance"), frames_stream("binance")):
        assert log.retain(stream, None, 1, time.time_ns()) == 100
    append(log, 101, 10)
    loader(log, connect).take_over()
    assert store.rows("SELECT min(trade_id), count() FROM k2.silver_trades") == [(101, 10)]
    assert store.rows("SELECT min(position), count() FROM k2.bronze_frames") == [(100, 10)]


def test_a_backlog_of_several_generations_is_caught_up(
    connect: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "GENERATION_ROWS", 40)
    log, store = MemoryLog(), connect()
    for first in range(1, 201, 20):
        append(log, first, 20)
    one = Loader(log, store, connect(), LoaderConfig(max_batch_mb=0), ("binance",))
    one.take_over()
    assert count(store) == 200
    assert store.rows("SELECT sum(trade_count), min(complete) FROM k2.ohlcv_1d") == [(200, 1)]
    assert store.rows("SELECT uniqExact(generation) FROM k2.silver_base") == [(5,)]


def silver_trades() -> str:
    """The statement that makes the view, as it is now."""
    statements = [s for one in migrate.migrations() for s in one.statements() if "VIEW k2.silver_trades" in s]
    assert f"+ {GENERATIONS_APART}\n" in statements[-1]
    return statements[-1]


def make_slow_trades(store: Any, pause: float) -> None:
    """`k2.slow_trades`: the same view with a pause before each of its branches is read."""
    text = silver_trades().replace("k2.silver_trades", "k2.slow_trades")
    store.execute(text.replace("WHERE generation", f"WHERE (SELECT sleep({pause})) = 0 AND generation"))


def test_a_tail_is_hidden_from_who_knows_only_the_commit_before_it(connect: Callable[[], Any]) -> None:
    """The base got the backlog in between: a question that takes its rows up to the older commit has a hole there."""
    log, store = MemoryLog(), connect()
    append(log, 1, 5)
    first = loader(log, connect)
    first.take_over()
    append(log, 6, 5)  # a backlog, which no tail ever shows
    second = loader(log, connect)
    second.take_over()
    append(log, 11, 5)
    second.load()
    commits = store.rows("SELECT max(generation) FROM k2.commits")[0][0]
    before = store.rows(f"SELECT max(generation) FROM k2.commits WHERE generation < {commits}")[0][0]
    text = silver_trades().replace("k2.silver_trades", "k2.trades_then")
    store.execute(text.replace("(SELECT max(generation) FROM k2.commits)", str(before)))
    assert count(store) == 15
    assert store.rows("SELECT max(trade_id), count() FROM k2.trades_then") == [(5, 5)]
    store.execute("DROP VIEW k2.trades_then")


def test_answers_only_grow_while_everything_moves(connect: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Between chunks, flushes, commits and replacements of the tail, a reader sees every trade once.

    Some trades come few at a time, by way of the file, and some many at once, past it. The pause in the view widens the
    moment between the evaluation of the last commit and the two snapshots: with the branches of the view the other way
    round, this test fails.
    """
    monkeypatch.setattr(loading, "REPLACE_S", 0.3)
    monkeypatch.setattr(loading, "FLUSH_SHARE", 1.0)
    monkeypatch.setattr(tail, "KEEP_S", 3.0)  # tests share a machine: a question may well stall for a second
    log, store = MemoryLog(), connect()
    make_slow_trades(store, 0.03)
    stop = threading.Event()
    one = loader(log, connect, flush_s=0.02)
    run = threading.Thread(target=one.run, args=(stop,))
    wrong: list[Any] = []
    looks = []

    def watch(reader: Any, sql: str) -> None:
        most = 0
        while not stop.is_set():
            try:
                rows, distinct, last = reader.rows(sql)[0]
            except StoreError as error:
                if MOVED_ON not in str(error):
                    wrong.append((sql, str(error)))
                continue
            if not rows == distinct == last or rows < most:
                wrong.append((sql, rows, distinct, last, most))
            most = max(most, rows)
            looks.append(rows)

    trades = "SELECT count(), uniqExact(trade_id), max(trade_id)"
    candles = "SELECT sum(trade_count), sum(trade_count), max(last_trade_id)"
    questions = [
        f"{trades} FROM k2.silver_trades SETTINGS analyzer_inline_views = 0",
        f"{trades} FROM k2.silver_trades SETTINGS analyzer_inline_views = 1",
        f"{trades} FROM k2.slow_trades",
        f"{candles} FROM k2.ohlcv_1m SETTINGS analyzer_inline_views = 0",
        f"{candles} FROM k2.ohlcv_1m SETTINGS analyzer_inline_views = 1",
    ]
    watchers = [threading.Thread(target=watch, args=(connect(), sql)) for sql in questions]
    for thread in (run, *watchers):
        thread.start()
    first = 1
    while first <= 4000:
        many = 100 if first % 13 == 0 else 1 + first % 23
        append(log, first, many)
        first += many
        time.sleep(0.02)
    stop.set()
    for thread in (run, *watchers):
        thread.join(PATIENCE_S)
    store.execute("DROP VIEW k2.slow_trades")
    assert wrong == []
    assert count(store) == first - 1
    assert len(set(looks)) > 5
    assert store.rows("SELECT max(generation) FROM k2.commits")[0][0] > loading.GENERATIONS_APART + 1


@pytest.mark.slow
def test_answers_never_step_back_while_loaders_die_and_take_over(connect: Callable[[], Any]) -> None:
    """What a loader had shown stays shown when it dies, also to a question that the next one's commit overtakes.

    The pause stands between the evaluation of the last commit and the reading of the file: a tail that is emptied as
    soon as the commit is there fails this test.
    """
    log, store = MemoryLog(), connect()
    make_slow_trades(store, 0.05)
    stop = threading.Event()
    wrong: list[Any] = []

    def watch(reader: Any, view: str) -> None:
        most = 0
        while not stop.is_set():
            rows, distinct = reader.rows(f"SELECT count(), uniqExact(trade_id) FROM {view}")[0]
            if not rows == distinct >= most:
                wrong.append((view, rows, distinct, most))
            most = max(most, rows)

    watchers = [threading.Thread(target=watch, args=(connect(), f"k2.{v}_trades")) for v in ("slow", "silver")]
    for thread in watchers:
        thread.start()
    first = 1
    for _ in range(12):
        one = loader(log, connect)
        one.take_over()
        for _ in range(10):
            append(log, first, 7)
            first += 7
            one.load()
            time.sleep(0.01)
    stop.set()
    for thread in watchers:
        thread.join(PATIENCE_S)
    store.execute("DROP VIEW k2.slow_trades")
    assert wrong == []
    assert count(store) == first - 1


def test_errors_of_the_store_are_survived(connect: Callable[[], Any]) -> None:
    log, store = MemoryLog(), connect()
    stop = threading.Event()
    one = loader(log, connect, flush_s=0.05)
    run = threading.Thread(target=one.run, args=(stop, lambda seconds: stop.wait(0.01)))
    run.start()
    append(log, 1, 10)
    wait_until(lambda: count(store) == 10)
    store.execute("RENAME TABLE k2.silver_recent TO k2.gone")
    append(log, 11, 10)
    time.sleep(0.2)
    store.execute("RENAME TABLE k2.gone TO k2.silver_recent")
    wait_until(lambda: count(store) == 20)
    stop.set()
    run.join(PATIENCE_S)
    assert store.rows("SELECT count() FROM k2.silver_base") == [(20,)]


def test_every_batch_is_noted_in_the_trace(connect: Callable[[], Any], tmp_path: Any) -> None:
    log = MemoryLog()
    one = loader(log, connect)
    one.take_over()
    trace.start(str(tmp_path))
    try:
        for first in (1, 8):
            append(log, first, 7)
            before = time.time_ns()
            one.load()
            noted = trace.read(tmp_path, "loaded")[trades_stream("binance")]
            assert noted[-1][:2] == (first - 1, 7)
            assert before <= noted[-1].begun <= noted[-1].ended <= time.time_ns()
    finally:
        trace.stop()
    assert len(noted) == 2


def restart(store: Any) -> None:
    """What is lost when the store's process is started anew."""
    store.execute("TRUNCATE TABLE k2.silver_recent")
    fresh.empty(store)


def wait_until(done: Callable[[], bool], within: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
