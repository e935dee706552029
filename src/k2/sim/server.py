"""The WebSocket side: connections of the three venues on one port, told apart by their path."""

import logging
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import picows
from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)

from k2.config import ConfigError
from k2.sim.market import Market

log = logging.getLogger("k2.sim")
SLOW_CLIENT_BYTES = 64 << 20  # a client that is so far behind is disconnected, as venues do
LONGEST_MESSAGE = 1 << 20


class Connection(WSListener):
    """A client's connection to one venue."""

    def __init__(self, market: Market, max_age: float) -> None:
        super().__init__()
        self.market, self.max_age = market, max_age
        self.trades: set[str] = set()
        self.heartbeats: set[str] = set()
        self.memory: dict[str, float] = {}
        self.opened = self.last_sent = self.last_pong = time.monotonic()
        self.transport: WSTransport | None = None

    def now(self) -> float:
        return time.monotonic()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.market.clients[self] = None
        log.info("connected", extra={"exchange": self.market.venue.name, "clients": len(self.market.clients)})
        self.market.venue.greet(self, self.market)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.market.clients.pop(self, None)
        log.info("disconnected", extra={"exchange": self.market.venue.name, "clients": len(self.market.clients)})

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.TEXT:
            self.market.now_ns = max(self.market.now_ns, time.time_ns())
            self.market.venue.receive(self, frame.get_payload_as_bytes(), self.market)
        elif kind == WSMsgType.PING:
            if not self._silenced():
                transport.send_pong(frame.get_payload_as_bytes())
        elif kind == WSMsgType.PONG:
            self.last_pong = time.monotonic()
        elif kind == WSMsgType.CLOSE:
            if not transport.is_close_frame_sent:
                transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    def pause_writing(self) -> None:
        """The bound is looked at where data is written (`deliver`)."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    def _silenced(self) -> bool:
        return self.market.faults.find(self.market.venue.name, "silent") is not None

    def _open(self) -> bool:
        transport = self.transport
        return transport is not None and not transport.is_close_frame_sent and not transport.is_disconnected

    def send(self, payload: bytes) -> None:
        if self.transport is not None and self._open() and not self._silenced():
            self.last_sent = time.monotonic()
            self.transport.send(WSMsgType.TEXT, payload)

    def ping(self, payload: bytes) -> None:
        if self.transport is not None and self._open() and not self._silenced():
            self.transport.send_ping(payload)

    def deliver(
        self, symbols: list[str], frames: list[bytes], whole: bytes | None, every: frozenset[str]
    ) -> bytes | None:
        if self.transport is None or not self.trades or not self._open():
            return whole
        if self.trades >= every:
            whole = data = b"".join(frames) if whole is None else whole
        else:
            wanted = self.trades
            data = b"".join([one for symbol, one in zip(symbols, frames, strict=True) if symbol in wanted])
        if data:
            self.last_sent = time.monotonic()
            raw = self.transport.underlying_transport
            raw.write(data)
            if raw.get_write_buffer_size() > SLOW_CLIENT_BYTES:
                log.warning("disconnected a client that reads too slowly", extra={"exchange": self.market.venue.name})
                self.transport.disconnect(graceful=False)
        return whole

    def waiting(self) -> int:
        """Bytes that the client has yet to read, as far as we hold them."""
        if self.transport is None or not self._open():
            return 0
        return int(self.transport.underlying_transport.get_write_buffer_size())

    def beat(self, now: float) -> None:
        """About once a second."""
        if now - self.opened > self.max_age > 0:
            self.close(1001, "Maximum connection age")
        elif self._open():
            self.market.venue.beat(self, self.market, now)

    def close(self, code: int, reason: str) -> None:
        if self.transport is not None and self._open():
            self.transport.send_close(WSCloseCode(code), reason.encode())
            self.transport.disconnect()


class _NoAnswer(WSUpgradeResponse):
    """A handshake that is never answered: TCP is up and not a byte comes."""

    @classmethod
    def like(cls, response: WSUpgradeResponse) -> "_NoAnswer":
        silent = cls()
        silent.version, silent.status = response.version, response.status
        silent.headers, silent.body = response.headers, response.body
        return silent

    def to_bytes(self) -> bytearray:
        return bytearray()


class _Deaf(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Says nothing, whatever comes."""


async def serve(
    markets: Mapping[str, Market], host: str, port: int, tls: ssl.SSLContext | None, max_age: float, loop: Any
) -> Any:
    """Listen for WebSocket clients. Returns the asyncio server."""

    def answer(request: WSUpgradeRequest) -> Connection | WSUpgradeResponseWithListener | None:
        path = request.path.decode("ascii", "replace").split("?")[0].rstrip("/")
        market = next((one for one in markets.values() if one.venue.path == path), None)
        if market is None:
            log.warning("no venue speaks here", extra={"path": path})
            return None
        name = market.venue.name
        if market.faults.strike(name, "no-handshake"):
            return WSUpgradeResponseWithListener(_NoAnswer.like(WSUpgradeResponse.create_101_response()), _Deaf())
        connection = Connection(market, max_age)
        loop_fault = market.faults.strike(name, "close-loop")
        if loop_fault:
            loop.call_later(loop_fault.amount, connection.close, 1001, "Going away")
        return connection

    return await picows.ws_create_server(
        answer, host, port, ssl=tls, enable_auto_pong=False, max_frame_size=LONGEST_MESSAGE
    )


def tls_context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """For both doors; None without a certificate. Raises ConfigError."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise ConfigError("TLS needs both --cert and --key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the certificate {cert} and key {key} cannot be used: {error}") from None
    return context
