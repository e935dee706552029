"""Rows leave the hot store only for a cold tier that has them, and no answer ever changes by it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.store.conftest import StoreProcess, start
from tests.store.history import DAY, EXCHANGE, PER_DAY, START, STEP, History, emptied, trade

from k2.core.codec import trades_stream
from k2.ops.evidence import LogSide, Scope
from k2.ops.verify import Round
from k2.store import seam as seams
from k2.store.expire import DaysDiffer, Step, expire
from k2.store.pins import show


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    process = start(tmp_path_factory.mktemp("history") / "data")
    yield process
    assert process.stop() == 0


@pytest.fixture
def history(running: StoreProcess, tmp_path: Path) -> Iterator[History]:
    """Four days, all loaded."""
    made = History(tmp_path, emptied(running))
    made.put_days(0, 4)
    made.load()
    yield made
    made.close()


def day(number: int) -> str:
    return f"2026-01-{number + 1:02}"


def test_days_are_handed_over_and_then_deleted(history: History) -> None:
    looked = history.expire(2, dry_run=True)
    assert looked.steps == ()  # nothing is pinned yet, and a dry run pins nothing
    history.show()
    looked = history.expire(2, dry_run=True)
    handed = tuple(Step("handed over", "trades", day(n), PER_DAY) for n in (0, 1))
    assert (looked.steps, looked.hot_from) == (handed, 0)
    assert history.expire(2) == (handed, START + 2 * DAY)
    assert len(history.hot()) == 160
    assert history.columns() == history.expected()
    assert history.expire(2, grace_s=3600).steps == ()
    deleted = tuple(Step("deleted", "trades", day(n), PER_DAY) for n in (0, 1))
    assert history.expire(2, dry_run=True).steps == deleted
    assert history.expire(2).steps == deleted
    assert history.hot() == list(range(81, 161))
    assert history.ids("k2.silver_trades") == list(range(81, 161))
    assert history.columns() == history.expected()
    assert history.expire(2).steps == ()


def test_nothing_goes_that_the_archive_has_not_got(history: History) -> None:
    heads = history.heads()
    now = START + 100 * DAY
    assert expire(history.store, heads, now, 1, 1, grace_s=0).steps == ()
    history.show()
    history.put(*(trade(number) for number in range(161, 171)))
    history.load()
    done = expire(history.store, history.heads(), now, 1, 0, grace_s=0)
    expire(history.store, history.heads(), now, 1, 0, grace_s=0)
    assert sum(step.rows for step in done.steps) == 160
    assert history.hot() == list(range(161, 171))
    assert history.columns() == history.expected()


def test_days_that_differ_stay_and_are_named(history: History) -> None:
    history.put_days(4, 2)
    history.load()
    history.show()
    change = "ALTER TABLE k2.silver_base {} SETTINGS mutations_sync = 1"
    copy = "INSERT INTO k2.silver_base SELECT * {} FROM k2.silver_base AS b WHERE b.trade_id = {}"
    history.store.execute(copy.format("REPLACE (999 AS trade_id)", 10))
    history.store.execute(copy.format("", 50))
    history.store.execute(change.format("DELETE WHERE trade_id = 90"))
    history.store.execute(change.format("UPDATE price = price + 1 WHERE trade_id IN (130, 131)"))
    history.store.execute(change.format("UPDATE recv_ts = recv_ts + toIntervalNanosecond(1) WHERE trade_id = 170"))
    found = ["1 missing from cold", "1 twice", "1 lost from hot", "2 different", "1 different"]
    for _ in range(2):  # the second deletes what the first handed over
        with pytest.raises(DaysDiffer) as caught:
            history.expire(6)
        for number, difference in enumerate(found):
            assert f"{day(number)} kraken BTC-USD: {difference}" in str(caught.value)
        assert {step.day for step in caught.value.expiry.steps} == {day(5)}
    assert set(range(1, 201)) - {90} < set(history.hot())
    assert not set(range(201, 241)) & set(history.hot())
    assert len(history.ids("k2.trades WHERE trade_id > 200 AND trade_id < 999")) == PER_DAY


def test_late_trades_are_hot_until_they_are_handed_over_too(history: History) -> None:
    history.expire(2)
    history.expire(2)
    late = [trade(1000, START + STEP + 5), trade(1001, START + DAY + 7, side="sell"), trade(1002, START + 7, epoch=1)]
    history.put(*late)
    history.loader.load()
    assert history.columns() == history.expected()
    history.load()
    assert history.columns() == history.expected()
    assert history.expire(2, dry_run=True).steps == ()  # cold does not show them yet
    history.show()
    assert history.columns() == history.expected()
    assert {1000, 1001, 1002} < set(history.hot())
    history.put(trade(1003, START + 9))
    history.load()
    assert [(step.what, step.day, step.rows) for step in history.expire(2).steps] == [
        ("handed over", day(0), 3),
        ("handed over", day(1), 1),
    ]
    assert history.columns() == history.expected()
    history.expire(2)
    assert history.hot() == list(range(81, 161))
    assert history.columns() == history.expected()


def test_a_late_trade_that_cold_lacks_stops_the_seam(history: History) -> None:
    history.expire(1)
    history.expire(1)
    history.put(trade(1000, START + 3 * DAY + DAY // 2))
    history.load()
    generation = history.store.rows("SELECT max(generation) FROM k2.commits")[0][0]
    history.store.execute(
        "INSERT INTO k2.silver_base SELECT * REPLACE (toDateTime64('2026-01-01 00:00:01', 9, 'UTC') AS exchange_ts,"
        f" 999 AS trade_id, {generation} AS generation) FROM k2.silver_base WHERE silver_base.trade_id = 160"
    )
    with pytest.raises(DaysDiffer, match=f"{day(0)} kraken BTC-USD: 1 missing from cold"):
        history.expire(2)
    assert seams.read(history.store).end == START + DAY
    assert history.ids() == [*range(1, 161), 999, 1000]


def test_frames_go_when_cold_has_them(history: History) -> None:
    history.put_frames()
    history.load()
    history.show()
    frames = "SELECT count() FROM k2.bronze_frames"
    looked = history.expire(0, frames_days=8, dry_run=True)
    assert [step for step in looked.steps if step.table == "frames"] == [
        Step("deleted", "frames", day(n), PER_DAY) for n in (0, 1)
    ]
    assert history.store.rows(frames) == [(160,)]
    history.store.execute(
        "ALTER TABLE k2.bronze_base UPDATE payload = 'x' WHERE position = 3 SETTINGS mutations_sync = 1"
    )
    with pytest.raises(DaysDiffer, match=f"{day(0)} kraken: 1 different"):
        history.expire(0, frames_days=8)
    assert history.store.rows("SELECT count(), min(position) FROM k2.bronze_frames WHERE position >= 40") == [(80, 80)]
    assert history.store.rows(frames) == [(120,)]


class Died(Exception):
    pass


class Dying:
    """A store whose caller dies before its `nth` writing statement."""

    def __init__(self, history: History, nth: int) -> None:
        self._store = history.client()
        self._left = nth

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def execute(self, sql: str) -> None:
        if self._left == 0:
            raise Died
        self._left -= 1
        self._store.execute(sql)


@pytest.mark.slow
def test_a_crash_between_any_two_steps_changes_no_answer(history: History) -> None:
    """Everything at once: a new pin, late trades, days to hand over and days to delete."""
    history.expire(1)
    died = 0
    while died >= 0:
        history.put(trade(1000 + died, START + died * 11))
        history.load()
        heads = history.archive()
        store: Any = Dying(history, died)
        try:
            show(store, heads)
            expire(store, heads, START + 12 * DAY + DAY // 2, 10, 10, grace_s=0)
            died = -1 - died
        except Died:
            died += 1
        assert history.columns() == history.expected(), died
    assert died < -6
    history.expire(2)
    history.expire(2)
    assert history.hot() == list(range(81, 161))
    assert history.columns() == history.expected()


def failed(history: History) -> set[str]:
    side = LogSide(history.log, Scope((EXCHANGE,)))
    return {check.name for check in Round(history.log, history.store, side, lambda _: None).checks if not check.ok}


def test_what_expired_is_still_proven(history: History) -> None:
    history.expire(2)
    history.expire(2)
    history.put(trade(161, START + DAY + 5, source="backfill"))
    history.load()

    unrecorded = {"symbols whose start is not recorded"}
    assert failed(history) == unrecorded
    history.store.execute("ALTER TABLE k2.silver_base DELETE WHERE trade_id = 100 SETTINGS mutations_sync = 1")
    assert failed(history) == {*unrecorded, "missing trades", "symbols whose store and log differ"}


@pytest.mark.slow
def test_what_the_log_let_go_of_is_no_excess(history: History) -> None:
    """The log begins in the middle, with trades that were back-filled late and lie before others that it let go of."""
    history.put(*(trade(number) for number in range(165, 171)))
    history.load()
    history.expire(2)
    assert history.log.retain(trades_stream(EXCHANGE), None, 1, 10**19) == 166
    history.put(*(trade(number, source="backfill") for number in range(161, 165)))
    history.put(*(trade(number) for number in range(171, 181)))
    history.load()
    history.expire(2)
    assert history.ids() == list(range(1, 181))
    assert failed(history) == set()
    history.store.execute("ALTER TABLE k2.silver_base DELETE WHERE trade_id = 162 SETTINGS mutations_sync = 1")
    assert failed(history) == {"missing trades", "symbols whose store and log differ"}


def test_a_store_begun_anew_shows_what_only_cold_has(history: History, tmp_path: Path) -> None:
    """The log has lost its beginning; the new store never had these trades, so cold's excess is no difference."""
    history.archive()
    process = start(tmp_path / "anew")
    history.log.retain(trades_stream(EXCHANGE), None, 1, 10**19)
    history.put(trade(161))
    anew = History(tmp_path, process)
    anew.log = history.log
    anew.loader = anew.new_loader()
    assert anew.hot() == [161]
    anew.expire(4)
    assert anew.columns() == history.expected()
    anew.close()
    assert process.stop() == 0
