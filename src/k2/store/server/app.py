"""ClickHouse's HTTP interface over the embedded engine: requests in, statements to worker threads, answers out."""

import asyncio
import logging
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientConnectionError, web

from k2 import metrics
from k2.config import StoreConfig
from k2.store import StoreError
from k2.store.embedded import Answer, Engine
from k2.store.server import answers, bodies, externals, request
from k2.store.server.connections import Connections
from k2.store.server.readers import Readers
from k2.store.server.request import Account, Ask
from k2.store.server.statement import MAX_STATEMENT, Statement, StatementError, parse
from k2.store.server.status import refusal
from k2.store.server.work import INLINE, Work

_log = logging.getLogger("k2.store")
_NAME = re.compile(r"[A-Za-z0-9_]+\Z")
_WORKERS = {"write": 12, "reader": 6}
_WAITING = 64
_CACHED_TEXT = 4096  # longer statements are parsed anew, so that the cache stays small
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Gate:
    """Lets in so many statements of a kind of account at once; the rest wait, up to a bound."""

    def __init__(self, kind: str, running: int) -> None:
        self.pool = ThreadPoolExecutor(running, thread_name_prefix=f"store-{kind}")
        self._slots = asyncio.Semaphore(running)
        self._waiting = 0
        self._depth = metrics.QUEUE.labels(f"store-{kind}")

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[ThreadPoolExecutor]:
        if self._waiting >= _WAITING:
            raise refusal(
                202, "TOO_MANY_SIMULTANEOUS_QUERIES", f"Too many simultaneous queries: {_WAITING} are waiting"
            )
        self._waiting += 1
        self._depth.set(self._waiting)
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
            self._depth.set(self._waiting)
        try:
            yield self.pool
        finally:
            self._slots.release()


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
        self._readers = Readers(self._connections)
        self._gates = {kind: Gate(kind, running) for kind, running in _WORKERS.items()}
        self._running: dict[str, Ask] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self.statements: Counter[str] = Counter()
        self._headers = {"X-ClickHouse-Server-Display-Name": "k2", "X-ClickHouse-Timezone": "UTC"}

    def application(self) -> web.Application:
        app = web.Application(client_max_size=0)
        app.router.add_route("GET", "/ping", _ok)
        app.router.add_route("GET", "/replicas_status", _ok)
        app.router.add_route("*", "/", self.handle)
        app.router.add_route("*", "/query", self.handle)
        app.router.add_route("*", "/{path:.*}", _nothing_here)
        return app

    async def drain(self, seconds: float) -> None:
        """Wait for running statements, at most so long, then stop them; close every connection."""
        end = time.monotonic() + seconds
        while self._running and time.monotonic() < end:
            await asyncio.sleep(0.01)
        for query_id in list(self._running):
            _log.warning("stopping a statement that still runs", extra={"query_id": query_id})
            await asyncio.to_thread(self._work.kill, query_id)
        for gate in self._gates.values():
            await asyncio.to_thread(gate.pool.shutdown, True, cancel_futures=True)
        self._connections.close()

    async def expire_sessions(self) -> None:
        """Run for ever: close what sessions left behind."""
        while True:
            await asyncio.sleep(10)
            await asyncio.to_thread(self._connections.expire)

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """One request, from the headers to the end of its answer."""
        headers = dict(self._headers)
        if http.method == "GET" and not http.query_string:
            return await _ok(http)
        kind = outcome = "none"
        try:
            self._refuse_foreign(http)
            if http.method not in ("GET", "HEAD", "POST", "OPTIONS"):
                raise refusal(1, "UNSUPPORTED_METHOD", f"{http.method} is not a method of this interface: use POST")
            ask = request.read(http.method, http.query, http.headers, self._accounts)
            headers["X-ClickHouse-Query-Id"] = ask.query_id
            kind = "reader" if ask.account.readonly else "write"
            if ask.query_id in self._running:
                raise refusal(
                    216, "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING", f"Query with id = {ask.query_id} is already running"
                )
            self._running[ask.query_id] = ask
            try:
                async with self._gates[kind].enter() as pool:
                    response = await self._answer(http, ask, headers, pool)
                    outcome = "ok"
                    return response
            except asyncio.CancelledError:
                outcome = "cancelled"
                self._errand(pool, ask.query_id)
                raise
            finally:
                del self._running[ask.query_id]
        except StatementError as error:
            outcome = "62"
            return answers.failure(refusal(62, "SYNTAX_ERROR", str(error)), headers)
        except StoreError as error:
            outcome = str(error.code)
            return answers.failure(error, headers)
        finally:
            metrics.QUERIES.labels(kind, outcome).inc()

    def _errand(self, pool: ThreadPoolExecutor, query_id: str) -> None:
        async def kill() -> None:
            try:
                await asyncio.to_thread(self._work.kill, query_id)
            except StoreError as error:
                _log.warning("could not stop a statement", extra={"query_id": query_id, "error": str(error)})

        task = asyncio.get_running_loop().create_task(kill())
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def _refuse_foreign(self, http: web.Request) -> None:
        """A web page that somebody has open must not speak to the store behind their back."""
        origin = http.headers.get("Origin")
        host = http.headers.get("Host", "")
        if (origin and origin.partition("://")[2] != host) or http.headers.get("Sec-Fetch-Site") == "cross-site":
            raise refusal(497, "ACCESS_DENIED", "Requests from web pages of other origins are refused")
        name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
        if self._config.host in _LOOPBACK and name not in _LOOPBACK:
            raise refusal(
                497, "ACCESS_DENIED", f"This store listens on {self._config.host} only; the request says {host}"
            )

    async def _answer(
        self, http: web.Request, ask: Ask, headers: dict[str, str], pool: ThreadPoolExecutor
    ) -> web.StreamResponse:
        files: list[externals.External] = []
        data: AsyncIterator[bytes] | None = None
        if http.content_type == "multipart/form-data":
            ask, files = await self._form(http, ask)
            text = ask.query.encode("utf-8", "surrogateescape")
            statement, rest = self._parse(text), b""
        else:
            text, statement, rest, data = await self._text(http, ask)
        if ask.account.readonly:
            await self._in(pool, self._readers.allow, statement, ask)
        if b"OUTFILE" in statement.words or b"INFILE" in statement.words:
            raise refusal(1, "UNSUPPORTED_METHOD", "INTO OUTFILE and FROM INFILE are not allowed over HTTP")
        form = statement.format or ask.default_format
        if not _NAME.match(form):
            raise refusal(73, "UNKNOWN_FORMAT", f"Unknown format {form}")
        self.statements[statement.verb] += 1
        if statement.kind == "select":
            return await self._select(http, ask, statement, form, headers, pool, files)
        if statement.kind == "insert":
            answer, elapsed = await self._insert(http, ask, statement, form, rest, data, pool)
        elif statement.kind == "insert_select" and statement.reads_input and statement.format:
            answer, elapsed = await self._insert_input(ask, statement, form, rest, data, pool)
        else:
            began = time.perf_counter()
            answer = await self._in(pool, self._work.plain, ask, statement, form)
            elapsed = time.perf_counter() - began
        headers["X-ClickHouse-Summary"] = answers.summary(answer, elapsed)
        if statement.answers:
            headers["X-ClickHouse-Format"] = form
            headers["Content-Type"] = answers.content_type(form)
        return _whole(ask, answer.body, headers)

    async def _text(self, http: web.Request, ask: Ask) -> tuple[bytes, Statement, bytes, AsyncIterator[bytes] | None]:
        """The statement's text, the statement, the data that came with it, and where the rest of the data will come from."""
        query = ask.query.encode("utf-8", "surrogateescape")
        if http.method != "POST" or not http.can_read_body:
            return query, self._parse(query), b"", None
        unpack = bodies.unpacker(http.headers.get("Content-Encoding", ""), ask.frames_in)
        data = bodies.pieces(http.content, unpack)
        if query:
            statement = self._parse(query)
            if statement.kind.startswith("insert") and statement.format:
                return query, statement, query[statement.data :], data
        text = query + b"\n" if query else b""
        statement = None
        async for piece in data:
            text += piece
            statement = self._head(text)
            if statement is not None or len(text) > MAX_STATEMENT:
                break
        statement = statement or self._parse(text)
        if statement.kind.startswith("insert"):
            return text[: statement.data], statement, text[statement.data :], data
        if len(text) > MAX_STATEMENT:
            raise refusal(229, "QUERY_IS_TOO_LARGE", f"The statement is longer than {MAX_STATEMENT} bytes")
        return text, statement, b"", None

    def _head(self, text: bytes) -> Statement | None:
        """The statement if `text` begins with the whole head of an INSERT that data follow."""
        try:
            statement = self._parse(text)
        except StatementError:
            return None
        return statement if statement.kind.startswith("insert") and statement.format else None

    def _parse(self, text: bytes) -> Statement:
        return parse(text) if len(text) <= _CACHED_TEXT else parse.__wrapped__(text)

    async def _form(self, http: web.Request, ask: Ask) -> tuple[Ask, list[externals.External]]:
        form = await externals.read(http)
        params = {name[6:]: value for name, value in form.fields.items() if name.startswith("param_")}
        query = "\n".join(part for part in (ask.query, form.fields.get("query", "")) if part)
        return ask._replace(query=query, params={**ask.params, **params}), form.externals

    async def _select(
        self,
        http: web.Request,
        ask: Ask,
        statement: Statement,
        form: str,
        headers: dict[str, str],
        pool: ThreadPoolExecutor,
        files: list[externals.External],
    ) -> web.StreamResponse:
        headers["X-ClickHouse-Format"] = form
        began = time.perf_counter()
        pipe = answers.Pipe()

        def run() -> Answer:
            try:
                return self._work.select(ask, statement, form, pipe.writer, files)
            finally:
                pipe.close_writer()

        done = asyncio.get_running_loop().run_in_executor(pool, run)
        try:
            chunks, whole = await answers.held(pipe)
            packed = {**headers, "Content-Type": answers.content_type(form)}
            if ask.encoding:
                packed["Content-Encoding"] = ask.encoding
            if whole:
                answer = await done
                packed["X-ClickHouse-Summary"] = answers.summary(answer, time.perf_counter() - began)
                return _whole(ask, b"".join(chunks), packed)
            return await self._stream(http, ask, packed, pipe, chunks, done)
        finally:
            pipe.close()
            if not done.done():
                done.add_done_callback(lambda future: future.cancelled() or future.exception())

    async def _stream(
        self,
        http: web.Request,
        ask: Ask,
        headers: dict[str, str],
        pipe: answers.Pipe,
        chunks: list[bytes],
        done: "asyncio.Future[Answer]",
    ) -> web.StreamResponse:
        if ask.buffered:
            with await answers.spooled(pipe, chunks) as file:
                await done
                stream = answers.Stream(http, ask, headers)
                await stream.begin()
                while chunk := await asyncio.to_thread(file.read, answers.WHOLE):
                    await stream.write(chunk)
                return await stream.end()
        stream = answers.Stream(http, ask, headers)
        await stream.begin()
        try:
            for chunk in chunks:
                await stream.write(chunk)
            chunks.clear()
            while chunk := await pipe.read():
                await stream.write(chunk)
            await done
        except StoreError as error:
            return await stream.break_off(error)
        except ConnectionError:
            self._errand_after_loss(ask)
            raise
        return await stream.end()

    def _errand_after_loss(self, ask: Ask) -> None:
        self._errand(self._gates["write"].pool, ask.query_id)

    async def _insert(
        self,
        http: web.Request,
        ask: Ask,
        statement: Statement,
        form: str,
        rest: bytes,
        data: AsyncIterator[bytes] | None,
        pool: ThreadPoolExecutor,
    ) -> tuple[Answer, float]:
        began = time.perf_counter()
        if ask.method != "POST":
            raise refusal(164, "READONLY", "Cannot execute query in readonly mode: INSERT needs POST")
        whole = rest
        if data is not None:
            async for piece in data:
                whole += piece
                if len(whole) > INLINE:
                    return await self._insert_stream(
                        ask, statement, form, whole, data, pool
                    ), time.perf_counter() - began
        if not whole.strip():
            raise refusal(108, "NO_DATA_TO_INSERT", "No data to insert")
        answer = await self._in(pool, self._work.insert, ask, statement, form, whole)
        return answer, time.perf_counter() - began

    async def _insert_stream(
        self,
        ask: Ask,
        statement: Statement,
        form: str,
        whole: bytes,
        data: AsyncIterator[bytes],
        pool: ThreadPoolExecutor,
    ) -> Answer:
        lease, insert = await self._in(pool, self._work.begin, ask, statement, form)
        try:
            await self._in(pool, insert.append, whole)
            async for piece in data:
                await self._in(pool, insert.append, piece)
        except (StoreError, ClientConnectionError, ConnectionError, asyncio.CancelledError, web.RequestPayloadError):
            await asyncio.shield(self._in(pool, self._work.give_up, lease, insert))
            raise
        return await self._in(pool, self._work.finish, lease, insert)

    async def _insert_input(
        self,
        ask: Ask,
        statement: Statement,
        form: str,
        rest: bytes,
        data: AsyncIterator[bytes] | None,
        pool: ThreadPoolExecutor,
    ) -> tuple[Answer, float]:
        """INSERT ... SELECT ... FROM input(): the data go through a pipe that the engine reads as a file."""
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        reader, writer = os.pipe()
        done = loop.run_in_executor(pool, self._work.insert_select, ask, statement, form, reader)
        done.add_done_callback(lambda _: os.close(reader))
        try:
            if rest:
                await asyncio.to_thread(_write, writer, rest)
            if data is not None:
                async for piece in data:
                    await asyncio.to_thread(_write, writer, piece)
        finally:
            os.close(writer)
        return await done, time.perf_counter() - began

    async def _in(self, pool: ThreadPoolExecutor, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(handle, view) :]
    except BrokenPipeError:
        return  # the statement is over; its own error says why


def _whole(ask: Ask, body: bytes, headers: dict[str, str]) -> web.Response:
    if ask.native_frames:
        body = answers.pack(body)
    return web.Response(body=body, headers=headers)


async def _ok(_: web.Request) -> web.Response:
    return web.Response(text="Ok.\n", headers={"X-ClickHouse-Server-Display-Name": "k2"})


async def _nothing_here(http: web.Request) -> web.Response:
    return web.Response(status=404, text=f"There is no handle {http.path}\n\nUse / or /ping, or POST a query to /\n")
