"""A served platform for tests: a log, a store process, a loader, and `k2 web` in this process or in one of its own."""

import asyncio
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from tests.patience import PATIENCE_S
from tests.store.conftest import StoreProcess
from tests.store.conftest import start as start_store

from k2.commands.web import run
from k2.config import EXCHANGES, Config, LoaderConfig, load
from k2.core.codec import GAPS_STREAM, encode_frame, encode_gap, encode_trade, frames_stream, trades_stream
from k2.core.types import Frame, Gap, Trade
from k2.log import Entry, Log
from k2.store.loader import Loader
from k2.wire import open_log

START = 1_767_312_000_000_000_000  # 2026-01-02T00:00:00Z
STEP = 97_003_001  # ns between two trades of a symbol: 2,000 of them take a little over three minutes
MARKETS = {  # exchange -> symbol -> (native symbol, trades, a price)
    "binance": {"BTC-USDT": ("BTCUSDT", 2000, 60_000), "ETH-USDT": ("ETHUSDT", 1000, 3_000)},
    "coinbase": {"BTC-USD": ("BTC-USD", 500, 60_010)},
    "kraken": {"BTC-USD": ("BTC/USD", 500, 59_990)},
}
MISSING = ("kraken", "BTC-USD", 201, 205)  # ids that nobody has: the ledger says so
READER_PASSWORD = "look-only"
FLUSH_S = 0.3  # between two commits of the loader


def trade(exchange: str, symbol: str, number: int, at: int | None = None) -> Trade:
    """The trade with this id: `STEP` after the one before it, from START on; or at another time."""
    native, _, price = MARKETS[exchange][symbol]
    when = START + number * STEP if at is None else at
    return Trade(
        exchange, symbol, native, number, f"{price + number % 97}.{number % 100:02}", f"0.{number % 89 + 1:08}",
        "sell" if number % 3 else "buy", when, when + 1_000_777, "live",
    )  # fmt: skip


def history() -> list[Trade]:
    """All trades that a served platform begins with, less those that are missing."""
    exchange, symbol, first, last = MISSING
    return [
        trade(venue, name, number)
        for venue, symbols in MARKETS.items()
        for name, (_, count, _) in symbols.items()
        for number in range(1, count + 1)
        if not (venue == exchange and name == symbol and first <= number <= last)
    ]


def append(log: Log, trades: Sequence[Trade]) -> None:
    """Trades and a frame for each, as a feed handler would."""
    for exchange in dict.fromkeys(one.exchange for one in trades):
        own = [one for one in trades if one.exchange == exchange]
        frames = [encode_frame(Frame(one.recv_ts, "ws", "c1", "", encode_trade(one))) for one in own]
        records = [encode_trade(one) for one in own]
        log.append(
            [
                Entry(frames_stream(exchange), [""] * len(own), frames),
                Entry(trades_stream(exchange), [one.symbol for one in own], records),
            ]
        )


def ledger() -> list[Gap]:
    """The gap ledger: the start of every symbol, and what is missing."""
    gaps = [
        Gap(venue, name, 1, 1, "start", "first trade seen", START, START)
        for venue, symbols in MARKETS.items()
        for name in symbols
    ]
    exchange, symbol, first, last = MISSING
    at = START + last * STEP
    gaps.append(Gap(exchange, symbol, first, last, "open", "sequence", at, at))
    lost = Gap(exchange, symbol, first, last, "unavailable", "the venue does not have them", at, at, ((first, last),))
    return [*gaps, lost]


@dataclass
class Reply:
    """An HTTP answer. `headers` by name in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    url: str,
    path: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    context: ssl.SSLContext | None = None,
) -> Reply:
    """One request, as it is written here. Raises http.client.IncompleteRead for an answer that was cut."""
    address = urlsplit(url)
    connection: HTTPConnection
    if address.scheme == "https":
        connection = HTTPSConnection(address.hostname or "", address.port, timeout=60, context=context)
    else:
        connection = HTTPConnection(address.hostname or "", address.port, timeout=60)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, found, response.read())
    finally:
        connection.close()


def until(true: Callable[[], object]) -> None:
    """Wait for what comes in a moment."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


