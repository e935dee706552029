"""Where HTTP servers let connections in: so many at once, however long each is held open.

aiohttp closes a connection that brings no whole request within its keep-alive time, counted from the connection's
beginning or from the answer before; a byte now and then does not prolong that. It bounds how long one connection waits,
and this how many there are: whoever comes when all places are taken gets the place of the one that has waited longest
for a request. So connections that are merely held open keep nobody out. If all of them are being answered, the newcomer
is turned away.
"""

import asyncio
import ipaddress
import logging
import ssl
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from k2 import metrics

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HANDSHAKE_S = 10.0  # for TLS
_TURNED_AWAY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach this address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Door:
    """At most `most` connections of one server. `name` is that of its queue in the metrics. For one event loop."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        # Connections without a request, and when each was made or answered last: who waits longest comes first.
        self._waiting: dict[web.RequestHandler, float] = {}
        self._busy: set[web.RequestHandler] = set()
        metrics.QUEUE_BOUND.labels(name).set(most)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """To stand outermost in the application that answers."""
        connection = request.protocol
        self._waiting.pop(connection, None)
        self._busy.add(connection)
        try:
            return await handler(request)
        finally:
            self._busy.discard(connection)
            if connection.transport is not None:
                self._waiting[connection] = asyncio.get_running_loop().time()

    async def listen(
        self, runner: web.AppRunner, host: str, port: int, backlog: int, context: ssl.SSLContext | None = None
    ) -> asyncio.Server:
        """Let connections in to what `runner` (set up before) serves. Raises OSError."""
        server = runner.server
        assert server is not None
        logging.getLogger("aiohttp.server").addFilter(foreseen)
        return await asyncio.get_running_loop().create_server(
            lambda: self._connection(server),
            host,
            port,
            backlog=backlog,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_S if context else None,
        )

    def _connection(self, server: web.Server) -> asyncio.Protocol:
        now = asyncio.get_running_loop().time()
        for connection, since in list(self._waiting.items()):
            if connection.transport is None and now - since > HANDSHAKE_S:  # gone; a younger one may shake hands still
                del self._waiting[connection]
        if len(self._waiting) + len(self._busy) >= self._most and not self._make_room():
            metrics.DROPS.labels("connection", f"{self._name}-full").inc()
            return _TurnedAway()
        made = server()
        self._waiting[made] = now
        metrics.QUEUE.labels(self._name).set(len(self._waiting) + len(self._busy))
        return made

    def _make_room(self) -> bool:
        gone = next((connection for connection in self._waiting if connection.transport is None), None)
        longest = gone or next(iter(self._waiting), None)
        if longest is None:
            return False
        del self._waiting[longest]
        if gone is None:
            longest.force_close()
            metrics.DROPS.labels("connection", f"{self._name}-idle").inc()
        return True


def foreseen(record: logging.LogRecord) -> bool:
    """A filter for aiohttp's log. What is no request has been answered with 400 and is no news; and its text, which
    aiohttp would write down, may hold a key."""
    caught = record.exc_info[1] if record.exc_info else None
    if isinstance(caught, HttpProcessingError):
        metrics.DROPS.labels("request", "malformed").inc()
        return False
    return True


class _TurnedAway(asyncio.Protocol):
    """A connection for which there is no place."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(_TURNED_AWAY)
        transport.close()
