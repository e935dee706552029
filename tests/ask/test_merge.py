"""Candles merged from stored minutes and the followed tail, and by SQL, are those of the views: whatever is where."""

import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.ask.candles import SECONDS, Candles
from k2.ask.merge import PRICE, QUOTE, merged, read_stored, stored, text, units, windows
from k2.ask.tail import LiveTail
from k2.store import fresh, migrate
from k2.store.embedded import EmbeddedStore, Engine

START = 1_767_398_100  # 2026-01-02T23:55:00Z, a few minutes before midnight
END = START + 600
RUN = 1 << 20
SYMBOLS = (("binance", "BTC-USDT"), ("kraken", "BTC-USD"))


class Trade(NamedTuple):
    generation: int
    of: int
    minute: int
    epoch: int
    trade_id: int
    apart: bool

    def row(self) -> dict[str, Any]:
        """As it stands in the tail."""
        exchange, symbol = SYMBOLS[self.of]
        seed = random.Random(self.trade_id * 31 + self.epoch)
        return {
            "exchange": exchange,
            "symbol": symbol,
            "native_symbol": symbol,
            "trade_id": self.trade_id,
            "price": f"{seed.randrange(1, 10**7)}.{seed.randrange(10**9):09}{seed.randrange(10**9):09}",
            "quantity": f"{seed.randrange(100)}.{seed.randrange(1, 10**18):018}",
            "side": "buy" if self.trade_id % 3 else "sell",
            "exchange_ts": (START + self.minute * 60) * 10**9 + seed.randrange(60 * 10**9),
            "recv_ts": 0,
            "source": "live",
            "epoch": self.epoch,
            "apart": int(self.apart),
            "generation": self.generation,
        }


class World(NamedTuple):
    """Trades of generations 1 to 9: up to `dropped` memory holds none, beyond `newest` only the file does. A minute's
    candle is stored as of `commit`, or, if it is in `flushed`, as of the generation that is about to be committed."""

    trades: list[Trade]
    dropped: int
    commit: int
    flush: int
    newest: int
    flushed: set[int]
    looked: int  # how far memory had come when it was looked at first

    def settled(self, minute: int) -> int:
        return self.flush if minute in self.flushed else self.commit


@st.composite
def worlds(draw: st.DrawFn) -> World:
    dropped, commit, flush, newest = sorted(draw(st.tuples(*[st.integers(0, 8)] * 4)))
    trades = []
    for number in range(draw(st.integers(0, 40))):
        generation = draw(st.integers(1, 9))
        trades.append(
            Trade(
                generation,
                draw(st.integers(0, 1)),
                draw(st.integers(0, 9)),
                draw(st.integers(0, 1)),
                number,
                draw(st.booleans()),
            )
        )
    flushed = draw(st.sets(st.integers(0, 9)))
    return World(trades, dropped, commit, flush, newest, flushed, draw(st.integers(dropped, newest)))


@pytest.fixture(scope="module")
def store() -> Iterator[EmbeddedStore]:
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Path(folder) / "store")
        first = EmbeddedStore(engine)
        migrate.apply(first)
        fresh.empty(first)
        yield first
        first.close()
        engine.close()


def lines(trades: list[Trade]) -> bytes:
    return b"".join(msgspec.json.encode(one.row()) + b"\n" for one in trades)


def put(store: EmbeddedStore, table: str, trades: list[Trade]) -> None:
    if trades:
        store.insert(f"INSERT INTO {table} FORMAT JSONEachRow", lines(trades))


def build(store: EmbeddedStore, world: World) -> LiveTail:
    """Make the store so; the tail is followed while it grows."""
    for table in ("commits", "ohlcv_1m_base", "silver_recent", "silver_stage"):
        store.execute(f"TRUNCATE TABLE k2.{table}")
    if world.commit:
        store.execute(f"INSERT INTO k2.commits (generation, incarnation) VALUES ({world.commit}, 1)")
    put(store, "k2.silver_stage", [one for one in world.trades if one.generation <= world.settled(one.minute)])
    for flushed, number in ((False, world.commit), (True, world.flush)):
        names = ", ".join(str(START + minute * 60) for minute in world.flushed) or "0"
        among = f"{'' if flushed else 'NOT '}intDiv(exchange_ts, 60000000000) * 60 IN ({names})"
        store.execute(
            "INSERT INTO k2.ohlcv_1m_base SELECT exchange, symbol,"
            " toDateTime(intDiv(exchange_ts, 60000000000) * 60, 'UTC') AS window_start,"
            " argMin(price, (epoch, trade_id)), max(price), min(price), argMax(price, (epoch, trade_id)),"
            " sum(toDecimal256(quantity, 18)), sum(toDecimal256(price, 18) * toDecimal256(quantity, 18)),"
            " sumIf(toDecimal256(quantity, 18), side = 'buy'), count(), (min((epoch, trade_id)) AS first).1, first.2,"
            f" (max((epoch, trade_id)) AS last).1, last.2, argMin(apart, (epoch, trade_id)), {number}"
            f" FROM k2.silver_stage WHERE {among} GROUP BY exchange, symbol, window_start"
        )
    memory = [one for one in world.trades if world.dropped < one.generation <= world.newest]
    marker = Trade(world.looked, 0, -99, 0, 10_000, False)  # memory tells its newest generation, trades of it or not
    put(store, "k2.silver_recent", [*(one for one in memory if one.generation <= world.looked), marker])
    tail = LiveTail()
    assert tail.feed(store.rows(tail.sql()))
    marker = marker._replace(generation=world.newest, trade_id=10_001)
    put(store, "k2.silver_recent", [*(one for one in memory if one.generation > world.looked), marker])
    file = fresh.open_fresh(store)
    assert file is not None
    file.begin_anew(lines([one for one in world.trades if one.generation > world.dropped]))
    file.close()
    assert tail.feed(store.rows(tail.sql()))
    return tail