class WebThread:
    """`k2 web` in a thread of this process, on a free port. `url` is where it listens."""

    def __init__(self, config: Config) -> None:
        self.config = msgspec.structs.replace(config, web=msgspec.structs.replace(config.web, port=0))
        self.log = open_log(self.config)
        self.url = ""
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE_S), "the web did not start"
        if self._failed:
            raise self._failed

    def _serve(self) -> None:
        def ready(url: str, _: bool) -> None:
            self.url = url
            self._ready.set()

        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(run(self.config, self.log, self._stop, ready))
        except BaseException as error:
            self._failed = error
            self._ready.set()
        finally:
            self._loop.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
        return ask(self.url, path, method, headers)

    def post(self, path: str, value: Any, headers: Mapping[str, str] | None = None) -> Reply:
        body = json.dumps(value).encode()
        return ask(self.url, path, "POST", {"Content-Type": "application/json", **(headers or {})}, body)

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(PATIENCE_S)
            assert not self._thread.is_alive(), "the web did not stop"
        self.log.close()


class WebProcess:
    """`k2 web` as a process, on a free port. `said` is what it has told on stderr."""

    def __init__(self, environ: Mapping[str, str], *arguments: str) -> None:
        command = [sys.executable, "-m", "k2", "web", "--port", "0", *arguments]
        path = {"PATH": "/usr/bin:/bin", "K2_METRICS_PORT": "0"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**path, **environ})
        self.said: list[str] = []
        self.url = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if match := re.search(r"listening on (\S+)", line):
                self.url = match[1]
                threading.Thread(target=self.said.extend, args=(self.process.stderr,), daemon=True).start()
                return
        self.process.wait(PATIENCE_S)

    def get(self, path: str, headers: Mapping[str, str] | None = None, **more: Any) -> Reply:
        return ask(self.url, path, headers=headers, **more)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(PATIENCE_S)


@dataclass
class Served:
    """A platform that is served. `trades` is all that it holds; `say` adds to it."""

    config: Config
    environ: dict[str, str]
    store: StoreProcess
    web: WebThread
    trades: list[Trade]
    _stop: threading.Event
    _loading: threading.Thread
    _more: list[WebThread] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.web.url

    def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
        return self.web.get(path, headers, method)

    def post(self, path: str, value: Any, headers: Mapping[str, str] | None = None) -> Reply:
        return self.web.post(path, value, headers)

    def say(self, trades: Sequence[Trade]) -> None:
        """Append trades to the log; returns when the store shows them."""
        append(self.web.log, trades)
        self.trades.extend(trades)
        self.wait_stored()

    def wait_stored(self) -> None:
        client = self.store.client(database="k2")
        deadline = time.monotonic() + PATIENCE_S
        try:
            while client.rows("SELECT count() FROM silver_trades") != [(len(self.trades),)]:
                assert time.monotonic() < deadline, "the loader did not bring all trades into the store"
                time.sleep(0.02)
        finally:
            client.close()

    def another(self, data: Path | None = None, **settings: Any) -> WebThread:
        """One more web over the same store and log, with other settings of [web]. `data`: another folder, with keys of
        its own (and an empty log). Closed with the fixture."""
        config = msgspec.structs.replace(self.config, web=msgspec.structs.replace(self.config.web, **settings))
        if data is not None:
            config = msgspec.structs.replace(config, data=str(data))
        self._more.append(WebThread(config))
        return self._more[-1]

    def close(self) -> None:
        self._stop.set()
        self._loading.join(PATIENCE_S)
        for web in (*self._more, self.web):
            web.close()
        assert self.store.stop() == 0


def begin(folder: Path) -> Served:
    """Make a platform in a folder: a log with `history()`, a store process, a loader in a thread, a web in another."""
    data = folder / "data"
    data.mkdir(parents=True)
    store = start_store(data, PATH=os.environ.get("PATH", "/usr/bin:/bin"))
    environ = {
        "K2_DATA": str(data),
        "K2_STORE_PORT": str(store.port),
        "K2_STORE_READONLY_PASSWORD": READER_PASSWORD,
        "K2_METRICS_PORT": "0",
        "K2_WEB_RATE_PER_S": "0",
    }
    config = load(environ=environ)
    trades = history()
    web = WebThread(config)
    append(web.log, trades)
    web.log.append([Entry(GAPS_STREAM, [gap.symbol for gap in ledger()], [encode_gap(gap) for gap in ledger()])])
    stop = threading.Event()
    settings = LoaderConfig(flush_s=FLUSH_S, interval_ms=15)
    loader = Loader(web.log, store.client(database="k2"), store.client(database="k2"), settings, EXCHANGES)
    loading = threading.Thread(target=loader.run, args=(stop,), daemon=True)
    loading.start()
    served = Served(config, environ, store, web, trades, stop, loading)
    served.wait_stored()
    return served
