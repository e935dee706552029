"""ClickHouse's HTTP interface over the embedded engine: who may come in, and what they are told when it fails."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from k2 import metrics
from k2.config import StoreConfig
from k2.door import is_loopback
from k2.store import StoreError
from k2.store.embedded import Engine
from k2.store.server import answers, incoming, readers, request
from k2.store.server.connections import Connections
from k2.store.server.gate import Gate
from k2.store.server.request import Account, Ask
from k2.store.server.statement import StatementError
from k2.store.server.status import refusal
from k2.store.server.turn import Turn
from k2.store.server.work import Work

_log = logging.getLogger("k2.store")
_NAME = re.compile(r"[A-Za-z0-9_]+\Z")
_RUNNING = {"write": 12, "reader": 6}  # statements at once
_NAMED = {"X-ClickHouse-Server-Display-Name": "k2", "Server": "k2"}


class Server:
    """The HTTP application. Made inside of a running event loop."""

    def __init__(self, engine: Engine, config: StoreConfig) -> None:
        self._config = config
        self._accounts = {
            config.user: Account(config.user, config.password, readonly=False),
            config.readonly_user: Account(config.readonly_user, config.readonly_password, readonly=True),
        }
        self._connections = Connections(engine, config)
        self._work = Work(self._connections)
        self._readers = readers.Readers(self._connections)
        self._gates = {kind: Gate(kind, running) for kind, running in _RUNNING.items()}
        self._running: set[str] = set()
        self._errands: set[asyncio.Task[None]] = set()

    def application(self, *middlewares: Middleware) -> web.Application:
        app = web.Application(client_max_size=0, middlewares=middlewares)
        for path in ("/ping", "/replicas_status"):
            app.router.add_route("*", path, _ok)
        for path in ("/", "/query"):
            app.router.add_route("*", path, self.handle)
        app.router.add_route("*", "/{path:.*}", _nothing_here)
        return app

    async def expire_sessions(self) -> None:
        """Run for ever: close what sessions left behind."""
        while True:
            await asyncio.sleep(10)
            await asyncio.to_thread(self._connections.expire)

    async def drain(self, seconds: float) -> None:
        """Wait for running statements, at most so long, then stop them; close every connection."""
        end = time.monotonic() + seconds
        while self._running and time.monotonic() < end:
            await asyncio.sleep(0.01)
        for query_id in list(self._running):
            _log.warning("stopping a statement that still runs", extra={"query_id": query_id})
            await self._stop(query_id)
        for gate in self._gates.values():
            await gate.close()
        await asyncio.to_thread(self._readers.close)
        await asyncio.to_thread(self._connections.close)

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """One request, from its headers to the end of its answer."""
        if http.method == "GET" and not http.query_string:
            return await _ok(http)
        headers = {**_NAMED, "X-ClickHouse-Timezone": "UTC"}
        kind, outcome = "none", "cancelled"
        try:
            self._refuse_foreign(http)
            if http.method not in ("GET", "HEAD", "POST"):
                raise refusal(1, "UNSUPPORTED_METHOD", f"{http.method} is not a method of this interface: use POST")
            ask = request.read(http.method, http.query, http.headers, self._accounts)
            headers["X-ClickHouse-Query-Id"] = ask.query_id
            kind = "reader" if ask.account.readonly else "write"
            response = await self._alone(ask, lambda: self._turn(http, ask, headers, self._gates[kind]))
            outcome = "ok"
        except StatementError as error:
            outcome = "62"
            return answers.failure(refusal(62, "SYNTAX_ERROR", str(error)), headers)
        except StoreError as error:
            outcome = str(error.code)
            return answers.failure(error, headers)
        finally:
            metrics.QUERIES.labels(kind, outcome).inc()
        return response

    async def _alone(self, ask: Ask, turn: Callable[[], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        """Take the turn under the request's id; if the client goes away meanwhile, stop its statement."""
        if ask.query_id in self._running:
            name = "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING"
            raise refusal(216, name, f"Query with id = {ask.query_id} is already running")
        self._running.add(ask.query_id)
        try:
            return await turn()
        except (asyncio.CancelledError, ConnectionError):
            errand = asyncio.get_running_loop().create_task(self._stop(ask.query_id))
            self._errands.add(errand)
            errand.add_done_callback(self._errands.discard)
            raise
        finally:
            self._running.discard(ask.query_id)

    async def _stop(self, query_id: str) -> None:
        try:
            await asyncio.to_thread(self._work.kill, query_id)
        except StoreError as error:
            _log.warning("could not stop a statement", extra={"query_id": query_id, "error": str(error)})

    async def _turn(self, http: web.Request, ask: Ask, headers: dict[str, str], gate: Gate) -> web.StreamResponse:
        async with gate.enter():
            brought = await incoming.read(http, ask)
            if ask.account.readonly:
                ask, statement = readers.lifted(brought.ask, brought.statement)
                brought = brought._replace(ask=ask, statement=statement)
                await gate.run(self._readers.allow, statement, ask, brought.files)
            statement = brought.statement
            if statement.words & {b"OUTFILE", b"INFILE"}:
                raise refusal(1, "UNSUPPORTED_METHOD", "INTO OUTFILE and FROM INFILE are not allowed over HTTP")
            form = statement.format or ask.default_format
            if not _NAME.match(form):
                raise refusal(73, "UNKNOWN_FORMAT", f"Unknown format {form}")
            return await Turn(http, brought, form, gate, self._work).take(headers)

    def _refuse_foreign(self, http: web.Request) -> None:
        """A web page that somebody has open must not speak to the store behind their back, nor by a name it rebound."""
        host = http.headers.get("Host", "")
        origin = http.headers.get("Origin")
        if (origin and origin.partition("://")[2] != host) or http.headers.get("Sec-Fetch-Site") == "cross-site":
            raise refusal(497, "ACCESS_DENIED", "Requests from web pages of other origins are refused")
        if is_loopback(self._config.host) and not is_loopback(re.sub(r":\d*$", "", host).lower()):
            raise refusal(497, "ACCESS_DENIED", f"This store answers on {self._config.host} only, not as {host}")


async def _ok(_: web.Request) -> web.Response:
    return web.Response(text="Ok.\n", headers=_NAMED)


async def _nothing_here(http: web.Request) -> web.Response:
    return web.Response(status=404, text=f"There is no handle {http.path}\n\nUse / or /ping, or POST a query to /\n")
