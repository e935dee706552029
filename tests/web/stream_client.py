"""What the tests of the stream share: a client without a socket, trades, and reading frames."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from tests.patience import PATIENCE_S

from k2.config import EXCHANGES
from k2.core.codec import encode_trade, trades_stream
from k2.core.types import Trade
from k2.log import Entry, Log
from k2.web.stream.connection import Connection
from k2.web.stream.hub import Hub
from k2.web.stream.messages import Encoding, Subscribe
from k2.web.stream.session import Session

SYMBOLS = ("BTC-USDT", "ETH-USDT", "SOL-USDT", "ADA-USDT")


def trade(exchange: str, symbol: str, trade_id: int, **more: Any) -> Trade:
    now = more.pop("at", None) or time.time_ns()
    native = symbol.replace("-", "")
    fields = {"price": f"{100 + trade_id % 7}.50", "quantity": "0.25", "side": "buy", "source": "live", **more}
    return Trade(exchange, symbol, native, trade_id, exchange_ts=now, recv_ts=now, **fields)


def append(log: Log, exchange: str, trades: Sequence[Trade]) -> None:
    entry = Entry(trades_stream(exchange), [one.symbol for one in trades], [encode_trade(one) for one in trades])
    log.append([entry])


class Client:
    """A `Sink` that keeps what it gets. `takes`: how many more bytes its socket takes; None: all."""

    def __init__(self, hub: Hub, encoding: Encoding = "json", takes: int | None = None) -> None:
        self.got = bytearray()
        self.takes = takes
        self.most_unsent = 0
        self.ended: tuple[int, str] | None = None
        self._waiting = 0
        self.connection = Connection(hub, self, encoding)
        self.session = Session(hub, self.connection)
        self.encoding = encoding
        hub.enter(self.connection)

    def write(self, data: bytes) -> None:
        self.got += data
        if self.takes is not None:
            self._waiting += len(data)
            self.take(0)
        self.most_unsent = max(self.most_unsent, self._waiting)

    def take(self, more: int) -> None:
        assert self.takes is not None
        self.takes += more
        taken = min(self.takes, self._waiting)
        self.takes -= taken
        self._waiting -= taken

    def unsent(self) -> int:
        return self._waiting

    def gone(self) -> bool:
        return False

    def end(self, code: int, reason: str) -> None:
        self.ended = (code, reason)

    async def subscribe(self, **asked: Any) -> None:
        await self.session.subscribe(Subscribe(**asked))

    @property
    def messages(self) -> list[dict[str, Any]]:
        return read(bytes(self.got), self.encoding)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.messages if one["type"] == kind]


def read(data: bytes, encoding: Encoding) -> list[dict[str, Any]]:
    """The messages in framed bytes."""
    if encoding == "sse":
        return [json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith("data: ")]
    found, at = [], 0
    while at < len(data):
        first, size, at = data[at], data[at + 1], at + 2
        wide = {126: 2, 127: 8}.get(size, 0)
        if wide:
            size, at = int.from_bytes(data[at : at + wide], "big"), at + wide
        payload, at = data[at : at + size], at + size
        assert first == (0x82 if encoding == "msgpack" else 0x81)
        assert len(payload) == size
        found.append(msgspec.msgpack.decode(payload) if encoding == "msgpack" else json.loads(payload))
    return found


async def until(done: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.002)


def all_of(log: Log, exchange: str) -> list[tuple[str, bytes]]:
    """Everything in an exchange's stream that is kept, as (symbol, record)."""
    stream = trades_stream(exchange)
    offset, end = log.bounds(stream)
    found: list[tuple[str, bytes]] = []
    while offset < end:
        for batch in log.read(stream, offset):
            found += zip(batch.keys, batch.values, strict=True)
            offset = batch.end
    return found


def positions(messages: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Where a client is that got these messages of one subscription."""
    found: dict[str, int] = {}
    for message in messages:
        if message["type"] == "subscribed":
            found = dict(message["start"])
        elif message["type"] in ("trades", "gaps"):
            found[message["stream"]] = message["next"]
        elif message["type"] in ("heartbeat", "slow"):
            found |= message["positions"]
    return found


STREAMS = [trades_stream(exchange) for exchange in EXCHANGES]
