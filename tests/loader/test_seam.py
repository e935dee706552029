"""The loader across the seam; and answers while everything moves: archive, pins, hand-over, expiry, late trades."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE_S
from tests.store.conftest import StoreProcess, start
from tests.store.history import DAY, EXCHANGE, START, STEP, History, emptied, trade

from k2.core.candle import CandleBuilder
from k2.ops.evidence import Scope, stored_candles
from k2.store import StoreError
from k2.store import seam as seams
from k2.store.pins import newest, show

MINUTE = 60_000_000_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    process = start(tmp_path_factory.mktemp("seam") / "data")
    yield process
    assert process.stop() == 0


@pytest.fixture
def history(running: StoreProcess, tmp_path: Path) -> Iterator[History]:
    """Four days, of which the first two left hot."""
    made = History(tmp_path, emptied(running))
    made.put_days(0, 4)
    made.load()
    made.expire(2)
    made.expire(2)
    assert made.hot() == list(range(81, 161))
    yield made
    made.close()


def differing(history: History) -> list[Any]:
    """Candles that are not those of all trades that were ever put into the log."""
    builder = CandleBuilder(60)
    for one in history.said:
        builder.add(one)
    found = []
    for interval, width in (("1m", 60), ("1d", 86_400)):
        wanted = builder.candles(width)
        stored = stored_candles(history.store, Scope((EXCHANGE,)), EXCHANGE, interval, width)
        found += sorted(set(wanted) ^ set(stored))
    return found


@pytest.mark.slow
def test_late_trades_make_candles_of_hot_and_cold(history: History) -> None:
    assert differing(history) == []
    history.put(
        trade(161, START + DAY - 5),  # the last moment of a minute that has no trades
        trade(162, START + 5),
        trade(163, START + 2 * DAY - 1),
        trade(164, START + 2 * DAY),  # the first moment that is hot
        trade(165, START + 3 * STEP, symbol="ETH-USD"),
        trade(170, START + DAY + 3),
    )
    history.load()
    assert differing(history) == []
    history.put(trade(166, START + 7), trade(168, START + 4 * DAY))
    history.load()
    history.expire(2)
    history.put(trade(169, START + DAY + 2), trade(167, START + MINUTE))  # 170 and 168 join at last, across the seam
    history.load()
    assert differing(history) == []
    history.expire(3)
    history.expire(3)
    history.put(trade(171, START + 2 * DAY + 1), trade(172, START + 11))
    history.load()
    assert differing(history) == []
    assert history.columns() == history.expected()


def test_a_seam_that_moves_while_a_generation_is_flushed(history: History) -> None:
    history.put(trade(161, START + 2 * DAY + 5), trade(162, START + 4 * DAY))
    history.loader.load()
    sealed = history.loader.seal()
    history.expire(3)
    history.expire(3)
    assert min(history.hot()) == 121
    history.loader.flush(sealed, settled=False)
    assert differing(history) == []
    assert history.columns() == history.expected()


def test_hot_goes_on_while_cold_cannot_be_read(history: History) -> None:
    """Late trades are loaded; their candles are due, and are right as soon as cold is back."""
    pinned = f"cold_pins.trades_{newest(history.store)['trades'].number}"
    history.store.execute(f"RENAME TABLE {pinned} TO cold_pins.away")
    history.put(trade(161, START + 5), trade(162, START + 3 * DAY + 5))
    history.load()
    assert history.store.rows("SELECT count() FROM k2.candles_due") == [(1,)]
    assert {161, 162} < set(history.hot())
    assert differing(history) == []  # as long as the tail has the trade, the candle is merged with it
    history.store.execute("TRUNCATE TABLE k2.silver_recent")
    assert {one.window_start for one in differing(history)} == {START // 10**9}  # of 1m and 1d
    history.loader = history.new_loader()  # what is due is known to who takes over
    history.put(trade(163, START + 3 * DAY + 6))
    history.load()
    assert len(differing(history)) == 4
    history.store.execute(f"RENAME TABLE cold_pins.away TO {pinned}")
    history.put(trade(164, START + 3 * DAY + 7))
    history.load()
    assert differing(history) == []
    due = "SELECT count() FROM k2.candles_due WHERE done = 0"
    before = history.store.rows(due)
    history.put(trade(165, START + 3 * DAY + 8))
    history.load()
    assert history.store.rows(due) == before


def test_a_loader_takes_over_what_was_handed_over(history: History) -> None:
    """Refuse of a dead loader in a range that cold answers for is neither shown nor hides what cold has."""
    history.put(trade(161, START + 5), trade(162, START + DAY + 5))
    history.loader.load()
    assert history.columns() == history.expected()
    sealed = history.loader.seal()
    history.store.execute("RENAME TABLE k2.commits TO k2.away")
    with pytest.raises(StoreError):
        history.loader.flush(sealed, settled=False)
    history.store.execute("RENAME TABLE k2.away TO k2.commits")
    history.loader = history.new_loader()
    assert history.columns() == history.expected()
    assert differing(history) == []


class Readers:
    """Threads that ask without end, and remember every answer that cannot be."""

    def __init__(self, history: History, views: list[str]) -> None:
        self._stop = threading.Event()
        self.wrong: list[Any] = []
        self.looks = 0
        self._threads = [threading.Thread(target=self._watch, args=(history.client(), view)) for view in views]

    def __enter__(self) -> "Readers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _watch(self, store: Any, view: str) -> None:
        """Ids are put into the log in order, so what is shown is always 1 to some number that never falls."""
        sql = f"SELECT count(), uniqExact(trade_id), max(trade_id), sum(trade_id) FROM {view}"
        most = 0
        while not self._stop.is_set():
            try:
                rows, distinct, last, total = store.rows(sql)[0]
            except StoreError as error:
                self.wrong.append((view, str(error)))
                return
            if not rows == distinct == last >= most or total != last * (last + 1) // 2:
                self.wrong.append((view, rows, distinct, last, total, most))
            most = max(most, rows)
            self.looks += 1
            self._stop.wait(0.05)
        store.close()


def slowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside `k2.trades`, always the same view with pauses before the last commit is looked at, and before cold is."""
    replace = seams.replace_view

    def both(store: Any, seam: Any, pin: int) -> None:
        replace(store, seam, pin)
        text = store.rows("SELECT as_select FROM system.tables WHERE database = 'k2' AND name = 'trades'")[0][0]
        pause = "WHERE ((SELECT sleep(0.03)) = 0) AND "
        slow = text.replace("WHERE (generation > (SELECT", f"{pause}(generation > (SELECT")
        slow = slow.replace("WHERE (generation <= (SELECT", f"{pause}(generation <= (SELECT")
        assert slow.count(pause) == 2
        store.execute(f"CREATE OR REPLACE VIEW k2.slow_trades AS {slow}")

    monkeypatch.setattr(seams, "replace_view", both)


@pytest.mark.slow
def test_answers_only_grow_while_everything_moves(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    slowed(monkeypatch)
    seams.replace_view(history.store, seams.read(history.store), newest(history.store)["trades"].number)
    stop = threading.Event()
    run = threading.Thread(target=history.loader.run, args=(stop,))
    run.start()
    first = 161
    with Readers(history, ["k2.trades", "k2.slow_trades SETTINGS analyzer_inline_views = 0"]) as readers:
        for turn in range(5):
            for _ in range(6):
                late = first % 4 == 0
                history.put(trade(first, START + first * 1009 if late else START + 3 * DAY + first * STEP))
                first += 1
                time.sleep(0.01)
            show(history.store, history.archive(), wait_s=20)
            history.expire(2 + turn // 3)
            if turn == 2:  # a loader dies and another takes over
                stop.set()
                run.join(PATIENCE_S)
                stop = threading.Event()
                history.loader = history.new_loader()
                run = threading.Thread(target=history.loader.run, args=(stop,))
                run.start()
    stop.set()
    run.join(PATIENCE_S)
    assert readers.wrong == []
    assert readers.looks > 20
    assert history.columns() == history.expected()
    assert differing(history) == []
    history.store.execute("DROP VIEW k2.slow_trades")
