"""A past range of trades once more: hot and cold as one, in order, at N times its speed.

It is read page by page from the store, in the order of (exchange_ts, exchange, symbol, epoch, trade_id); the next page
while one is played. Trades that arrive for a time already played are not in it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

import msgspec

from k2.ask import AskError
from k2.ask.trades import COLUMNS, KEY, Trades
from k2.web.problems import Problem
from k2.web.store import StoreReader
from k2.web.stream.framing import framed
from k2.web.stream.messages import message, records

PAGE = 20_000  # trades
_TOGETHER_NS = 10_000_000  # of due time: trades that are sent at once
_ALIVE_S = 15.0  # between two signs of life where the range is quiet
_SETTINGS = {"output_format_json_quote_64bit_integers": "0", "output_format_json_quote_decimals": "1"}


class Wanted(NamedTuple):
    """Times in ns, `end` excluded."""

    first: int
    end: int
    exchanges: tuple[str, ...]
    symbols: tuple[str, ...]


class _Key(msgspec.Struct):
    exchange_ts: int
    exchange: str
    symbol: str
    epoch: int
    trade_id: int


_key = msgspec.json.Decoder(_Key).decode


class Form(NamedTuple):
    """How trades, signs of life and the summary are written."""

    trades: Callable[[Sequence[bytes]], bytes]
    alive: bytes
    summary: Callable[[dict[str, Any]], bytes]


def _events(lines: Sequence[bytes]) -> bytes:
    return framed("trades", records("trades", {}, lines, "sse"), "sse")


LINES = Form(lambda lines: b"\n".join(lines) + b"\n", b"", lambda members: message("summary", members, "json") + b"\n")
EVENTS = Form(_events, b": quiet\n\n", lambda members: framed("summary", message("summary", members, "sse"), "sse"))


def _record(column: str) -> str:
    """A column as the log's records have it."""
    if column.endswith("_ts"):
        return f"toUnixTimestamp64Nano(t.{column}) AS {column}"
    return f"t.{column} AS {column}"


_SELECT = f"SELECT {', '.join(map(_record, COLUMNS))} FROM ({{sql}}) AS t ORDER BY {', '.join(KEY)}"


async def pages(store: StoreReader, wanted: Wanted, page: int = PAGE) -> AsyncIterator[list[bytes]]:
    """The trades, a page of JSON records at a time. Raises Problem, StoreError."""
    cursor = ""
    while True:
        try:
            question = Trades(
                exchange=wanted.exchanges,
                symbol=wanted.symbols,
                from_=str(wanted.first),
                to=str(wanted.end),
                limit=page,
                cursor=cursor,
            ).query(time.time_ns())
        except AskError as error:
            raise Problem(400, "Invalid parameter", str(error), error.remedy, "invalid-parameter") from None
        sql = _SELECT.format(sql=question.sql)
        chunks = store.stream(sql, "JSONEachRow", question.params, {**question.settings, **_SETTINGS})
        async with aclosing(chunks):  # type: ignore[type-var]  # it is a generator
            body = b"".join([chunk async for chunk in chunks])
        lines = body.splitlines()
        if lines:
            yield lines
        if len(lines) < page:
            return
        last = _key(lines[-1])
        cursor = question.cursor((last.exchange_ts, last.exchange, last.symbol, last.epoch, last.trade_id))


async def begun(source: AsyncIterator[list[bytes]]) -> AsyncIterator[list[bytes]]:
    """The same pages. What fails with the first one fails here, while a clean error can be given."""
    first = await anext(source, None)

    async def rest() -> AsyncIterator[list[bytes]]:
        async with aclosing(source):  # type: ignore[type-var]  # it is a generator
            if first is not None:
                yield first
                async for page in source:
                    yield page

    return rest()


async def _ahead(source: AsyncIterator[list[bytes]]) -> AsyncIterator[list[bytes]]:
    """The same pages; each is fetched while the one before is played."""
    async with aclosing(source):  # type: ignore[type-var]  # it is a generator
        coming = asyncio.ensure_future(anext(source, None))
        try:
            while (found := await coming) is not None:
                coming = asyncio.ensure_future(anext(source, None))
                yield found
        finally:
            coming.cancel()
            await asyncio.wait([coming])


async def play(
    source: AsyncIterator[list[bytes]],
    wanted: Wanted,
    speed: float,
    form: Form,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[bytes]:
    """The bytes to send, each when it is due: `speed` 0 means at once. The summary is the last."""
    began = clock()
    count, first, last = 0, 0, 0
    async with aclosing(_ahead(source)) as pages:  # type: ignore[type-var]  # it is a generator
        async for lines in pages:
            first = first or _key(lines[0]).exchange_ts
            for part in _due(lines) if speed else [(0, lines)]:
                if speed:
                    async for sign in _wait(began + (part[0] - wanted.first) / 1e9 / speed, form, clock):
                        yield sign
                yield form.trades(part[1])
            count, last = count + len(lines), _key(lines[-1]).exchange_ts
    if speed:
        async for sign in _wait(began + (wanted.end - wanted.first) / 1e9 / speed, form, clock):
            yield sign
    yield form.summary(
        {
            "trades": count,
            "from": wanted.first,
            "to": wanted.end,
            "first_ts": first,
            "last_ts": last,
            "speed": speed or "max",
            "seconds": round(clock() - began, 3),
        }
    )


def _due(lines: Sequence[bytes]) -> list[tuple[int, list[bytes]]]:
    """Lines in the order of their exchange times, those of about the same time together, with the first one's time."""
    found: list[tuple[int, list[bytes]]] = []
    for line in lines:
        at = _key(line).exchange_ts
        if not found or at - found[-1][0] > _TOGETHER_NS:
            found.append((at, []))
        found[-1][1].append(line)
    return found


async def _wait(until: float, form: Form, clock: Callable[[], float]) -> AsyncIterator[bytes]:
    """Until the time has come; signs of life meanwhile, where the form has some."""
    while (left := until - clock()) > 0:
        await asyncio.sleep(min(left, _ALIVE_S))
        if form.alive and until - clock() > 0:
            yield form.alive
