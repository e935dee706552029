"""What a client may hold of the store's port and of the API: connections, time, memory, disk. All of it has an end."""

import asyncio
import gzip
import ssl
import tempfile
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import lz4.frame
import pytest
import zstandard
from aiohttp import web
from tests.fuzz.served import api_wire, store_wire
from tests.patience import PATIENCE_S

from k2.config import ConfigError, load
from k2.door import Door
from k2.feed import rest
from k2.feed.rest import Answer, Rest, RestError
from k2.store import StoreError, embedded
from k2.store.server import answers, bodies, codecs, externals, frames, incoming, request
from k2.store.server.connections import Connections
from k2.store.server.service import _refuse_open_door
from k2.store.server.statement import parse
from k2.store.server.work import Work

HOST = b"Host: 127.0.0.1\r\n"
ZEROS = 16 << 20


@asynccontextmanager
async def served(door: Door, idle_s: float = PATIENCE_S) -> AsyncIterator[tuple[Callable[[], Any], asyncio.Event]]:
    """A server behind the door, as something to connect with. `/` answers; `/wait` sets the event and never does."""
    begun = asyncio.Event()

    async def at_once(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def later(_: web.Request) -> web.Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application(middlewares=[door.middleware])
    app.router.add_get("/", at_once)
    app.router.add_get("/wait", later)
    runner = web.AppRunner(app, keepalive_timeout=idle_s, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    listener = await door.listen(runner, "127.0.0.1", 0, backlog=16)
    port = listener.sockets[0].getsockname()[1]
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return reader, writer

    try:
        yield connect, begun
    finally:
        for writer in writers:
            writer.close()
        listener.close()
        await runner.cleanup()


async def first_line(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        return (await reader.readline()).strip()


def test_connections_that_only_wait_keep_nobody_out() -> None:
    async def play() -> None:
        async with served(Door("test", 3)) as (connect, _):
            idle = [await connect() for _ in range(3)]
            for _, writer in idle:
                writer.write(b"GET / HTTP/1.1\r\nHost: 127")  # a head that never ends
            for _ in range(5):
                reader, writer = await connect()
                writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
                assert await first_line(reader) == b"HTTP/1.1 200 OK"
            for reader, _ in idle:
                assert await first_line(reader) == b""  # closed for others

    asyncio.run(play())


def test_when_all_are_being_answered_the_next_is_told_so() -> None:
    async def play() -> None:
        async with served(Door("test", 2)) as (connect, begun):
            for _ in range(2):
                _, writer = await connect()
                writer.write(b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n")
                await asyncio.wait_for(begun.wait(), PATIENCE_S)
                begun.clear()
            reader, _ = await connect()
            assert await first_line(reader) == b"HTTP/1.1 503 Service Unavailable"

    asyncio.run(play())


def test_a_head_that_comes_byte_by_byte_is_not_waited_for() -> None:
    async def play() -> None:
        async with served(Door("test", 9), idle_s=0.5) as (connect, _):
            reader, writer = await connect()
            async with asyncio.timeout(PATIENCE_S):
                for byte in b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.02)
                    if reader.at_eof():
                        break
            assert await first_line(reader) == b""

    asyncio.run(play())


@pytest.mark.parametrize("wire", [store_wire, api_wire])
@pytest.mark.parametrize(
    "head",
    [
        b"GET /?" + b"x" * 100_000 + b" HTTP/1.1\r\n" + HOST,
        b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 100_000 + b"\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X%d: x\r\n" % number for number in range(1_000)),
        b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n",
    ],
    ids=["line", "header", "headers", "two lengths", "negative length"],
)
def test_heads_beyond_measure_are_refused(wire: Callable[[], Any], head: bytes) -> None:
    assert wire().say(head + b"\r\n", PATIENCE_S).startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))


def bombs() -> dict[str, tuple[str, bytes]]:
    zeros = bytes(ZEROS)
    return {
        "gzip": ("gzip", gzip.compress(zeros)),
        "deflate": ("deflate", zlib.compress(zeros)),
        "lz4": ("lz4", lz4.frame.compress(zeros)),
        "zstd": ("zstd", zstandard.ZstdCompressor().compress(zeros)),
    }


