"""Fuzz targets that are servers: bytes as they come over a socket, to the store's HTTP side (over an engine that is
made up), to the API and to the live stream. What comes back is an answer; nothing fails in a way nobody foresaw."""

import asyncio
import logging
import os
import re
import tempfile
from collections.abc import Callable
from functools import cache
from typing import Any, cast

from aiohttp import web

from k2.commands.web import Looking
from k2.config import EXCHANGES, Config, load
from k2.core.codec import trades_stream
from k2.door import foreseen
from k2.log import Entry
from k2.log.memory import MemoryLog
from k2.store import StoreError, StoreUnavailable
from k2.store.embedded import Answer
from k2.store.server.app import Server
from k2.web.app import Frame, routes
from k2.web.keys import Keys
from k2.web.parts import Parts
from k2.web.store import StoreReader
from k2.web.stream.connection import Connection
from k2.web.stream.hub import Hub
from k2.web.stream.session import Session

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
_INFILE = re.compile(rb"FROM INFILE '/dev/fd/(\d+)'")
_OUTFILE = re.compile(rb"INTO OUTFILE '/dev/fd/(\d+)'")
_TREE = "SelectWithUnionQuery (children 1)\n ExpressionList (children 1)\n  SelectQuery (children 1)\n"
_QUIET_S = 0.02  # an input may be the beginning of a request only: nothing more comes after so long


class _Transport(asyncio.Transport):
    """The client's side of a connection: keeps what the server writes."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 8123)})
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, parts: Any) -> None:
        self.written += b"".join(parts)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def is_reading(self) -> bool:
        return True

    def can_write_eof(self) -> bool:
        return False


class _Troubles(logging.Handler):
    """What the server says it did not foresee."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record)