def by_merging(store: EmbeddedStore, tail: LiveTail, question: Candles) -> list[dict[str, Any]]:
    """What the web answers, without remembering anything."""
    query = question.settled(0)
    form = "date_time_output_format = 'iso', output_format_json_quote_decimals = 1"
    shown = b"".join(store.stream(f"{query.sql} FORMAT JSONEachRow SETTINGS {form}", "JSONEachRow", query.params))
    answer = {
        (row["window_start"], row["exchange"], row["symbol"]): row
        for row in map(msgspec.json.decode, shown.splitlines())
    }
    width = SECONDS[question.interval]
    parts = tail.of(question.exchange, question.symbol, *question.scope(0))
    touched = windows(parts, width)
    minutes = dict(read_stored(store.rows(*stored(touched, width)))) if touched else {}
    for window, one in merged(parts, minutes, width).items():
        row = msgspec.json.decode(one.line(window))
        answer[row["window_start"], row["exchange"], row["symbol"]] = row
    return [answer[key] for key in sorted(answer)]


def by_view(store: EmbeddedStore, question: Candles) -> list[dict[str, Any]]:
    names = "exchange, symbol, open, high, low, close, volume, quote_volume, buy_volume, vwap, trade_count"
    sql = (
        f"SELECT {names}, first_trade_id, last_trade_id, toBool(complete) AS complete,"
        f" toDateTime64(v.window_start, 0, 'UTC') AS window_start FROM k2.ohlcv_{question.interval} AS v"
        f" WHERE v.window_start >= toDateTime({START}, 'UTC') AND v.window_start < toDateTime({END}, 'UTC')"
        " ORDER BY window_start, exchange, symbol"
    )
    form = "date_time_output_format = 'iso', output_format_json_quote_decimals = 1"
    shown = b"".join(store.stream(f"{sql} FORMAT JSONEachRow SETTINGS {form}", "JSONEachRow"))
    return [msgspec.json.decode(line) for line in shown.splitlines()]


def by_query(store: EmbeddedStore, question: Candles) -> list[dict[str, Any]]:
    query = question.query(0)
    form = "date_time_output_format = 'iso', output_format_json_quote_decimals = 1"
    shown = b"".join(store.stream(f"{query.sql} FORMAT JSONEachRow SETTINGS {form}", "JSONEachRow", query.params))
    return [msgspec.json.decode(line) for line in shown.splitlines()]


Ways = Callable[[EmbeddedStore, LiveTail, Candles], list[dict[str, Any]]]


@settings(max_examples=15)
@given(worlds(), st.sampled_from(("1m", "5m", "1h", "1d")))
def test_equal_to_the_views(store: EmbeddedStore, world: World, interval: str) -> None:
    tail = build(store, world)
    question = Candles(interval=interval, from_=str(START * 10**9), to=str(END * 10**9), limit=0)
    wanted = by_view(store, question)
    assert by_query(store, question) == wanted
    assert by_merging(store, tail, question) == wanted
    if interval == "1m":
        assert sum(row["trade_count"] for row in wanted) == len(
            [
                one
                for one in world.trades
                if one.generation <= world.settled(one.minute) or one.generation > world.dropped
            ]
        )


def test_memory_that_began_anew_is_looked_at_anew(store: EmbeddedStore) -> None:
    one = Trade(3, 0, 1, 0, 7, False)
    world = World([one], 0, 0, 0, 5, set(), 5)
    tail = build(store, world)
    assert [part.trade.last for part in tail.of((), (), None, None) if part.minute > START] == [(0, 7)]
    store.execute("TRUNCATE TABLE k2.silver_recent")
    assert not tail.feed(store.rows(tail.sql()))
    assert tail.feed(store.rows(tail.sql()))
    assert [part.trade.last for part in tail.of((), (), None, None)] == [(0, 7)]  # the file has it still


def test_what_is_far_past_the_commit_is_not_shown_yet(store: EmbeddedStore) -> None:
    late = Trade(3 + (1 << 40), 0, 1, 0, 7, False)
    tail = build(store, World([], 0, 2, 2, 2, set(), 2))
    put(store, "k2.silver_recent", [late])
    assert tail.feed(store.rows(tail.sql()))
    assert tail.of((), (), None, None) == []
    store.execute("INSERT INTO k2.commits (generation, incarnation) VALUES (4, 1)")
    assert tail.feed(store.rows(tail.sql()))
    assert [part.generation for part in tail.of((), (), None, None)] == [late.generation]
    assert tail.of(("kraken",), (), None, None) == tail.of((), ("kraken:BTC-USDT",), None, None) == []
    assert len(tail.of(("binance",), ("binance:BTC-USDT",), START, END)) == 1
    assert tail.of((), (), None, START + 60) == tail.of((), (), START + 120, None) == []


@given(st.integers(0, 10**40), st.sampled_from((PRICE, QUOTE)))
def test_decimals_come_back(value: int, scale: int) -> None:
    assert units(text(value, scale), scale) == value
    assert not text(value, scale).endswith(".")