@pytest.fixture(scope="module")
def packed() -> dict[str, tuple[str, bytes]]:
    return bombs()


@pytest.mark.parametrize("name", ["gzip", "deflate", "lz4", "zstd"])
def test_a_bomb_is_taken_apart_piece_by_piece(name: str, packed: dict[str, tuple[str, bytes]]) -> None:
    encoding, bomb = packed[name]
    unpack = codecs.decoder(encoding)
    assert unpack is not None
    tracemalloc.start()
    try:
        sizes = [len(piece) for piece in unpack(bomb)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(sizes) == ZEROS
    assert max(sizes) <= codecs.AT_ONCE
    assert peak < 8 << 20


def test_a_bomb_for_a_statement_ends_at_the_statements_bound(packed: dict[str, tuple[str, bytes]]) -> None:
    encoding, bomb = packed["gzip"]
    head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(bomb)}\r\n\r\n"
    answer = store_wire().say(head.encode() + bomb, PATIENCE_S)
    assert b"X-ClickHouse-Exception-Code: 229" in answer


def test_a_window_of_more_than_http_allows_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, compression_level=3)
    wide = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = wide.compress(b"x" * (1 << 20)) + wide.flush()
    unpack = codecs.decoder("zstd")
    assert unpack is not None
    with pytest.raises(StoreError, match="not valid zstd"):
        list(unpack(data))


@pytest.mark.parametrize(("packed_size", "size"), [(20, 1 << 30), (1 << 30, 20), (frames.MOST + 1, 1)])
def test_frames_that_promise_too_much_are_refused_before_they_are_held(packed_size: int, size: int) -> None:
    head = bytes(16) + bytes([0x82]) + packed_size.to_bytes(4, "little") + size.to_bytes(4, "little")
    with pytest.raises(StoreError, match="more than 16 MiB"):
        list(frames.FrameReader().feed(head))


def test_the_api_takes_no_packed_bodies() -> None:
    bomb = gzip.compress(bytes(1 << 20))
    head = b"POST /v1/sql HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
    assert (
        api_wire().say(head + b"Content-Length: %d\r\n\r\n" % len(bomb) + bomb, PATIENCE_S).startswith(b"HTTP/1.1 415 ")
    )


def test_a_form_is_bounded_in_bytes_and_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    def form(parts: Iterator[bytes]) -> bytes:
        body = b"".join(b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--b--\r\n"
        head = b"POST /?t_structure=a+UInt8 HTTP/1.1\r\n" + HOST + b"Content-Type: multipart/form-data; boundary=b\r\n"
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    monkeypatch.setattr(externals, "MOST", 2_000)
    large = form(iter([b'name="t"; filename="t"\r\n\r\n' + b"1\n" * 1_500]))
    assert b"QUERY_IS_TOO_LARGE" in store_wire().say(large, PATIENCE_S)
    many = form(b'name="f%d"\r\n\r\nx' % number for number in range(30))
    monkeypatch.setattr(externals, "_PARTS", 20)
    assert b"more than 20 parts" in store_wire().say(many, PATIENCE_S)


class Silent:
    """A body of which nothing comes any more."""

    async def readany(self) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async def read(self) -> bytes:
        return await self.readany()


class Drip(Silent):
    """A body that comes byte by byte."""

    async def readany(self) -> bytes:
        await asyncio.sleep(0.001)
        return b" "


def test_a_body_that_stops_coming_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "QUIET_S", 0.05)

    async def read() -> None:
        async for _ in bodies.pieces(cast(Any, Silent()), None):
            raise AssertionError

    with pytest.raises(StoreError, match="nothing came") as caught:
        asyncio.run(read())
    assert caught.value.code == 209


