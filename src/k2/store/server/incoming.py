"""The statement of a request and the data that come with it, out of the URL and the body."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

from aiohttp import web

from k2.store.server import bodies, externals
from k2.store.server.request import Ask
from k2.store.server.statement import MAX_STATEMENT, Statement, StatementError, parse
from k2.store.server.status import refusal

_CACHED_TEXT = 4096  # longer texts are parsed anew, so that the cache stays small
_TEXT_WITHIN = 30.0  # s for a statement to be here; one of the few places to run is held meanwhile
_FORM_WITHIN = 120.0  # s, with its files


class Incoming(NamedTuple):
    """What a request brings: `ask` with the form's fields in it, data here (`first`) and to come (`rest`), files."""

    ask: Ask
    statement: Statement
    first: bytes = b""
    rest: AsyncIterator[bytes] | None = None
    files: tuple[externals.External, ...] = ()


async def read(http: web.Request, ask: Ask) -> Incoming:
    """Read as much of the body as the statement takes. Raises StoreError, StatementError."""
    if http.content_type == "multipart/form-data":
        try:
            async with asyncio.timeout(_FORM_WITHIN):
                return await _form(http, ask)
        except TimeoutError:
            raise bodies.too_slow(f"the form was not here within {_FORM_WITHIN:g} s") from None
    query = ask.query.encode("utf-8", "surrogateescape")
    if http.method != "POST" or not http.can_read_body:
        statement = await _parse(query)
        return Incoming(ask, statement, query[statement.data :])
    rest = bodies.pieces(http.content, bodies.unpacker(http.headers.get("Content-Encoding", ""), ask.frames_in))
    if query:
        statement = await _parse(query)
        if statement.kind.startswith("insert") and statement.format:
            return Incoming(ask, statement, query[statement.data :], rest)
    try:
        async with asyncio.timeout(_TEXT_WITHIN):
            return await _with_body(ask, query + b"\n" if query else b"", rest)
    except TimeoutError:
        raise bodies.too_slow(f"the statement was not here within {_TEXT_WITHIN:g} s") from None


async def _with_body(ask: Ask, text: bytes, rest: AsyncIterator[bytes]) -> Incoming:
    """The statement stands in the body, or goes on there; an INSERT's data may follow it."""
    head: Statement | None = None
    async for piece in rest:
        text += piece
        head = await _head(text[:MAX_STATEMENT])
        if head is not None or len(text) > MAX_STATEMENT:
            break
    if head is None and len(text) > MAX_STATEMENT:  # not parsed: that would take the longer, the larger it is
        raise refusal(229, "QUERY_IS_TOO_LARGE", f"The statement is longer than {MAX_STATEMENT} bytes")
    statement = head or await _parse(text)
    if statement.kind.startswith("insert"):
        return Incoming(ask, statement, text[statement.data :], rest)
    return Incoming(ask, statement)


async def _form(http: web.Request, ask: Ask) -> Incoming:
    form = await externals.read(http)
    params = {name[6:]: value for name, value in form.fields.items() if name.startswith("param_")}
    query = "\n".join(part for part in (ask.query, form.fields.get("query", "")) if part)
    ask = ask._replace(query=query, params={**ask.params, **params})
    text = query.encode("utf-8", "surrogateescape")
    statement = await _parse(text)
    return Incoming(ask, statement, text[statement.data :], files=tuple(form.externals))


async def _head(text: bytes) -> Statement | None:
    """The statement, if `text` begins with the whole head of an INSERT that data follow."""
    try:
        statement = await _parse(text)
    except StatementError:
        return None
    whole = statement.data < MAX_STATEMENT  # else what is cut off there may belong to it
    return statement if statement.kind.startswith("insert") and statement.format and whole else None


async def _parse(text: bytes) -> Statement:
    if len(text) <= _CACHED_TEXT:
        return parse(text)
    return await asyncio.to_thread(parse.__wrapped__, text)  # up to a second: others must not wait for it
