"""Answers: from the engine through a pipe to the client, in bounded memory, with ClickHouse's headers.

The engine writes a SELECT's answer in any format, already compressed, into a pipe (`INTO OUTFILE`), and waits when
nobody reads. Up to `WHOLE` bytes are held before the first is sent, so that an early failure is a clean HTTP error.
"""

import asyncio
import secrets
import tempfile
from contextlib import suppress
from typing import IO

from aiohttp import web

from k2.store import StoreError
from k2.store.embedded import Answer
from k2.store.server.frames import pack
from k2.store.server.pipes import Pipe
from k2.store.server.request import Ask
from k2.store.server.status import http_status

WHOLE = 1 << 20
STALLED_S = 30.0  # ClickHouse's http_send_timeout

_TYPES = {
    "json": "application/json; charset=UTF-8",
    "jsoncompact": "application/json; charset=UTF-8",
    "jsonstrings": "application/json; charset=UTF-8",
    "jsoneachrow": "application/x-ndjson; charset=UTF-8",
    "csv": "text/csv; charset=UTF-8; header=absent",
    "csvwithnames": "text/csv; charset=UTF-8; header=present",
    "csvwithnamesandtypes": "text/csv; charset=UTF-8; header=present",
    "tabseparated": "text/tab-separated-values; charset=UTF-8",
    "tsv": "text/tab-separated-values; charset=UTF-8",
    "xml": "application/xml; charset=UTF-8",
}
_BINARY = (
    "native",
    "rowbinary",
    "arrow",
    "parquet",
    "orc",
    "avro",
    "protobuf",
    "capnproto",
    "msgpack",
    "bson",
    "npy",
    "rawblob",
)


def content_type(name: str) -> str:
    """The Content-Type that ClickHouse gives an output format."""
    lower = name.lower()
    if lower.startswith(("tabseparated", "tsv")):
        lower = "tsv"
    if lower.startswith("json") and lower.endswith("eachrow"):
        lower = "jsoneachrow"
    binary = lower.startswith(_BINARY)
    return _TYPES.get(lower, "application/octet-stream" if binary else "text/plain; charset=UTF-8")


def summary(answer: Answer, elapsed: float) -> str:
    """X-ClickHouse-Summary."""
    return (
        f'{{"read_rows":"{answer.read_rows}","read_bytes":"{answer.read_bytes}","written_rows":"{answer.written_rows}",'
        f'"written_bytes":"{answer.written_bytes}","total_rows_to_read":"{answer.read_rows}",'
        f'"result_rows":"{answer.result_rows}","result_bytes":"{len(answer.body)}",'
        f'"elapsed_ns":"{int(elapsed * 1e9)}"}}'
    )


def failure(error: StoreError, headers: dict[str, str]) -> web.Response:
    """A clean HTTP error in ClickHouse's form."""
    response = web.Response(
        status=http_status(error.code),
        body=f"{error}\n".encode(errors="replace"),
        headers={**headers, "X-ClickHouse-Exception-Code": str(error.code)},
    )
    response.content_type = "text/plain"
    response.charset = "UTF-8"
    return response


async def held(pipe: Pipe) -> tuple[list[bytes], bool]:
    """The beginning of an answer, and whether that is all of it."""
    chunks: list[bytes] = []
    size = 0
    while size < WHOLE:
        chunk = await pipe.read()
        if not chunk:
            return chunks, True
        chunks.append(chunk)
        size += len(chunk)
    return chunks, False


async def spooled(pipe: Pipe, chunks: list[bytes]) -> IO[bytes]:
    """The whole of a large answer, on disk (`wait_end_of_query=1`)."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    for chunk in chunks:
        file.write(chunk)
    while chunk := await pipe.read():
        await asyncio.to_thread(file.write, chunk)
    file.seek(0)
    return file


def whole(ask: Ask, body: bytes, headers: dict[str, str]) -> web.Response:
    """An answer that is all here."""
    return web.Response(body=pack(body) if ask.native_frames else body, headers=headers)


class Stream:
    """A chunked HTTP answer under way."""

    def __init__(self, request: web.Request, ask: Ask, headers: dict[str, str]) -> None:
        self._request = request
        self._frames = ask.native_frames
        self._tag = secrets.token_hex(8)
        self._response = web.StreamResponse(headers={**headers, "X-ClickHouse-Exception-Tag": self._tag})

    async def begin(self) -> None:
        self._response.enable_chunked_encoding()
        await self._response.prepare(self._request)

    async def write(self, chunk: bytes) -> None:
        """Raises ConnectionError when the client takes nothing for long: a statement's place waits behind it."""
        try:
            async with asyncio.timeout(STALLED_S):
                await self._response.write(pack(chunk) if self._frames else chunk)
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError(f"the client took nothing for {STALLED_S:g} s") from None

    async def end(self) -> web.StreamResponse:
        await self._response.write_eof()
        return self._response

    async def break_off(self, error: StoreError) -> web.StreamResponse:
        """Tell a client in mid-answer that it failed: the exception between marks, then a body without its end."""
        text = f"{error}\n"
        block = f"\r\n__exception__\r\n{self._tag}\r\n{text}{len(text.encode())} {self._tag}\r\n__exception__\r\n"
        with suppress(ConnectionError):
            await self._response.write(block.encode(errors="replace"))
        if self._request.transport is not None:
            # Not abort(): what is written must still reach the client; closing leaves out the last chunk.
            self._request.transport.close()
        return self._response
