"""The live stream: iterate with `for` or `async for`. It reconnects by itself and goes on where it stopped.

The server counts positions in the log's own offsets. What was given to the iterating code is remembered by its
position, so after a lost connection nothing is missing and nothing comes twice.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import aclosing, suppress
from threading import Event
from typing import Any, Literal, TypeAlias, TypeVar

import aiohttp
import msgspec

from k2.client import messages
from k2.client.errors import K2Error, TooSlow, Unavailable, kind_of, of_status
from k2.client.messages import Candle, Candles, Gap, Gaps, Message, Said, Trade, Trades
from k2.client.pump import Pump
from k2.core.pacing import Backoff

Slow = Literal["resume", "disconnect", "conflate"]
Where = tuple[str, Mapping[str, str], Any]
T = TypeVar("T")
Row: TypeAlias = Trade | Candle | Gap

_decode = msgspec.json.Decoder(Said).decode
_MESSAGE_BYTES = 64 << 20
_QUIET = 3.0  # s without a word before the server is asked whether it is there ...
_ANSWER = 3.0  # ... and so long it has for its answer
_DIAL = 5.0  # s that a connection may take to stand
_CLOSE = aiohttp.ClientWSTimeout(ws_close=1.0)  # s that the other side has for its goodbye


class Stream:
    """Messages as they come, until `close`; `rows()` gives the single trades, candles and gaps in them.

    `positions` (log stream to next offset) says how far the iterating code has come: keep it, and a later stream with
    `start=positions` goes on there. One iteration at a time; a new one goes on where the last stopped.
    Iterating raises K2Error: Unavailable if nobody answers at first, or for `patience` seconds later; TooSlow with
    `slow="disconnect"`.
    """

    def __init__(self, where: Callable[[], Where], asked: Mapping[str, Any], slow: Slow, patience: float) -> None:
        self._where = where
        self._asked = dict(asked)
        self._slow = slow
        self._patience = patience
        self._pump: Pump | None = None
        self._closed = Event()
        start = asked.get("start")
        self.positions: dict[str, int] = dict(start) if isinstance(start, Mapping) else {}
        self._seen = dict(self.positions)  # of what has come; `positions` is of what was given out
        self._left: deque[Row] = deque()  # of a message that came, and was given out in part

    def rows(self) -> "Rows":
        """The same stream, one trade, candle or gap at a time."""
        return Rows(self)

    def __iter__(self) -> Iterator[Message]:
        self._begin_again()
        for message in self._pumped():
            self.positions = dict(self._seen)
            yield message

    async def __aiter__(self) -> AsyncGenerator[Message, None]:
        self._begin_again()
        async with aclosing(self._messages()) as source:
            async for message in source:
                self.positions = dict(self._seen)
                yield message

    def close(self) -> None:
        """End the iteration, from any thread. Idempotent."""
        self._closed.set()
        if (pump := self._pump) is not None:
            with suppress(RuntimeError):  # it has just ended by itself
                pump.interrupt()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> "Stream":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _begin_again(self) -> None:
        """What was given out in part comes again, whole."""
        self._left.clear()
        self._seen = dict(self.positions)

    def _pumped(self) -> Iterator[Message]:
        pump = self._pump = Pump()
        source = self._messages()
        try:
            while not self._closed.is_set():
                yield pump.run(_next(source))
        except (StopAsyncIteration, CancelledError):
            return
        finally:
            self._pump = None
            pump.close(source)

    async def _messages(self) -> AsyncGenerator[Message, None]:
        """Every message once, from `_seen` on, which moves before each."""
        lost_at, answered, backoff = 0.0, bool(self._seen), Backoff(0.1, 5.0)
        async with aiohttp.ClientSession() as session:
            while not self._closed.is_set():
                try:
                    async with aclosing(self._connection(session)) as connection:
                        async for said in connection:
                            lost_at, answered = 0.0, True
                            backoff.reset()
                            if self._is_new(said) and isinstance(said, Message):
                                yield said
                            self.positions = dict(self._seen)
                            if self._closed.is_set():
                                return
                except Unavailable:
                    lost_at = lost_at or time.monotonic()
                    if not answered or time.monotonic() - lost_at > self._patience:
                        raise
                await asyncio.sleep(backoff.next(0.5))

    def _is_new(self, said: Said) -> bool:
        """Whether it did not come before; `_seen` moves on."""
        seen = self._seen
        if isinstance(said, Trades | Gaps):
            if said.stream and said.next <= seen.get(said.stream, -1):
                return False
            seen[said.stream] = said.next
        elif isinstance(said, messages.Subscribed):
            seen.update({stream: offset for stream, offset in said.start.items() if stream not in seen})
        elif isinstance(said, messages.Heartbeat):
            seen.update({stream: max(at, seen.get(stream, 0)) for stream, at in said.positions.items()})
        elif isinstance(said, messages.Slow) and self._slow == "disconnect":
            raise TooSlow(
                "The stream was too slow a reader",
                "the server closed it, since it would not hold more for this reader",
                'read faster, subscribe to less, or let it resume (slow="resume")',
                extra={"positions": dict(self.positions)},
            )
        return True

    def _unpacked(self, message: Message | None = None) -> Iterator[Row]:
        """The rows of the message, or those that are left. With the last one the iterating code has it all."""
        if message is not None:
            self._left.extend(rows_of(message))
        while self._left:
            row = self._left.popleft()
            if not self._left:
                self.positions = dict(self._seen)
            yield row

    async def _connection(self, session: aiohttp.ClientSession) -> AsyncGenerator[Said, None]:
        """What one connection says until it ends. Raises K2Error; Unavailable where another connection may do."""
        url, headers, tls = self._where()
        policy = "conflate" if self._slow == "conflate" else "disconnect"
        asked = {"op": "subscribe", **self._asked, "slow": policy, **({"start": self._seen} if self._seen else {})}
        try:
            async with asyncio.timeout(_DIAL):
                socket = await session.ws_connect(
                    url, headers=headers, ssl=tls, max_msg_size=_MESSAGE_BYTES, autoping=False, timeout=_CLOSE
                )
            async with socket:
                await socket.send_str(msgspec.json.encode(asked).decode())
                while True:
                    frame = await _received(socket)
                    if frame.type is not aiohttp.WSMsgType.TEXT:
                        raise Unavailable(
                            "The stream ended", f"{url} closed it ({socket.close_code})", "subscribe again"
                        )
                    said = _decode(frame.data)
                    if isinstance(said, messages.Refused):
                        raise kind_of(said.status)(said.title, said.detail, said.remedy, said.status)
                    yield said
                    if isinstance(said, messages.Slow):
                        return
        except aiohttp.WSServerHandshakeError as error:
            raise await _not_upgraded(session, url, headers, tls, error) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            reason = str(error) or "it fell silent"
            raise Unavailable("The stream cannot be read", f"{url}: {reason}", "is `k2 web` running?") from None
        except msgspec.MsgspecError as error:
            raise K2Error("The stream is not understood", f"{url}: {error}", "use the same version of K2") from None


class Rows:
    """A stream's rows; `break` and go on with another iteration: none is lost, none comes twice."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[Row]:
        yield from self._stream._unpacked()
        for message in self._stream._pumped():
            yield from self._stream._unpacked(message)

    async def __aiter__(self) -> AsyncGenerator[Row, None]:
        for row in self._stream._unpacked():
            yield row
        async with aclosing(self._stream._messages()) as source:
            async for message in source:
                for row in self._stream._unpacked(message):
                    yield row


