"""Answers onto the wire: packed, streamed in bounded memory, and visibly broken off when they fail on the way."""

import asyncio
import hashlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import NamedTuple

import msgspec
from aiohttp import web

from k2.store import StoreError
from k2.web.answer import Answer, Plain, Raw, Stream, Table
from k2.web.compress import SMALL, Packer, packed, packer
from k2.web.negotiate import FORMATS, JSON, Format
from k2.web.parts import Parts
from k2.web.problems import Problem, of_store
from k2.web.trace import TRACE

_WHOLE = 256 << 10  # an answer up to this size is sent as a whole, so that whatever fails until then is a clean error
_STALLED = 60.0  # s in which a client takes nothing
_TAIL = 64 << 10  # longer than any row that a cursor is made of
_VARY = "Accept, Accept-Encoding, Authorization, X-API-Key"


class Way(NamedTuple):
    """How a request wants its answer. `packing` as compress.py names it; `limit` in bytes as sent, 0 for none."""

    request: web.Request
    format: Format
    packing: str
    limit: int


async def send(answer: Answer, way: Way, parts: Parts) -> web.StreamResponse:
    """Send an answer. Raises Problem and StoreError while a clean error can still be given."""
    match answer:
        case Plain():
            return await _plain(answer, way)
        case Table():
            return await _table(answer, way, parts)
        case Stream():
            return await _stream(answer, way)
        case Raw():
            return answer.response


async def _plain(answer: Plain, way: Way) -> web.StreamResponse:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store", "Vary": _VARY, **answer.headers}
    return await whole(way, msgspec.json.encode(answer.value), headers, answer.status)


async def whole(way: Way, body: bytes, headers: Mapping[str, str], status: int = 200) -> web.Response:
    """An answer that is all here. Raises Problem 422 if it is larger than answers may be."""
    if way.packing and len(body) >= SMALL:
        body = await packed(packer(way.packing), body, last=True)
        headers = {**headers, "Content-Encoding": way.packing}
    if way.limit and len(body) > way.limit:
        raise _too_large(way.limit)
    way.request[TRACE].sent = len(body)
    return web.Response(status=status, body=body, headers=headers)


async def _stream(answer: Stream, way: Way) -> web.StreamResponse:
    headers = {"Content-Type": answer.content_type, "Cache-Control": "no-store", "Vary": _VARY, **answer.headers}
    outgoing = Outgoing(way._replace(packing="", limit=0), headers, held=0)
    if way.request.method == "HEAD":
        return await outgoing.head()
    await outgoing.begin()
    return await _flow(answer.chunks, outgoing, "ndjson" in answer.content_type)


async def _table(table: Table, way: Way, parts: Parts) -> web.StreamResponse:
    if table.format:
        way = way._replace(format=FORMATS[table.format])
    form = way.format
    headers = {"Content-Type": form.media, "Vary": _VARY, "Cache-Control": "no-store", **table.headers}
    if form.name in ("parquet", "arrow"):
        name = way.request.path.rpartition("/")[2]
        headers["Content-Disposition"] = f'attachment; filename="{name}.{form.name}"'
    if table.etag:
        digest = hashlib.blake2b(f"{form.name} {table.etag}".encode(), digest_size=12).hexdigest()
        headers |= {"ETag": f'W/"{digest}"', "Cache-Control": "private, no-cache"}
        if matches(way.request.headers.get("If-None-Match", ""), digest):
            return web.Response(status=304, headers=headers)
    outgoing = Outgoing(way if form.packs else way._replace(packing=""), headers)
    if way.request.method == "HEAD":
        return await outgoing.head()
    if table.next is not None and form is not JSON and (cursor := await _probe(table, parts)):
        headers["Link"] = next_link(way.request, cursor)
    settings = {**form.settings, **table.settings}
    chunks = parts.store.stream(table.sql, form.engine, table.params, settings, table.reader)
    lines = form.name == "ndjson"
    shown = _as_json(chunks, table) if form is JSON else _whole_lines(chunks) if lines else chunks
    return await _flow(shown, outgoing, lines, table.reader)


async def _probe(table: Table, parts: Parts) -> str:
    """The next page's cursor; empty if there is none."""
    page = table.next
    assert page is not None
    names = ", ".join(f"`{name}`" for name in page.columns)
    sql = page.probe or f"SELECT {names} FROM ({table.sql}) LIMIT 1 OFFSET {page.limit - 1}"
    settings = {**JSON.settings, **table.settings}
    chunks = parts.store.stream(sql, "JSONCompactEachRow", table.params, settings, table.reader)
    try:
        line = b"".join([chunk async for chunk in chunks])
    except StoreError as error:
        raise of_store(error, table.reader) from None
    return page.cursor(tuple(msgspec.json.decode(line))) if line.strip() else ""


async def _as_json(chunks: AsyncIterator[bytes], table: Table) -> AsyncIterator[bytes]:
    """Lines of JSON as one document: `{"data": [...], "next": cursor or null}`."""
    rows, tail, owed = 0, b"", b'{"data":['
    async with aclosing(chunks):  # type: ignore[type-var]  # ours are generators
        async for chunk in chunks:
            rows += chunk.count(b"\n")
            tail = (tail + chunk if len(chunk) < _TAIL else chunk)[-_TAIL:]
            ended = chunk.endswith(b"\n")
            yield owed + (chunk[:-1] if ended else chunk).replace(b"\n", b",\n")
            owed = b",\n" if ended else b""
    page = table.next
    cursor = None
    if page is not None and rows >= page.limit > 0:
        row = json.loads(tail.rstrip(b"\n").rpartition(b"\n")[2])
        cursor = page.cursor(tuple(row[name] for name in page.columns))
    yield (owed if not rows else b"") + b'],"next":' + msgspec.json.encode(cursor) + b"}\n"


