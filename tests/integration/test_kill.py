"""kill -9 of any process at any moment changes no answer. A reader looks on all the while and must never see a trade
twice, nor one that was seen go away while the store lives."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.patience import PATIENCE_S

from k2.store import StoreError
from k2.wire import open_store

RATE = 300.0
VICTIMS = ("feed-handler-binance", "feed-handler-coinbase", "feed-handler-kraken", "loader", "store", "sim")
DISTINCT = "SELECT exchange, symbol, epoch, count(), uniqExact(trade_id) FROM k2.silver_trades GROUP BY 1, 2, 3"

Counts = dict[tuple[str, str, int], int]  # (exchange, symbol, epoch) to distinct trades


class Reader(threading.Thread):
    """Asks the store again and again. `wrong` collects what must not be; `looks` counts the answers."""

    def __init__(self, platform: Any) -> None:
        super().__init__(daemon=True)
        self.platform = platform
        self.stop = threading.Event()
        self.wrong: list[str] = []
        self.looks = 0
        self.life = 0  # of the store: raised by who kills it

    def run(self) -> None:
        seen: Counts = {}
        life = -1
        store = open_store(self.platform.config)
        while not self.stop.is_set():
            if life != self.life:
                life, seen = self.life, {}
            try:
                before = self._counts(store)
                in_candles = self._in_candles(store)
                after = self._counts(store)
            except StoreError:
                seen = {}  # it may have died and come back: what was not yet in parts is loaded again
                store.close()
                time.sleep(0.05)
                store = open_store(self.platform.config)
                continue
            if life == self.life:
                self._judge(seen, before, after, in_candles)
            seen = after
            self.looks += 1
            time.sleep(0.02)
        store.close()

    def _counts(self, store: Any) -> Counts:
        found = {}
        for exchange, symbol, epoch, count, distinct in store.rows(DISTINCT):
            if int(count) != int(distinct):
                self.wrong.append(f"{exchange} {symbol}: {count} rows of {distinct} trades")
            found[str(exchange), str(symbol), int(epoch)] = int(distinct)
        return found

    def _in_candles(self, store: Any) -> dict[tuple[str, str], int]:
        rows = store.rows("SELECT exchange, symbol, sum(trade_count) FROM k2.ohlcv_1m GROUP BY exchange, symbol")
        return {(str(exchange), str(symbol)): int(count) for exchange, symbol, count in rows}

    def _judge(self, seen: Counts, before: Counts, after: Counts, in_candles: dict[tuple[str, str], int]) -> None:
        """Trades never go away; candles hold at least the trades that were there before, at most those ever made."""
        for earlier, later in ((seen, before), (before, after)):
            for key, count in earlier.items():
                if later.get(key, 0) < count:
                    self.wrong.append(f"{key}: {count} trades, then {later.get(key, 0)}")
        least: Counter[tuple[str, str]] = Counter()
        for (exchange, symbol, _), count in before.items():
            least[exchange, symbol] += count
        made = self.platform.made()
        for place in least.keys() | in_candles.keys():
            if not least[place] <= in_candles.get(place, 0) <= made[place]:
                found = in_candles.get(place, 0)
                self.wrong.append(f"{place}: {least[place]} trades, {found} in candles, {made[place]} ever made")


def murder(
    platform: Any, kills: int, seed: int, victims: tuple[str, ...], pause: tuple[float, float], reader: Any
) -> Counter[str]:
    """Kill at random while the market trades. A simulator that comes back paused is set going again."""
    rng = random.Random(seed)
    done: Counter[str] = Counter()
    platform.trade(RATE)
    while done.total() < kills:
        time.sleep(rng.uniform(*pause))
        victim = rng.choice(victims)
        if victim == "store" and reader is not None:
            reader.life += 1
        if platform.kill(victim):
            done[victim] += 1
            if victim == "sim":
                platform.wait("the simulator back", lambda: platform.supervisor.services["sim"].pid)
                platform.trade(RATE)
    return done


def survive(platform: Any, kills: int, seed: int, pause: tuple[float, float]) -> None:
    platform.emit(2)
    platform.wait("the first trades stored", platform.all_stored)
    reader = Reader(platform)
    reader.start()
    done = murder(platform, kills, seed, VICTIMS, pause, reader)
    platform.settle()
    platform.wait("enough looks", lambda: reader.looks > 10)
    reader.stop.set()
    reader.join(PATIENCE_S)
    trades = platform.equals_truth()
    platform.proven()
    print(f"{done.total()} kills {dict(done)}, {trades} trades, {reader.looks} looks")
    assert not reader.wrong, f"seen while it happened: {reader.wrong[:10]}"


def test_some_kills(run_platform: Callable[..., Any], seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2.ops.supervise.STEADY_AFTER", 0.0)
    survive(run_platform(), 6, seed, (0.2, 0.8))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sixty_kills(run_platform: Callable[..., Any], seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2.ops.supervise.STEADY_AFTER", 0.0)
    survive(run_platform(), 60, seed, (0.1, 1.5))
