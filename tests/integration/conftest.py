"""The whole platform on the simulator, in real processes, and the truth that its answers are compared with."""

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import duckdb
import pyarrow as pa
import pytest
from tests.patience import PATIENCE_S

from k2.config import EXCHANGES, Config, instruments, load
from k2.ops import platform
from k2.ops.ports import free_port
from k2.ops.supervise import Supervisor
from k2.sim.truth import SIZE, TrueTrade, truth, truth_dir
from k2.store import StoreError
from k2.wire import open_store

BINANCE, COINBASE, KRAKEN = EXCHANGES
SYMBOLS = {
    BINANCE: ("BTC-USDT", "ETH-USDT", "ADA-USDT"),
    COINBASE: ("BTC-USD", "ETH-USD", "ADA-USD"),
    KRAKEN: ("BTC-USD", "ETH-USD", "DOGE-USD"),
}
QUICK = {
    "K2_METRICS_PORT": "0",
    "K2_FEED_SILENCE": "3.0",
    "K2_FEED_BACKOFF_FIRST": "0.05",
    "K2_FEED_BACKOFF_CAP": "0.4",
    "K2_FEED_HEAL_DELAY": "0.1",
    "K2_FEED_HEAL_TIMEOUT": "1.0",
    "K2_LOADER_FLUSH_S": "0.5",
    "K2_STORE_MAX_MEMORY_MB": "1024",
    "K2_TIER_EVERY_S": "0",
}
INTERVALS = {"1m": 60, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "1d": 86400}
NUMBERS = ("open", "high", "low", "close", "volume", "quote_volume", "buy_volume", "vwap")
COUNTS = ("trade_count", "first_trade_id", "last_trade_id", "complete")

Identity = tuple[str, str, int, int]
Fields = tuple[Decimal, Decimal, str, int]


def some_free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]


