"""Whatever comes in, in whatever order, and wherever the loader or the store breaks off: the store equals the log."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from k2.config import LoaderConfig
from k2.core.candle import INTERVALS, CandleBuilder
from k2.core.codec import GAPS_STREAM, encode_frame, encode_gap, encode_trade, frames_stream, trades_stream
from k2.core.types import Frame, Gap, Trade
from k2.log import Entry
from k2.log.memory import MemoryLog
from k2.store import Store, StoreError, StoreUnavailable, fresh
from k2.store.loader import Loader

START = 1_700_000_000 // 86_400 * 86_400 + 86_370  # 30 s before midnight
SYMBOLS = ("BTC-USDT", "ETH-USDT")


def trade(symbol: str, number: int) -> Trade:
    """Trade `number` of a symbol: everything about it follows from its id."""
    return Trade(
        "binance",
        symbol,
        symbol.replace("-", ""),
        number,
        f"{100 + number * 7919 % 13}.{number % 10}5",
        f"0.{number * 31 % 89 + 1:03d}",
        "buy" if number % 3 else "sell",
        (START + number * 5) * 1_000_000_000 + number,
        1_700_000_000_000_000_000 + number,
        "live",
    )


class Breaking:
    """A store whose next statements can be told to fail, with or without effect."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.countdown = 0
        self.effect = False

    def _pass(self, call: Callable[[], Any]) -> Any:
        self.countdown -= 1
        if self.countdown == 0:
            if self.effect:
                call()
            raise StoreUnavailable("broken off")
        return call()

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        self._pass(lambda: self.store.execute(sql))

    def rows(self, sql: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self._pass(lambda: self.store.rows(sql))
        return found

    def stream(self, sql: str, fmt: str, params: Mapping[str, Any] | None = None) -> Iterator[bytes]:
        found: Iterator[bytes] = self._pass(lambda: self.store.stream(sql, fmt))
        return found

    def insert(self, sql: str, body: bytes, params: Mapping[str, Any] | None = None) -> None:
        self._pass(lambda: self.store.insert(sql, body))

    def close(self) -> None:
        pass


class World:
    """A log, a store, a loader, and the trades that the log holds."""

    def __init__(self, store: Store) -> None:
        self.log = MemoryLog()
        self.store = store
        self.breaking = Breaking(store)
        self.trades: dict[tuple[str, int], Trade] = {}
        self.frames = 0
        self.gaps: dict[tuple[str, int], Gap] = {}
        self.tail_lost = False
        self.start_loader()

    def start_loader(self) -> None:
        self.loader = Loader(self.log, self.breaking, self.breaking, LoaderConfig(), ("binance",))
        self.take_over()

    def take_over(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                self.loader.take_over()
                self.tail_lost = False
                return

    def attempt(self, step: Callable[[], object]) -> None:
        try:
            step()
        except StoreError:  # broken off, or the store has lost its tail
            self.check_candles()
            self.take_over()

    def append(self, symbol: str, ids: list[int]) -> None:
        trades = [trade(symbol, number) for number in ids]
        self.trades.update({(symbol, each.trade_id): each for each in trades})
        values = [encode_trade(each) for each in trades]
        frames = [encode_frame(Frame(each.recv_ts, "ws", "c1", "", b"\x00\xff\n" * each.trade_id)) for each in trades]
        gap = Gap("binance", symbol, ids[0], ids[-1], "open", "no 'reason'", self.frames + 1, 2)
        self.gaps[symbol, ids[0]] = gap
        self.frames += len(frames)
        self.log.append(
            [
                Entry(frames_stream("binance"), [""] * len(frames), frames),
                Entry(trades_stream("binance"), [symbol] * len(values), values),
                Entry(GAPS_STREAM, [symbol], [encode_gap(gap)]),
            ]
        )

    def flush(self) -> None:
        self.loader.flush(self.loader.seal(), settled=False)

    def visible(self) -> list[tuple[Any, ...]]:
        return self.store.rows(
            "SELECT symbol, trade_id, toString(price), toString(quantity), side, toUnixTimestamp64Nano(exchange_ts),"
            " toUnixTimestamp64Nano(recv_ts), source, native_symbol, exchange, epoch FROM k2.silver_trades"
            " ORDER BY symbol, trade_id"
        )

    def check(self) -> None:
        rows = self.visible()
        assert len({row[:2] for row in rows}) == len(rows), "a trade is there twice"
        for row in rows:
            known = self.trades[row[:2]]
            assert (Decimal(row[2]), Decimal(row[3])) == (Decimal(known.price), Decimal(known.quantity))
            assert row[4:] == (
                known.side,
                known.exchange_ts,
                known.recv_ts,
                "live",
                known.native_symbol,
                "binance",
                known.epoch,
            )
        self.check_candles()

    def check_candles(self) -> None:
        """The candles are those of the visible trades (`complete` may lag until the next flush)."""
        if not self.tail_lost:
            seen = [self.trades[row[:2]] for row in self.visible()]
            stored, expected = self.candles("1m"), expected_candles(seen, "1m")
            assert [candle[:-1] for candle in stored] == [candle[:-1] for candle in expected]

    def candles(self, interval: str) -> list[tuple[Any, ...]]:
        return [
            (*row[:2], int(row[2]), *(Decimal(number) for number in row[3:11]), *row[11:14], bool(row[14]))
            for row in self.store.rows(
                "SELECT exchange, symbol, toUnixTimestamp(window_start), toString(open), toString(high), toString(low),"
                " toString(close), toString(volume), toString(quote_volume), toString(buy_volume), toString(vwap),"
                f" trade_count, first_trade_id, last_trade_id, complete FROM k2.ohlcv_{interval} ORDER BY 1, 2, 3"
            )
        ]

    def finish(self) -> None:
        self.breaking.countdown = 0
        if self.tail_lost:
            self.take_over()
        while self.loader.load():
            pass
        self.attempt(self.flush)
        self.check()
        assert len(self.visible()) == len(self.trades)
        for interval in INTERVALS:
            assert self.candles(interval) == expected_candles(self.trades.values(), interval)
        assert self.store.rows("SELECT count(), uniqExact(position), max(position) FROM k2.bronze_frames") == [
            (self.frames, self.frames, max(0, self.frames - 1))
        ]
        gaps = self.store.rows("SELECT symbol, first_id, last_id, toUnixTimestamp64Nano(event_ts) FROM k2.gaps")
        assert sorted(gaps) == sorted((g.symbol, g.first_id, g.last_id, g.event_ts) for g in self.gaps.values())


def expected_candles(trades: Any, interval: str) -> list[tuple[Any, ...]]:
    builder = CandleBuilder(60)
    for each in trades:
        builder.add(each)
    return [tuple(candle) for candle in builder.candles(INTERVALS[interval])]


appends = st.tuples(st.just("append"), st.sampled_from(SYMBOLS), st.lists(st.integers(1, 40), min_size=1, max_size=12))
runs = st.tuples(st.just("run"), st.sampled_from(SYMBOLS), st.integers(1, 30), st.integers(1, 20))
breaks = st.tuples(st.just("break"), st.integers(1, 9), st.booleans())
steps = st.one_of(
    appends,
    runs,
    st.tuples(st.sampled_from(["load", "load", "flush", "flush", "replace", "kill", "restart_store"])),
    breaks,
)


def play(world: World, script: list[tuple[Any, ...]]) -> None:
    for step in script:
        match step:
            case ("append", symbol, ids):
                world.append(symbol, ids)
            case ("run", symbol, first, count):
                world.append(symbol, list(range(first, first + count)))
            case ("load",):
                world.attempt(world.loader.load)
            case ("flush",):
                world.attempt(world.flush)
            case ("replace",):
                world.attempt(lambda: world.loader.replace_tail(0))
            case ("kill",):
                world.start_loader()
            case ("restart_store",):
                for table in ("silver_recent", "silver_stage"):
                    world.store.execute(f"TRUNCATE TABLE k2.{table}")
                fresh.empty(world.store)
                world.tail_lost = True
            case ("break", countdown, effect):
                world.breaking.countdown, world.breaking.effect = countdown, effect
        if step[0] not in ("append", "run", "break"):
            world.check()
    world.finish()


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )


@_settings(5)
@given(script=st.lists(steps, min_size=3, max_size=10))
def test_the_store_equals_the_log_wherever_it_breaks(connect: Callable[[], Any], script: list[tuple[Any, ...]]) -> None:
    store = connect()
    _empty(store)
    play(World(store), script)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@_settings(60)
@given(script=st.lists(steps, min_size=3, max_size=25))
def test_the_same_at_length(connect: Callable[[], Any], script: list[tuple[Any, ...]]) -> None:
    store = connect()
    _empty(store)
    play(World(store), script)


def _empty(store: Any) -> None:
    tables = "SELECT name FROM system.tables WHERE database = 'k2' AND engine != 'View' AND name != 'migrations'"
    for (table,) in store.rows(tables):
        store.execute(f"TRUNCATE TABLE k2.{table}")
