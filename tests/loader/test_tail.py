import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE_S

from k2.ask.tail import LiveTail
from k2.store import StoreError, StoreUnavailable, fresh
from k2.store import tail as tails
from k2.store.commit import take_over
from k2.store.tail import CHUNK_ROWS, MANY, RECENT, RUN, Tail


def trade(number: int, generation: int) -> bytes:
    return (
        b'{"exchange":"kraken","symbol":"BTC-USD","native_symbol":"BTC/USD","trade_id":%d,"price":"1.5","quantity":"2",'
        b'"side":"buy","exchange_ts":1700000000000000000,"recv_ts":1700000000000000001,"source":"live",'
        b'"generation":%d}\n' % (number, generation)
    )


class Numbered:
    """Puts trades 1, 2, 3, ... into a tail."""

    def __init__(self, store: Any) -> None:
        self.tail = Tail(store)
        self.tail.take_over(5)
        self.count = 0

    def put(self, rows: int) -> None:
        generation = self.tail.number(rows)
        ids = range(self.count + 1, self.count + rows + 1)
        self.count += rows
        self.tail.put(b"".join(trade(number, generation) for number in ids), rows)


def shown(store: Any) -> tuple[int, int]:
    """Trades that the tail shows, and the greatest id among them."""
    row = store.rows("SELECT count(), max(trade_id) FROM k2.silver_tail")[0]
    return int(row[0]), int(row[1])


def in_file(store: Any) -> int:
    return int(store.rows("SELECT count() FROM k2.silver_fresh WHERE generation > 0")[0][0])


def in_memory(store: Any) -> int:
    return int(store.rows(f"SELECT count() FROM {RECENT}")[0][0])


def test_few_trades_are_shown_from_the_file_without_a_statement(connect: Callable[[], Any]) -> None:
    store = connect()
    one = Numbered(store)
    one.put(1)
    one.put(2)
    one.put(3)
    assert (in_memory(store), in_file(store)) == (1, 5)
    assert shown(store) == (6, 6)
    assert one.tail.inserts == 1


def test_sealing_moves_the_chunk_into_memory_and_shows_each_trade_once(connect: Callable[[], Any]) -> None:
    store = connect()
    one = Numbered(store)
    one.put(1)
    one.put(2)
    sealed = one.tail.seal()
    assert in_memory(store) == 3
    assert in_file(store) == 2  # for a while yet
    assert shown(store) == (3, 3)
    one.put(1)
    assert one.tail.number() > sealed
    assert shown(store) == (4, 4)


def test_many_trades_go_past_the_file_and_begin_a_run(connect: Callable[[], Any]) -> None:
    store = connect()
    one = Numbered(store)
    one.put(1)
    one.put(2)
    run = one.tail.number() // RUN
    one.put(MANY)
    assert in_memory(store) == MANY + 3
    assert one.tail.number() // RUN == run + 1
    one.put(2)
    assert shown(store) == (MANY + 5, MANY + 5)


def test_a_run_that_the_snapshot_of_the_memory_lacks_is_not_shown(connect: Callable[[], Any]) -> None:
    """What a question sees that looked at the memory before a chunk went there, and at the file after the next one."""
    store = connect()
    one = Numbered(store)
    one.put(1)
    one.put(2)
    last = one.tail.seal()
    one.put(MANY)
    one.put(2)
    assert shown(store)[0] == MANY + 5
    store.execute(
        f"CREATE OR REPLACE TABLE {RECENT} ENGINE = Memory AS SELECT * FROM {RECENT} WHERE generation <= {last}"
    )
    assert shown(store) == (3, 3)


