"""A simulator in the test's own event loop, and a client that speaks through K2's venue modules."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from tests.patience import PATIENCE_S

from k2.config import Config, MetricsConfig, SimConfig
from k2.core.types import Event, Frame, Trade
from k2.exchanges import venue
from k2.sim.simulator import Options, Simulator
from k2.sim.truth import TrueTrade, truth

SYMBOLS = {"binance": ["BTC-USDT", "DOGE-USDT"], "coinbase": ["BTC-USD", "DOGE-USD"], "kraken": ["BTC-USD", "DOGE-USD"]}
PATHS = {"binance": "/binance/stream", "coinbase": "/coinbase", "kraken": "/kraken/v2"}


def config_for(data: Path, rate: float = 200.0, seed: int = 1) -> Config:
    file = data / "instruments.toml"
    if not file.exists():
        data.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(f"{name} = {symbols}" for name, symbols in SYMBOLS.items()))
    return Config(
        data=str(data),
        instruments=str(file),
        sim=SimConfig(ws_port=0, rest_port=0, rate=rate, seed=seed),
        metrics=MetricsConfig(port=0),
    )


class Session:
    """A running simulator and an HTTP session."""

    def __init__(self, sim: Simulator, http: aiohttp.ClientSession, data: Path) -> None:
        self.sim, self.http, self.data = sim, http, data

    @asynccontextmanager
    async def socket(self, name: str, scheme: str = "ws", **options: Any) -> AsyncIterator["Socket"]:
        url = f"{scheme}://127.0.0.1:{self.sim.ws_port}{PATHS[name]}"
        async with self.http.ws_connect(url, autoping=True, **options) as ws:
            yield Socket(name, ws)

    async def get(self, path: str) -> tuple[int, bytes, Any]:
        async with self.http.get(f"http://127.0.0.1:{self.sim.rest_port}{path}") as answer:
            return answer.status, await answer.read(), answer.headers

    async def control(self, verb: str, body: Any = None, method: str = "POST") -> Any:
        url = f"http://127.0.0.1:{self.sim.rest_port}/control/{verb}"
        async with self.http.request(method, url, data=msgspec.json.encode(body)) as answer:
            return await answer.json()

    async def fault(self, fault: str, exchange: str, **settings: Any) -> list[int]:
        ids: list[int] = (await self.control("faults", {"fault": fault, "exchange": exchange, **settings}))["ids"]
        return ids

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.01)

    async def emit(self, name: str, count: int, symbol: str = "") -> list[int]:
        body = {"exchange": name, "symbol": symbol or SYMBOLS[name][0], "count": count}
        ids: list[int] = (await self.control("emit", body))["ids"]
        return ids

    def true(self, name: str) -> list[TrueTrade]:
        return [trade for trade in truth(self.data) if trade.exchange == name]


class Socket:
    """A client of one venue: `events` decodes with the venue's own module."""

    def __init__(self, name: str, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.venue, self.ws = venue(name), ws
        self.raw: list[bytes] = []
        self.events: list[Event] = []
        self.trades: list[Trade] = []

    async def subscribe(self, symbols: list[str] | None = None) -> None:
        natives = [self.venue.native(symbol) for symbol in symbols or SYMBOLS[self.venue.name]]
        for message in self.venue.subscribe(natives, 1):
            await self.ws.send_str(message.decode())

    async def read(self, until: Callable[["Socket"], bool], timeout: float = PATIENCE_S) -> None:
        """Read frames until the condition holds. Raises TimeoutError, ConnectionError."""
        end = time.monotonic() + timeout
        while not until(self):
            message = await self.ws.receive(timeout=max(0.001, end - time.monotonic()))
            if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                raise ConnectionError(f"{message.type!r} {message.data!r}")
            payload = message.data.encode() if isinstance(message.data, str) else message.data
            self.raw.append(payload)
            events = self.venue.decode(Frame(time.time_ns(), "ws", "c1", "", payload))
            self.events += events
            self.trades += [event for event in events if isinstance(event, Trade)]

    def ids(self, symbol: str = "") -> list[int]:
        wanted = symbol or SYMBOLS[self.venue.name][0]
        return [trade.trade_id for trade in self.trades if trade.symbol == wanted]

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def running(data: Path, rate: float = 200.0, seed: int = 1, **options: Any) -> AsyncIterator[Session]:
    sim = Simulator(config_for(data, rate, seed), Options(**options))
    await sim.start()
    task = asyncio.create_task(sim.run())
    try:
        async with aiohttp.ClientSession() as http:
            yield Session(sim, http, data)
    finally:
        sim.stop()
        await asyncio.wait_for(task, PATIENCE_S)


def told(trade: TrueTrade) -> tuple[Any, ...]:
    """What a client can compare."""
    return (
        trade.symbol, trade.trade_id, Decimal(trade.price), Decimal(trade.quantity), trade.side, trade.exchange_ts,
    )  # fmt: skip


def heard(trade: Trade) -> tuple[Any, ...]:
    return (
        trade.symbol, trade.trade_id, Decimal(trade.price), Decimal(trade.quantity), trade.side, trade.exchange_ts,
    )  # fmt: skip
