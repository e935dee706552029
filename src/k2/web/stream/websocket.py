"""The stream over WebSocket.

aiohttp shakes hands, reads, answers pings and closes. Messages go past its writer: they are framed once for all, and
without compression and masks a frame is whole when it is written, so both may write by turns.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import WSMsgType, web

from k2.metrics import SUBSCRIBERS
from k2.web.problems import Problem
from k2.web.stream.connection import Connection
from k2.web.stream.hub import Hub
from k2.web.stream.messages import Encoding, Subscribe
from k2.web.stream.session import Session

_MOST_HEARD = 64 << 10  # bytes of a client's message
_END_WITHIN = 3.0  # s for what is left, and for the client's goodbye
_SOCKET_BYTES = 256 << 10  # in the kernel; what does not fit there counts as unsent
_DEAD_MS = 45_000  # without a sign of the other side


class TransportSink:
    """A `Sink` on a transport."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.write: Callable[[bytes], None] = transport.write
        self.unsent = transport.get_write_buffer_size
        self.gone = transport.is_closing
        self.ended = asyncio.get_running_loop().create_future()
        bound(transport)

    def end(self, code: int, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result((code, reason))

    def abort(self) -> None:
        self._transport.abort()


def bound(transport: asyncio.Transport) -> None:
    """Let the kernel hold little for this client, and give up on one that is gone."""
    handle: Any = transport.get_extra_info("socket")
    if handle is None or handle.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError):
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_MS)


async def serve(hub: Hub, request: web.Request, encoding: Encoding, asked: Subscribe | None) -> web.StreamResponse:
    """One client, from the handshake to the end; `asked`: what it subscribed to by the URL. Raises Problem before."""
    hub.require_room()
    response = web.WebSocketResponse(compress=False, max_msg_size=_MOST_HEARD, timeout=_END_WITHIN)
    try:
        await response.prepare(request)
    except ValueError:  # aiohttp quotes and decodes the headers, which may hold bytes that are no text
        remedy = "connect with a WebSocket client"
        raise Problem(400, "Handshake not understood", "a header of the handshake is no text", remedy) from None
    assert request.transport is not None
    sink = TransportSink(request.transport)
    connection = Connection(hub, sink, encoding)
    hub.enter(connection)
    SUBSCRIBERS.labels("websocket").inc()
    try:
        session = Session(hub, connection)
        hearing = asyncio.ensure_future(_hear(response, session, connection, asked))
        try:
            await asyncio.wait((hearing, sink.ended), return_when=asyncio.FIRST_COMPLETED)
            if sink.ended.done():
                await _end(response, sink, *sink.ended.result())
            else:
                hearing.result()
        finally:
            hearing.cancel()
    finally:
        hub.leave(connection)
        SUBSCRIBERS.labels("websocket").dec()
    return response


async def _hear(
    response: web.WebSocketResponse, session: Session, connection: Connection, asked: Subscribe | None
) -> None:
    if asked is not None:
        await session.begin(asked)
    async for said in response:
        if said.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            await session.hear(said.data, said.type is WSMsgType.BINARY)
        while connection.full() and not connection.ended:  # who does not listen is not answered either
            await asyncio.sleep(0.02)


async def _end(response: web.WebSocketResponse, sink: TransportSink, code: int, reason: str) -> None:
    try:
        async with asyncio.timeout(_END_WITHIN):
            await response.close(code=code, message=reason.encode())
    except TimeoutError:
        pass
    finally:
        sink.abort()