def test_a_line_that_is_being_written_hides_nothing_else(connect: Callable[[], Any]) -> None:
    store = connect()
    one = Numbered(store)
    one.put(1)
    one.put(2)
    line = trade(4, one.tail.number(1))
    for cut in (1, len(line) // 2, len(line) - 2):
        file = open_file(store)
        os.write(file, line[:cut])
        assert shown(store) == (3, 3)
        os.ftruncate(file, os.fstat(file).st_size - cut)
        os.close(file)
    one.put(1)
    assert shown(store) == (4, 4)


def test_a_store_that_was_started_anew_is_noticed(connect: Callable[[], Any]) -> None:
    store = connect()
    one = Numbered(store)
    one.put(1)
    store.execute(f"TRUNCATE TABLE {RECENT}")
    fresh.empty(store)
    with pytest.raises(StoreUnavailable, match="started anew"):
        one.put(1)
    assert shown(store) == (0, 0)


def test_where_the_file_cannot_be_written_all_goes_to_memory(
    connect: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = connect()
    monkeypatch.setattr(fresh, "_path", lambda _: tmp_path / "of another machine")
    one = Numbered(store)
    one.put(1)
    one.put(2)
    assert in_memory(store) == 3
    assert shown(store) == (3, 3)


def test_a_file_of_the_same_path_that_the_store_does_not_read_is_not_used(
    connect: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = connect()
    (tmp_path / "data.JSONEachRow").touch()
    monkeypatch.setattr(fresh, "_path", lambda _: tmp_path / "data.JSONEachRow")
    assert fresh.open_fresh(store) is None


def test_a_full_disk_is_an_error_that_says_where(connect: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    store = connect()
    one = Numbered(store)
    one.put(1)

    def full(handle: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fresh, "_write", full)
    with pytest.raises(StoreError, match=r"data\.JSONEachRow \(No space left on device\)"):
        one.put(1)


def test_dropping_keeps_the_newest_chunk(connect: Callable[[], Any]) -> None:
    store = connect()
    incarnation, _ = take_over(store, "test", 0)
    one = Numbered(store)
    for _ in range(3):
        one.put(2)
        one.tail.seal()
    one.put(1)
    last = one.tail.number()
    one.tail.drop(last - 1, incarnation)
    one.tail.close()
    assert in_memory(store) == 2
    assert store.rows(f"SELECT count() FROM k2.silver_tail WHERE generation = {last}") == [(1,)]


def open_file(store: Any) -> int:
    path = store.rows("SELECT data_paths[1] FROM system.tables WHERE database = 'k2' AND name = 'silver_fresh'")[0][0]
    return os.open(path, os.O_WRONLY | os.O_APPEND)


class Held:
    """A store whose inserts wait until they may go on, or fail."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.refuses = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def insert(self, sql: str, body: bytes) -> None:
        assert self.may_go_on.wait(PATIENCE_S)
        if self.refuses:
            raise StoreError("refused")
        self.store.insert(sql, body)


def test_trades_are_shown_while_a_chunk_is_on_its_way(connect: Callable[[], Any]) -> None:
    held = Held(connect())
    asking = connect()
    one = Numbered(held)
    one.put(1)
    held.may_go_on.clear()
    while one.count < CHUNK_ROWS + 100:
        one.put(20)
        assert shown(asking) == (one.count, one.count)
    assert (in_memory(asking), in_file(asking)) == (1, one.count - 1)
    held.may_go_on.set()
    sealed = one.tail.seal()
    assert in_memory(asking) == one.count
    assert shown(asking) == (one.count, one.count)
    assert one.tail.number() > sealed
    one.put(1)
    assert shown(asking) == (one.count, one.count)
    one.tail.close()


def test_what_the_store_has_against_a_chunk_is_said_at_the_next_step(connect: Callable[[], Any]) -> None:
    held = Held(connect())
    one = Numbered(held)
    one.put(1)
    held.refuses = True
    while one.count < CHUNK_ROWS + 1:
        one.put(20)
    with pytest.raises(StoreError, match="refused"):
        one.tail.seal()
    one.tail.close()
    assert shown(connect()) == (one.count, one.count)


def test_the_loader_that_takes_over_shows_the_chunks_that_were_on_their_way(connect: Callable[[], Any]) -> None:
    held = Held(connect())
    one = Numbered(held)
    one.put(1)
    held.may_go_on.clear()
    held.refuses = True
    while one.count < CHUNK_ROWS + 100:
        one.put(20)
    held.may_go_on.set()
    one.tail.close()
    asking = connect()
    Tail(connect()).take_over(5 << 30)
    assert in_memory(asking) == one.count
    assert shown(asking) == (one.count, one.count)
    one.tail.close()


def test_a_question_that_the_tail_outran_is_told_to_ask_again(
    connect: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory lacks a chunk that has left the file since: as if it had stalled between the two."""
    store = connect()
    one = Numbered(store)
    one.put(1)
    first = one.tail.number() - 1
    for _ in range(3):
        one.put(2)
        one.tail.seal()
    monkeypatch.setattr(tails, "KEEP_LONG_S", 0.0)
    one.put(2)
    one.tail.seal()
    one.put(1)
    assert shown(store) == (10, 10)
    store.execute(
        f"CREATE OR REPLACE TABLE {RECENT} ENGINE = Memory AS SELECT * FROM {RECENT} WHERE generation <= {first}"
    )
    with pytest.raises(StoreError, match="ask again"):
        shown(store)
    followed = LiveTail()
    assert not followed.feed(store.rows(followed.sql()))
    store.execute(f"TRUNCATE TABLE {RECENT}")  # as after the store's start, while the old loader still has its file
    assert shown(store) == (0, 0)
    assert not followed.feed(store.rows(followed.sql()))  # the memory began anew
    assert followed.feed(store.rows(followed.sql()))
    one.tail.close()