class Platform:
    """Simulator, store, loader and three feed handlers under a supervisor that runs in a thread of its own."""

    def __init__(self, folder: Path, settings: Mapping[str, str], sim: Iterable[str] = ("--paused",)) -> None:
        self.folder = folder
        self.instruments = folder / "instruments.toml"
        self.symbols = SYMBOLS
        self.list_symbols(SYMBOLS)
        store, ws, rest = some_free_ports(3)
        self.environ = {
            "K2_DATA": str(folder / "data"),
            "K2_INSTRUMENTS": str(self.instruments),
            "K2_STORE_PORT": str(store),
            "K2_WEB_PORT": "0",
            "K2_SIM_WS_PORT": str(ws),
            "K2_SIM_REST_PORT": str(rest),
            **QUICK,
            **settings,
        }
        self.environ |= platform.demo_environment(load(environ=self.environ))
        self.config: Config = load(environ=self.environ)
        self.said: list[str] = []
        self._sim = list(sim)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.supervisor: Supervisor | None = None

    def listed(self) -> list[str]:
        """The symbols that are captured of the first venue, as many as of the others."""
        return list(instruments(self.instruments)[BINANCE])

    def list_symbols(self, symbols: Mapping[str, Iterable[str]]) -> None:
        part = self.instruments.with_suffix(".part")
        part.write_text("".join(f"{name} = {json.dumps(list(listed))}\n" for name, listed in symbols.items()))
        part.replace(self.instruments)

    def _run(self, coroutine: Any, timeout: float = 60.0) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(timeout)

    def start(self) -> None:
        """Start all processes; returns when each is ready and every venue has its subscriptions."""

        async def begin() -> None:
            services = platform.demo(self.config, self._sim)
            self.supervisor = Supervisor(services, self.config.run_dir, self.environ, self.said.append)
            self.supervisor.start()
            await self.supervisor.wait_ready()

        self._run(begin())
        self.wait_subscribed()

    def stop(self) -> list[str]:
        """Stop all processes. Returns those that had to be killed."""
        if self.supervisor is None:
            return []
        supervisor, self.supervisor = self.supervisor, None
        killed: list[str] = self._run(supervisor.stop())
        return killed

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    @property
    def restarts(self) -> dict[str, int]:
        assert self.supervisor is not None
        return {name: service.restarts for name, service in self.supervisor.services.items()}

    def kill(self, name: str) -> bool:
        """kill -9; False if it is not running just now."""
        assert self.supervisor is not None
        pid = self.supervisor.services[name].pid
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        return True

    def control(self, path: str, body: Mapping[str, Any] | None = None, method: str = "POST") -> Any:
        """Speak to the simulator's control endpoint, through its restarts."""
        url = f"http://127.0.0.1:{self.config.sim.rest_port}/control/{path}"
        data = json.dumps(body).encode() if body is not None else None
        for attempt in range(100):
            try:
                with urlopen(Request(url, data=data, method=method), timeout=PATIENCE_S) as answer:
                    return json.load(answer)
            except (ConnectionError, TimeoutError, OSError):
                if attempt == 99:
                    raise
                time.sleep(0.1)
        raise AssertionError("unreachable")

    def sim_status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.control("status", method="GET")
        return status

    def order(self, fault: str, exchange: str, **fields: Any) -> None:
        self.control("faults", {"fault": fault, "exchange": exchange, **fields})

    def clear(self, fault: str = "") -> None:
        self.control(f"faults?fault={fault}" if fault else "faults", method="DELETE")

    def trade(self, rate: float) -> None:
        """Let the market trade, until paused."""
        self.control("rate", {"rate": rate})
        self.control("resume")

    def emit(self, count: int = 1) -> None:
        """`count` trades of every symbol."""
        for exchange, state in self.sim_status()["exchanges"].items():
            for symbol in state["symbols"]:
                self.control("emit", {"exchange": exchange, "symbol": symbol, "count": count})

    def wait(self, what: str, condition: Callable[[], object], within: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + within
        while not (seen := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {within:.0f} s; the last look gave {seen!r}\n{self.words()}")
            time.sleep(0.05)

    def subscribed(self) -> set[int]:
        """The numbers of symbols that the venues' clients have subscribed."""
        return {state["subscribed"] for state in self.sim_status()["exchanges"].values()}

    def wait_subscribed(self, want: int = 3, within: float = PATIENCE_S) -> None:
        self.wait(f"{want} symbols subscribed at every venue", lambda: min(self.subscribed()) >= want, within)

    def settle(self, within: float = PATIENCE_S) -> None:
        """Reveal every hole (by a later trade of each symbol), and wait until all that was traded is stored."""
        self.control("pause")
        self.clear()
        self.wait_subscribed(len(self.listed()), within)
        time.sleep(0.3)
        self.emit()
        self.wait("as many distinct trades stored as were made", self.all_stored, within)
        # `complete` of a minute in the live tail may lag behind a trade that came late; a commit makes it good.
        self._run(platform.loaded(self.config, 0.0))

    def all_stored(self) -> bool:
        try:
            return self.count("SELECT count() FROM k2.silver_trades") == self.made().total()
        except StoreError:
            return False

    def made(self) -> Counter[tuple[str, str]]:
        """How many trades the simulator has made of each (exchange, symbol)."""
        found: Counter[tuple[str, str]] = Counter()
        for file in truth_dir(self.config.data_dir).glob("*/*.trades"):
            found[file.parent.name, file.name.split(".")[0]] += file.stat().st_size // SIZE
        return found

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        store = open_store(self.config)
        try:
            return store.rows(sql)
        finally:
            store.close()

    def count(self, sql: str) -> int:
        return int(self.rows(sql)[0][0])

    def proven(self) -> dict[str, Any]:
        """`k2 verify`'s report; every check of it must be ok."""
        from k2.ops.verify import verify

        report: dict[str, Any] = verify(self.config)
        wrong = [check for check in report["checks"] if not check["ok"]]
        assert not wrong, f"{wrong}\n{json.dumps(report['results'])[:3000]}"
        return report

    def words(self) -> str:
        """What the processes said last: for the person who reads a failure."""
        files = sorted([*self.config.run_dir.glob("*.err"), *self.config.run_dir.glob("*.log")])
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in files)

    def equals_truth(self) -> int:
        """silver_trades and all candles equal the truth, every field. Returns the number of trades."""
        made = list(truth(self.config.data_dir))
        expected = {identity(t): fields(t) for t in made}
        assert len(expected) == len(made)
        stored: dict[Identity, Fields] = {}
        for row in self.rows(
            "SELECT exchange, symbol, epoch, trade_id, price, quantity, side, toUnixTimestamp64Nano(exchange_ts), "
            "count() FROM k2.silver_trades GROUP BY ALL"
        ):
            exchange, symbol, epoch, trade_id, price, quantity, side, at, times = row
            assert int(times) == 1, f"{row} stands {times} times"
            key = (str(exchange), str(symbol), int(epoch), int(trade_id))
            assert key not in stored, f"{key} is stored with different fields"
            stored[key] = (Decimal(price), Decimal(quantity), str(side), int(at))
        missing, strange = sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys())
        assert not missing, f"{len(missing)} of {len(expected)} trades are missing: {missing[:20]}\n{self.words()}"
        assert not strange, f"{len(strange)} stored trades were never made: {strange[:20]}"
        different = [(key, stored[key], expected[key]) for key in expected if stored[key] != expected[key]]
        assert not different, f"{len(different)} trades differ, (stored, true): {different[:5]}"
        for interval, seconds in INTERVALS.items():
            self._compare_candles(interval, candles(made, seconds))
        return len(made)

    def _compare_candles(self, interval: str, expected: Mapping[tuple[str, str, int], tuple[Any, ...]]) -> None:
        columns = ", ".join((*NUMBERS, *COUNTS))
        found = {
            (str(row[0]), str(row[1]), int(row[2])): (
                *(Decimal(value) for value in row[3 : 3 + len(NUMBERS)]),
                *(int(value) for value in row[3 + len(NUMBERS) :]),
            )
            for row in self.rows(
                f"SELECT exchange, symbol, toUnixTimestamp(window_start), {columns} FROM k2.ohlcv_{interval}"
            )
        }
        assert found.keys() == expected.keys(), f"ohlcv_{interval}: {found.keys() ^ expected.keys()}"
        wrong = {key: (found[key], expected[key]) for key in expected if found[key] != expected[key]}
        assert not wrong, f"ohlcv_{interval}: {len(wrong)} candles differ, (stored, true): {list(wrong.items())[:3]}"


