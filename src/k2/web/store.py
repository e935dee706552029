"""The store over HTTP, asynchronously: the client that answers are streamed from."""

import re
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

import aiohttp

from k2.config import Config
from k2.store import StoreError, StoreUnavailable
from k2.store.rows import ASK_AT_MOST, MOVED_ON, asking, decoded, escaped, literal

_CODE = re.compile(r"Code: (\d+)")
_MARK = b"__exception__\r\n"
_CONNECT_WITHIN = 2.0  # s
_AT_ONCE = 48  # connections; the store itself runs fewer statements at once and lets the others wait

__all__ = ["StoreError", "StoreReader", "StoreUnavailable"]


class StoreReader:
    """Many statements at once, in one event loop. Whoever is cancelled, or closes a stream, stops its statement."""

    def __init__(self, config: Config, timeout: float = 120.0) -> None:
        self._url = config.store_url + "/"
        store = config.store
        self._writer = {"X-ClickHouse-User": store.user, "X-ClickHouse-Key": store.password}
        self._reader = {"X-ClickHouse-User": store.readonly_user, "X-ClickHouse-Key": store.readonly_password}
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_WITHIN, sock_read=timeout)
        self._session: aiohttp.ClientSession | None = None

    async def rows(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, str] | None = None,
        reader: bool = False,
    ) -> list[tuple[Any, ...]]:
        """The answer as tuples: integers as int, Decimals as str, DateTime64 as text in UTC, arrays as lists.

        `params` fill `{name:Type}`. `reader`: as the store's read-only user. Raises StoreError, StoreUnavailable.
        """
        response = await self._post(_asking(sql, settings), params, reader)
        try:
            return decoded(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._broken(error) from None
        finally:
            response.release()

    async def stream(
        self,
        sql: str,
        fmt: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, str] | None = None,
        reader: bool = False,
    ) -> AsyncIterator[bytes]:
        """The answer in a ClickHouse format, in chunks, in bounded memory.

        Raises StoreError (also in mid-answer), StoreUnavailable if the answer breaks off.
        """
        response = await self._post(_formatted(sql, fmt, settings), params, reader)
        tag = response.headers.get("X-ClickHouse-Exception-Tag", "").encode()
        mark = _MARK + tag if tag else b""
        held = b""
        try:
            async for chunk in response.content.iter_any():
                held += chunk
                if mark and mark in held:
                    continue  # the rest is the exception's text
                keep = len(mark) + 1 if mark else 0
                if len(held) > keep:
                    yield held[: len(held) - keep]
                    held = held[len(held) - keep :]
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if mark and mark in held:
                raise _in_mid_answer(held, mark) from None
            raise self._broken(error) from None
        finally:
            response.close() if not response.content.at_eof() else response.release()
        if mark and mark in held:
            raise _in_mid_answer(held, mark)
        if held:
            yield held

    async def close(self) -> None:
        """Release the connections. Idempotent."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, sql: str, params: Mapping[str, Any] | None, reader: bool) -> aiohttp.ClientResponse:
        for _ in range(ASK_AT_MOST - 1):
            try:
                return await self._ask(sql, params, reader)
            except StoreError as error:
                if MOVED_ON not in str(error):
                    raise
        return await self._ask(sql, params, reader)

    async def _ask(self, sql: str, params: Mapping[str, Any] | None, reader: bool) -> aiohttp.ClientResponse:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=_AT_ONCE, keepalive_timeout=60)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=self._timeout,
                headers={"Accept-Encoding": "identity"},
                auto_decompress=False,
                read_bufsize=1 << 18,
            )
        asked = {"database": "k2", **{f"param_{name}": text for name, text in escaped(params).items()}}
        headers = self._reader if reader else self._writer
        ask = partial(self._session.post, self._url, params=asked, data=sql.encode(), headers=headers)
        try:
            try:
                response = await ask()
            except (aiohttp.ServerDisconnectedError, ConnectionResetError):
                response = await ask()  # a kept connection, which the store had closed: reading twice does no harm
            if response.status == 200:
                return response
            text = (await response.read()).decode("utf-8", "replace").strip()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"the store at {self._url} cannot be reached: {_reason(error)}") from None
        named = response.headers.get("X-ClickHouse-Exception-Code") or "".join(_CODE.findall(text)[:1])
        raise StoreError(text or f"HTTP status {response.status} from {self._url}", int(named or 0))

    def _broken(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"the store at {self._url} broke off its answer: {_reason(error)}")


def _asking(sql: str, settings: Mapping[str, str] | None) -> str:
    return asking(sql) + "".join(f", {name} = {literal(text)}" for name, text in (settings or {}).items())


def _formatted(sql: str, fmt: str, settings: Mapping[str, str] | None) -> str:
    """The statement with its format. Settings stand in it, not in the URL: the store has connections waiting for
    requests without settings of their own."""
    told = ", ".join(f"{name} = {literal(text)}" for name, text in (settings or {}).items())
    return f"{sql.rstrip().rstrip(';')}\nFORMAT {fmt}" + (f" SETTINGS {told}" if told else "")


def _in_mid_answer(held: bytes, mark: bytes) -> StoreError:
    text = held[held.index(mark) + len(mark) :].decode("utf-8", "replace").strip()
    message = text.split("\n__exception__")[0].strip()
    code = _CODE.findall(message)
    return StoreError(message, int(code[0]) if code else 0)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return str(error) or type(error).__name__
