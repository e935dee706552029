"""Frames of Binance made to measure, and a venue on loopback that plays them."""

import asyncio
import json
from collections.abc import Callable

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server
from tests.patience import PATIENCE_S

from k2.core.codec import decode_gap, decode_trade
from k2.core.types import Frame, Gap, Trade
from k2.log import Log

T0 = 1_760_000_000_000


def trade_payload(number: int, symbol: str = "BTCUSDT", ms: int | None = None) -> bytes:
    at = T0 + number * 10 if ms is None else ms
    data = {"e": "trade", "E": at, "s": symbol, "t": number, "p": "61837.63000000", "q": "0.02000000", "T": at}
    return json.dumps({"stream": f"{symbol.lower()}@trade", "data": {**data, "m": True, "M": True}}).encode()


def page_payload(numbers: list[int]) -> bytes:
    return json.dumps(
        [
            {"id": n, "price": "61837.63000000", "qty": "0.02000000", "time": T0 + n * 10, "isBuyerMaker": True}
            for n in numbers
        ]
    ).encode()


def frame(payload: bytes, recv_ts: int = 1, connection: str = "c1") -> Frame:
    return Frame(recv_ts, "ws", connection, "", payload)


def trade_frame(number: int, symbol: str = "BTCUSDT", recv_ts: int | None = None) -> Frame:
    at = (T0 + number * 10) * 1_000_000 + 5_000_000 if recv_ts is None else recv_ts
    return frame(trade_payload(number, symbol), at)


def page_frame(first: int, numbers: list[int], symbol: str = "BTCUSDT", status: int = 200) -> Frame:
    request = f"{status} /api/v3/historicalTrades?symbol={symbol}&fromId={first}&limit=1000"
    return Frame(1, "rest", "rest", request, page_payload(numbers))


def records(log: Log, stream: str) -> list[bytes]:
    batches = []
    offset = log.bounds(stream)[0]
    while found := log.read(stream, offset):
        batches += found
        offset = found[-1].end
    return [value for batch in batches for value in batch.values]


def trades(log: Log, exchange: str = "binance") -> list[Trade]:
    return [decode_trade(value) for value in records(log, f"market.crypto.trades.{exchange}")]


def gaps(log: Log) -> list[Gap]:
    return [decode_gap(value) for value in records(log, "market.crypto.gaps")]


class Peer(WSListener):
    """The venue's end of one socket. `answers` decides what a message is answered with."""

    def __init__(self, server: "VenueServer", path: str) -> None:
        self.server = server
        self.path = path
        self.received: list[bytes] = []
        self.pongs: list[bytes] = []
        self.gone = asyncio.get_running_loop().create_future()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.server.peers.append(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            message = frame.get_payload_as_bytes()
            self.received.append(message)
            for answer in self.server.answers(self, message):
                transport.send(WSMsgType.TEXT, answer)
        elif frame.msg_type == WSMsgType.PONG:
            self.pongs.append(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if not self.gone.done():
            self.gone.set_result(None)

    def send(self, payload: bytes) -> None:
        self.transport.send(WSMsgType.TEXT, payload)


class VenueServer:
    """A WebSocket server on a free loopback port. Confirms every subscription as Binance does unless told otherwise."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.answers: Callable[[Peer, bytes], list[bytes]] = confirm

    async def start(self, ssl: object = None) -> "VenueServer":
        self._server = await ws_create_server(
            lambda request: Peer(self, request.path.decode()), "127.0.0.1", 0, ssl=ssl
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'wss' if ssl else 'ws'}://127.0.0.1:{self.port}/stream"
        return self

    async def stop(self) -> None:
        self._server.close()
        for peer in self.peers:
            peer.transport.disconnect(graceful=False)


def confirm(peer: Peer, message: bytes) -> list[bytes]:
    return [json.dumps({"result": None, "id": json.loads(message)["id"]}).encode()]


async def eventually(condition: Callable[[], object], within: float = PATIENCE_S) -> None:
    """Wait until the condition holds; fail if it does not within `within` seconds."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)