def identity(trade: TrueTrade) -> Identity:
    return trade.exchange, trade.symbol, trade.epoch, trade.trade_id


def fields(trade: TrueTrade) -> Fields:
    return Decimal(trade.price), Decimal(trade.quantity), trade.side, trade.exchange_ts


def candles(trades: list[TrueTrade], seconds: int) -> dict[tuple[str, str, int], tuple[Any, ...]]:
    """What DuckDB makes of the same trades: (exchange, symbol, window start in s) to NUMBERS and COUNTS."""
    table = pa.table({name: [getattr(t, name) for t in trades] for name in TrueTrade._fields})
    con = duckdb.connect()
    con.register("truth", table)
    rows = con.execute(
        f"""WITH t AS (SELECT exchange, symbol, exchange_ts // 1000000000 // {seconds} * {seconds} AS w, epoch, side,
                trade_id AS id, epoch * 1000000000000 + trade_id AS place,
                CAST(price AS DECIMAL(18, 8)) AS p, CAST(quantity AS DECIMAL(18, 8)) AS q FROM truth)
            SELECT exchange, symbol, w, arg_min(p, place), max(p), min(p), arg_max(p, place), sum(q),
                CAST(sum(CAST(p AS DECIMAL(19, 8)) * CAST(q AS DECIMAL(19, 8))) AS DECIMAL(38, 16)),
                coalesce(sum(q) FILTER (side = 'buy'), 0), count(*), arg_min(id, place), arg_max(id, place),
                min(epoch) = max(epoch) FROM t GROUP BY ALL"""
    ).fetchall()
    con.close()
    found: dict[tuple[str, str, int], tuple[Any, ...]] = {}
    for exchange, symbol, start, *numbers, count, first, last, one_epoch in rows:
        volume, quote_volume = Decimal(numbers[4]), Decimal(numbers[5])
        vwap = Decimal(int(quote_volume * 10**16) * 10**18 // int(volume * 10**16)).scaleb(-18)
        complete = int(one_epoch and count == last - first + 1)
        found[exchange, symbol, int(start)] = (*map(Decimal, numbers), vwap, count, first, last, complete)
    return found


@pytest.fixture
def free_ports() -> Callable[[int], list[int]]:
    return some_free_ports


@pytest.fixture
def run_platform(tmp_path: Path) -> Iterator[Callable[..., Platform]]:
    """Makes started platforms, and leaves none behind."""
    made: list[Platform] = []

    def make(sim: Iterable[str] = ("--paused",), start: bool = True, **settings: str) -> Platform:
        folder = tmp_path / f"p{len(made)}"
        folder.mkdir()
        made.append(Platform(folder, settings, sim))
        if start:
            made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed for whatever is random, printed so that a failure can be repeated with K2TEST_SEED."""
    number = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"\n{request.node.name}: CHAOS_SEED={number}")
    return number