async def _received(socket: aiohttp.ClientWebSocketResponse) -> aiohttp.WSMessage:
    """The next frame that is neither ping nor pong. Raises TimeoutError if the other side is gone without a word: what
    a network that was cut has forgotten ends by no other sign."""
    asked = False
    while True:
        try:
            frame = await socket.receive(_ANSWER if asked else _QUIET)
        except TimeoutError:
            if asked:
                raise
            asked = True
            await socket.ping()
            continue
        asked = False
        if frame.type is aiohttp.WSMsgType.PING:
            await socket.pong(frame.data)
        elif frame.type is not aiohttp.WSMsgType.PONG:
            return frame


async def _next(source: AsyncGenerator[T, None]) -> T:
    return await anext(source)


async def _not_upgraded(
    session: aiohttp.ClientSession,
    url: str,
    headers: Mapping[str, str],
    tls: Any,
    error: aiohttp.WSServerHandshakeError,
) -> K2Error:
    """The error of a refused connection. Its answer's text is not to be had, so it is asked for once more."""
    try:
        async with session.get(f"http{url.removeprefix('ws')}", headers=headers, ssl=tls) as answer:
            told = await answer.content.read(1 << 16) if answer.status == error.status else b""
    except (aiohttp.ClientError, OSError, TimeoutError):
        told = b""
    return of_status(error.status, told, url, error.headers or {})


def rows_of(message: Message) -> Iterable[Row]:
    """What is in it."""
    if isinstance(message, Trades):
        return message.trades
    return message.candles if isinstance(message, Candles) else message.gaps