class Wire:
    """A server, and connections to it without sockets."""

    def __init__(self, make: Callable[[], tuple[web.Application, Any]], **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.troubles = _Troubles()
        self.troubles.addFilter(foreseen)
        for name in ("aiohttp", "k2", "asyncio"):
            logging.getLogger(name).addHandler(self.troubles)
        self.loop.run_until_complete(self._open(make, options))

    async def _open(self, make: Callable[[], tuple[web.Application, Any]], options: dict[str, Any]) -> None:
        app, self.made = make()
        self.runner = web.AppRunner(app, handler_cancellation=True, access_log=None, auto_decompress=False, **options)
        await self.runner.setup()

    def say(self, data: bytes, patience: float = _QUIET_S) -> bytes:
        """What the server answers to these bytes, if it begins to within `patience` seconds. Raises AssertionError when
        it failed at them."""
        return self.loop.run_until_complete(self._say(data, patience))

    async def _say(self, data: bytes, patience: float) -> bytes:
        assert self.runner.server is not None
        self.troubles.seen.clear()  # what other parts of this process told meanwhile
        protocol = self.runner.server()
        transport = _Transport()
        protocol.connection_made(transport)
        protocol.data_received(data)
        heard, quiet_since = -1, self.loop.time()
        while not transport.closed and self.loop.time() - quiet_since < (_QUIET_S if heard > 0 else patience):
            if len(transport.written) != heard:
                heard, quiet_since = len(transport.written), self.loop.time()
            await asyncio.sleep(0 if self.loop.time() - quiet_since < 0.002 else 0.001)
        protocol.connection_lost(None)
        for _ in range(3):
            await asyncio.sleep(0)
        seen, self.troubles.seen = self.troubles.seen, []
        assert not seen, "".join(
            f"{record.getMessage()}\n{logging.Formatter().formatException(record.exc_info) if record.exc_info else ''}"
            for record in seen
        )
        return bytes(transport.written)


class _Connection:
    """An engine's connection that parses nothing: it reads what it is given and answers one line."""

    def __init__(self, refuses: bool = False) -> None:
        self._refuses = refuses

    def set(self, settings: dict[str, str]) -> None:
        if any(not name.isidentifier() for name in settings):
            raise StoreError("Code: 115. DB::Exception: Unknown setting", 115)

    def run(self, sql: str | bytes, fmt: str = "TabSeparated", params: Any = None) -> Answer:
        text = sql.encode("utf-8", "surrogateescape") if isinstance(sql, str) else sql
        if text.startswith(b"EXPLAIN AST"):
            return Answer(_TREE.encode())
        if text.startswith((b"SELECT name, alias_to", b"SELECT lower(name)")):
            return Answer(b"")
        if found := _INFILE.search(text):
            while os.read(int(found[1]), 1 << 16):
                pass
        if found := _OUTFILE.search(text):
            os.write(int(found[1]), b"1\n")
        return Answer(b"" if fmt == "JSONCompactEachRow" else b"1\n")

    def close(self) -> None: ...


class _Engine:
    def connect(self, settings: Any = None, database: str = "") -> _Connection:
        connection = _Connection()
        connection.set(dict(settings or {}))
        return connection


@cache
def store_wire() -> Wire:
    """The store's HTTP side, with a user `default` without a password and a `reader` whose password is `r`."""
    settings = load(environ={"K2_STORE_READONLY_PASSWORD": "r"}).store

    def make() -> tuple[web.Application, Server]:
        server = Server(cast(Any, _Engine()), settings)
        return server.application(), server

    return Wire(make)


class _NoStore(StoreReader):
    """A store that is not there: every question has been checked by then."""

    async def _post(self, sql: str, params: Any, reader: bool) -> Any:
        sql.encode()
        raise StoreUnavailable("no store here")


def _log() -> MemoryLog:
    log = MemoryLog()
    record = (
        b'{"exchange":"binance","symbol":"BTC-USDT","native_symbol":"BTCUSDT","trade_id":%d,"price":"1","quantity":"2",'
        b'"side":"buy","exchange_ts":1763880000000000000,"recv_ts":1763880000000000000,"source":"live"}'
    )
    log.append([Entry(trades_stream(EXCHANGES[0]), ["BTC-USDT"] * 3, [record % number for number in (1, 2, 3)])])
    return log


def _parts() -> Parts:
    config: Config = load(environ={"K2_DATA": tempfile.mkdtemp(prefix="k2-fuzz-"), "K2_WEB_RATE_PER_S": "0"})
    log, store = _log(), _NoStore(config)
    return Parts(config, store, log, Looking(config), Keys(config.keys_file), Hub(log, rows=store.rows), 0.0)


@cache
def api_wire() -> Wire:
    """The API over a log of three trades and no store."""

    def make() -> tuple[web.Application, Parts]:
        parts = _parts()
        return Frame(parts, routes()).application(), parts

    return Wire(make, max_line_size=64 << 10)


def store_http(data: bytes) -> None:
    """A request to the store's port. A 500 carries ClickHouse's code, or it is a fault of ours."""
    answer = store_wire().say(data)
    for found in _STATUS.finditer(answer):
        if found[1] == b"500":
            assert b"X-ClickHouse-Exception-Code" in answer


def api(data: bytes) -> None:
    """A request to the API. Nothing is a 500."""
    answer = api_wire().say(data)
    assert b" 500 Internal" not in answer, answer[:2000]


class _Sink:
    """A client that takes all."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.ended = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def unsent(self) -> int:
        return 0

    def gone(self) -> bool:
        return self.ended

    def end(self, code: int, reason: str) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True


@cache
def _hub() -> tuple[asyncio.AbstractEventLoop, Hub]:
    return asyncio.new_event_loop(), Hub(_log(), rows=_NoStore(load(environ={})).rows)


def stream(data: bytes) -> None:
    """Messages of a subscriber: the first byte says whether they are MessagePack; else each line is one. All are
    answered, by what was asked for or by an error."""
    if not data:
        return
    binary, body = data[:1] == b"\x01", data[1:]
    loop, hub = _hub()
    loop.run_until_complete(_heard(hub, [body] if binary else body.split(b"\n")[:4], binary))


async def _heard(hub: Hub, messages: list[bytes], binary: bool) -> None:
    sink = _Sink()
    connection = Connection(hub, cast(Any, sink), "json")
    hub.enter(connection)
    try:
        session = Session(hub, connection)
        for message in messages:
            before = len(sink.written)
            text: bytes | str = message if binary else message.decode("utf-8", "replace")
            await session.hear(text, binary)
            assert len(sink.written) > before or connection.ended
    finally:
        hub.leave(connection)


TARGETS = {"store-http": store_http, "api": api, "stream": stream}