def test_a_statement_that_drips_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "_TEXT_WITHIN", 0.2)
    ask = request.read("POST", {}, {}, {"default": request.Account("default", "", readonly=False)})
    http = SimpleNamespace(content_type="", method="POST", can_read_body=True, headers={}, content=Drip())
    with pytest.raises(StoreError, match="was not here within") as caught:
        asyncio.run(incoming.read(cast(Any, http), ask))
    assert caught.value.code == 209


def test_who_does_not_read_an_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "STALLED_S", 0.05)
    aborted: list[bool] = []
    http = SimpleNamespace(transport=SimpleNamespace(abort=lambda: aborted.append(True)))

    class Stuck:
        async def write(self, _: bytes) -> None:
            await asyncio.Event().wait()

    async def write() -> None:
        stream = answers.Stream(cast(Any, http), cast(Any, SimpleNamespace(native_frames=False)), {})
        stream._response = cast(Any, Stuck())
        await stream.write(b"x")

    with pytest.raises(ConnectionResetError):
        asyncio.run(write())
    assert aborted == [True]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_the_store_listens_beyond_this_machine_with_passwords_only(host: str) -> None:
    both = {"K2_STORE_HOST": host, "K2_STORE_PASSWORD": "a", "K2_STORE_READONLY_PASSWORD": "b"}
    for missing in ("K2_STORE_PASSWORD", "K2_STORE_READONLY_PASSWORD"):
        with pytest.raises(ConfigError, match="has no password"):
            _refuse_open_door(load(environ={**both, missing: ""}))
    _refuse_open_door(load(environ=both))
    _refuse_open_door(load(environ={"K2_STORE_HOST": "127.0.0.1"}))


async def _answer_of(body: bytes, headers: dict[str, str], status: int = 200) -> Answer:
    """What the feed's REST side gets from a venue that answers so."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, headers=headers, status=status)

    app = web.Application()
    app.router.add_get("/x", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    client = Rest(f"http://127.0.0.1:{runner.addresses[0][1]}", ssl.create_default_context(), PATIENCE_S)
    try:
        return await client.get("/x")
    finally:
        await client.close()
        await runner.cleanup()


@pytest.mark.parametrize("packing", ["identity", "gzip"])
def test_a_venues_answer_beyond_measure_is_no_answer(packing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "MAX_ANSWER", 1 << 20)
    body = bytes(2 << 20)
    with pytest.raises(RestError) as caught:
        asyncio.run(_answer_of(gzip.compress(body) if packing == "gzip" else body, {"Content-Encoding": packing}))
    assert caught.value.outcome == "too-large"


def test_a_venue_sends_nobody_elsewhere() -> None:
    answer = asyncio.run(_answer_of(b"", {"Location": "http://127.0.0.1:1/"}, status=302))
    assert answer.status == 302


def test_files_of_a_form_are_loaded_within_the_limits_of_a_statement() -> None:
    """They may unpack to much (Parquet, say)."""
    made: list[tuple[str, dict[str, str]]] = []

    class Recorder:
        def connect(self, settings: dict[str, str] | None = None, database: str = "") -> "Recorder":
            made.append(("connect", dict(settings or {})))
            return self

        def set(self, settings: dict[str, str]) -> None:
            made.append(("set", settings))

        def run(self, sql: str | bytes, fmt: str = "", params: object = None) -> embedded.Answer:
            made.append((str(sql)[:20], {}))
            return embedded.Answer(b"")

        def close(self) -> None: ...

    with tempfile.TemporaryFile() as file:
        settings = load(environ={"K2_STORE_MAX_MEMORY_MB": "7"}).store
        work = Work(Connections(cast(Any, Recorder()), settings))
        ask = request.read("POST", {}, {}, {"default": request.Account("default", "", readonly=True)})
        table = externals.External("t", "x UInt8", "CSV", file)
        work.select(ask, parse(b"SELECT * FROM t"), "CSV", 9, [table])
    first, *then = made
    assert first[0] == "connect"
    assert first[1]["max_memory_usage"] == str(7 << 20)
    assert [what for what, _ in then[:3]] == ["CREATE TEMPORARY TAB", "INSERT INTO `t` FROM", "set"]
    assert then[2][1]["readonly"] == "1"