async def _whole_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same, cut at ends of lines: what comes after an error is a line of its own."""
    rest = b""
    async with aclosing(chunks):  # type: ignore[type-var]  # ours are generators
        async for chunk in chunks:
            head, newline, tail = chunk.rpartition(b"\n")
            if newline:
                yield rest + head + newline
                rest = tail
            else:
                rest += chunk
    if rest:
        yield rest


async def _flow(
    chunks: AsyncIterator[bytes], outgoing: "Outgoing", lines: bool, reader: bool = False
) -> web.StreamResponse:
    """Pass chunks on. `lines`: a last line may tell what went wrong. `reader`: the statement was the asker's."""
    try:
        async with aclosing(chunks):  # type: ignore[type-var]  # ours are generators
            async for chunk in chunks:
                await outgoing.write(chunk)
        return await outgoing.end()
    except (StoreError, Problem) as error:
        problem = of_store(error, reader) if isinstance(error, StoreError) else error
        if not outgoing.begun:
            raise problem from None
        return await outgoing.break_off(problem, lines)


class Outgoing:
    """An answer under way: kept back up to `held` bytes, then chunked."""

    def __init__(self, way: Way, headers: dict[str, str], held: int = _WHOLE) -> None:
        self._way = way
        self._headers = headers
        self._most = held
        self._held: list[bytes] = []
        self._size = 0
        self._sent = 0
        self._packer: Packer | None = None
        self._response: web.StreamResponse | None = None

    @property
    def begun(self) -> bool:
        return self._response is not None

    async def head(self) -> web.StreamResponse:
        """The headers alone, for HEAD."""
        response = web.StreamResponse(headers=self._headers)
        await response.prepare(self._way.request)
        return response

    async def begin(self) -> None:
        """Send the headers."""
        if self._way.packing:
            self._packer = packer(self._way.packing)
            self._headers["Content-Encoding"] = self._way.packing
        self._response = web.StreamResponse(headers=self._headers)
        if self._way.request.version >= (1, 1):
            self._response.enable_chunked_encoding()
        await self._response.prepare(self._way.request)

    async def write(self, chunk: bytes) -> None:
        """Raises Problem when the answer has grown larger than answers may be; ConnectionError when nobody reads."""
        if self._response is None:
            self._held.append(chunk)
            self._size += len(chunk)
            if self._size <= self._most:
                return
            await self.begin()
            chunk = b"".join(self._held)
            self._held = []
        await self._put(await packed(self._packer, chunk) if self._packer else chunk)

    async def end(self) -> web.StreamResponse:
        if self._response is None:
            return await whole(self._way, b"".join(self._held), self._headers)
        if self._packer:
            await self._put(self._packer.flush())
        await self._response.write_eof()
        return self._response

    async def break_off(self, problem: Problem, line: bool) -> web.StreamResponse:
        """End without the end: no last chunk, so that nobody takes what was sent for the whole."""
        request, response = self._way.request, self._response
        assert response is not None
        request[TRACE].broken = problem
        transport = request.transport
        with suppress(ConnectionError, Problem):
            text = problem.encoded(request.path) + b"\n" if line else b""
            await self._put(await packed(self._packer, text, last=True) if self._packer else text, counted=False)
        if transport is not None:
            if request.version < (1, 1) and (raw := transport.get_extra_info("socket")) is not None:
                # Only a reset tells a client of HTTP/1.0 that an answer was cut.
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.close()  # not abort(): what is written must still reach the client
        return response

    async def _put(self, data: bytes, counted: bool = True) -> None:
        if not data:
            return
        assert self._response is not None
        self._sent += len(data)
        self._way.request[TRACE].sent = self._sent
        if counted and self._way.limit and self._sent > self._way.limit:
            raise _too_large(self._way.limit)
        try:
            async with asyncio.timeout(_STALLED):
                await self._response.write(data)
        except TimeoutError:
            if self._way.request.transport is not None:
                self._way.request.transport.abort()
            raise ConnectionResetError(f"the client took nothing for {_STALLED:g} s") from None


def next_link(request: web.Request, cursor: str) -> str:
    """The header `Link` that names the page after this one."""
    return f'<{request.rel_url.without_query_params("key").update_query(cursor=cursor)}>; rel="next"'


def matches(header: str, digest: str) -> bool:
    """Whether If-None-Match names this state; weakly, as RFC 9110 says."""
    return header.strip() == "*" or f'"{digest}"' in (tag.strip().removeprefix("W/") for tag in header.split(","))


def _too_large(limit: int) -> Problem:
    return Problem(
        422,
        "Answer too large",
        f"the answer grew past {limit >> 20} MB (web.max_response_mb)",
        "ask for less at once: a shorter time, fewer symbols, a limit and the cursor of the next page",
        "answer-too-large",
    )
