"""The client: any server that speaks ClickHouse's HTTP protocol, K2's own store or a ClickHouse cluster."""

import re
import select
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from socket import socket
from typing import Any
from urllib.parse import quote, urlsplit

from k2.store import StoreError, StoreUnavailable
from k2.store.rows import ASK_AT_MOST, MOVED_ON, asking, decoded, escaped

_CODE = re.compile(r"Code: (\d+)")
_MARK = b"__exception__\r\n"
_CHUNK = 1 << 20
_CONNECT_WITHIN = 5.0  # s


class ClickHouseStore:
    """A connection to a store at `url` (`http://host:port`). One a thread; kept alive between requests.

    Nothing is sent twice but a question that the live tail outran: after StoreUnavailable the caller decides.
    `timeout` is seconds without a byte.
    `settings` are the engine's, for every statement.
    """

    def __init__(
        self,
        url: str,
        user: str = "default",
        password: str = "",
        timeout: float = 120.0,
        database: str = "",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._timeout = timeout
        try:
            parts = urlsplit(url)
            kind = {"http": HTTPConnection, "https": HTTPSConnection}[parts.scheme]
            self._url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
            self._connection = kind(parts.hostname or "", parts.port, timeout=_CONNECT_WITHIN)
        except (KeyError, ValueError, HTTPException):
            raise StoreError(f"{url!r} is not the address of a store: write http://HOST:PORT") from None
        if not parts.hostname:
            raise StoreError(f"{url!r} is not the address of a store: write http://HOST:PORT")
        self._headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": password}
        asked = {**({"database": database} if database else {}), **(settings or {})}
        self._base = "/?" + "".join(f"{name}={quote(value, safe='')}&" for name, value in asked.items())
        self._targets: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"ClickHouseStore({self._url})"

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        self._post(self._base + _query(params), sql.encode())

    def rows(self, sql: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        for _ in range(ASK_AT_MOST - 1):
            try:
                return self._rows(sql, params)
            except StoreError as error:
                if MOVED_ON not in str(error):
                    raise
        return self._rows(sql, params)

    def _rows(self, sql: str, params: Mapping[str, Any] | None) -> list[tuple[Any, ...]]:
        return decoded(self._post(self._base + _query(params), asking(sql).encode()))

    def stream(self, sql: str, fmt: str, params: Mapping[str, Any] | None = None) -> Iterator[bytes]:
        """The answer in a ClickHouse format. Also in mid-answer: StoreError, or StoreUnavailable if it breaks off."""
        target = f"{self._base}default_format={quote(fmt, safe='')}&{_query(params)}"
        response = self._request(target, sql.encode())
        tag = response.headers.get("X-ClickHouse-Exception-Tag", "").encode()
        mark = _MARK + tag if tag else b""
        held = b""
        try:
            while chunk := response.read1(_CHUNK):
                held += chunk
                if mark and mark in held:
                    continue  # the rest is the exception's text
                keep = len(mark) + 1
                if len(held) > keep:
                    yield held[:-keep]
                    held = held[-keep:]
        except (OSError, HTTPException) as error:
            if mark and mark in held:
                raise _in_mid_answer(held, mark) from None
            raise StoreUnavailable(f"the store at {self._url} broke off its answer: {type(error).__name__}") from None
        finally:
            if not response.isclosed():
                self._connection.close()
        if mark and mark in held:
            raise _in_mid_answer(held, mark)
        if held:
            yield held

    def insert(self, sql: str, body: bytes, params: Mapping[str, Any] | None = None) -> None:
        target = self._targets.get(sql)
        if target is None:
            target = f"{self._base}query={quote(sql, safe='')}&"
            if len(self._targets) < 64:
                self._targets[sql] = target
        self._post(target + _query(params), body)

    def close(self) -> None:
        self._connection.close()

    def _post(self, target: str, body: bytes) -> bytes:
        response = self._request(target, body)
        try:
            return response.read()
        except (OSError, HTTPException) as error:
            self._connection.close()
            raise StoreUnavailable(f"the store at {self._url} broke off its answer: {_reason(error)}") from None

    def _request(self, target: str, body: bytes) -> HTTPResponse:
        connection = self._connection
        try:
            if connection.sock is not None and _speaks(connection.sock):
                connection.close()  # the store hung up while nothing was asked
            if connection.sock is None:
                connection.connect()
                connection.sock.settimeout(self._timeout)  # type: ignore[attr-defined]  # connect() has made it
            connection.request("POST", target, body, self._headers)
            response: HTTPResponse = connection.getresponse()
            if response.status == 200:
                return response
            text = response.read().decode("utf-8", "replace").strip()
        except (OSError, HTTPException) as error:
            connection.close()
            raise StoreUnavailable(f"the store at {self._url} cannot be reached: {_reason(error)}") from None
        named = response.headers.get("X-ClickHouse-Exception-Code") or "".join(_CODE.findall(text)[:1])
        raise StoreError(text or f"HTTP status {response.status} from {self._url}", int(named or 0))


def _speaks(sock: socket) -> bool:
    """Whether the other side has sent something, or hung up. (`select` cannot look at descriptors past 1,023.)"""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _query(params: Mapping[str, Any] | None) -> str:
    return "&".join(f"param_{name}={quote(text, safe='')}" for name, text in escaped(params).items())


def _in_mid_answer(held: bytes, mark: bytes) -> StoreError:
    text = held[held.index(mark) + len(mark) :].decode("utf-8", "replace").strip()
    message = text.split("\n__exception__")[0].strip()
    code = _CODE.findall(message)
    return StoreError(message, int(code[0]) if code else 0)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
