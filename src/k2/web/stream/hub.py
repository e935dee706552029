"""The hub: follows the log once for all subscribers, and only while there are any.

    log ──▶ Follower (in the loop) ──▶ Recent: each stream's newest records ──▶ Connection.go, one after the other
     └────▶ a few threads that read history, for cursors that are further back

Nearly all subscribers are at the end of the log nearly always, and want the same as others: for those, what is new is
put together once (`Step`) and only written to each.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakValueDictionary

from k2.config import EXCHANGES
from k2.core.codec import GAPS_STREAM, trades_stream
from k2.log import Log, LogError
from k2.metrics import STREAM_RECORDS
from k2.web.problems import Problem
from k2.web.stream import Limits, start
from k2.web.stream.candles import CandleChannel, Rows
from k2.web.stream.chunk import Recent
from k2.web.stream.connection import Connection
from k2.web.stream.encode import Encoded, Want
from k2.web.stream.follower import Follower, News, Skipped
from k2.web.stream.messages import Start
from k2.web.stream.step import Signature, Step

T = TypeVar("T")

STREAMS = (*(trades_stream(exchange) for exchange in EXCHANGES), GAPS_STREAM)
_READERS = 2  # threads
_BEAT_S = 0.5  # between two looks at who has been sent nothing
_GOING_AWAY = 1001


class Hub:
    """`clock` is monotonic, in seconds. Used in one event loop; made anywhere."""

    def __init__(
        self,
        log: Log,
        limits: Limits | None = None,
        rows: Rows | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rows` asks the store, for candles."""
        self.log = log
        self.limits = limits or Limits()
        self.clock = clock
        self.now = clock()  # when what is being sent began to be
        self.recents = {stream: Recent(0, self.limits.recent_bytes) for stream in STREAMS}
        self.encoded = Encoded(self.limits.cache_bytes)
        self.candles = CandleChannel(self, rows)
        self.sent = {"trades": 0, "candles": 0, "gaps": 0}
        self.signatures: WeakValueDictionary[tuple[tuple[str, Want], ...], Signature] = WeakValueDictionary()
        self._connections: dict[Connection, None] = {}
        self._full: dict[Connection, None] = {}
        self._follower: Follower | None = None
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="k2-history")
        self._looking: asyncio.TimerHandle | None = None
        self._beating: asyncio.TimerHandle | None = None
        self._closed = False

    # -- connections ---------------------------------------------------------------------------------------------------

    def require_room(self) -> None:
        """Raises Problem if no more may come in."""
        if self._closed:
            raise Problem(503, "Going away", "the server is stopping", "connect again in some seconds", "streams-full")
        if len(self._connections) >= self.limits.connections:
            detail = f"{len(self._connections)} live streams are open"
            raise Problem(503, "Too many live streams", detail, "close some, or raise web.subscribers", "streams-full")

    def enter(self, connection: Connection) -> None:
        self.require_room()
        self._connections[connection] = None
        if self._beating is None:
            self._beating = asyncio.get_running_loop().call_later(_BEAT_S, self._beat)

    def leave(self, connection: Connection) -> None:
        """The connection is gone. Idempotent."""
        connection.ended = True
        self._connections.pop(connection, None)
        self._full.pop(connection, None)
        for subscription in connection.subscriptions.values():
            self.candles.remove(subscription)
        if not self._connections:
            self._stop_following()

    def watch(self, connection: Connection) -> None:
        """Look after a connection whose way is full."""
        self._full[connection] = None
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(self.limits.look_s, self._look)

    async def close(self) -> None:
        """End every connection."""
        self._closed = True
        for connection in list(self._connections):
            connection.end(_GOING_AWAY, "the server is stopping")
        self._stop_following()
        await self.candles.close()
        for timer in (self._looking, self._beating):
            if timer is not None:
                timer.cancel()
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    def signature(self, wants: Mapping[str, Want]) -> Signature:
        """The same object for all who want the same."""
        items = tuple(wants.items())
        found = self.signatures.get(items)
        if found is None:
            found = self.signatures[items] = Signature(items)
        return found

    # -- the log -------------------------------------------------------------------------------------------------------

    def run(self, job: Callable[[], T]) -> "asyncio.Future[T]":
        """Run in one of the threads that read."""
        return asyncio.get_running_loop().run_in_executor(self._pool, job)

    async def begin(self, wanted: Start, streams: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
        """Where every stream ends, and where a subscription's cursors begin. Raises Problem."""

        def look() -> tuple[dict[str, int], dict[str, int]]:
            now = start.ends(self.log, STREAMS)
            return now, start.begin(self.log, wanted, {stream: now[stream] for stream in streams}, time.time_ns())

        try:
            return await self.run(look)
        except LogError as error:
            raise Problem(503, "The log cannot be read", str(error), "see `k2 status`", "log") from None

    def follow(self, now: dict[str, int]) -> None:
        """Follow the log from these ends on, if it is not followed yet."""
        if self._follower is None:
            for stream, end in now.items():
                self.recents[stream].restart(end)
            self._follower = Follower(
                self.log, now, self.limits.chunk_bytes, self.limits.linger_s, self._take, self._fail
            )
            self._follower.start()

    def _stop_following(self) -> None:
        if self._follower is not None:
            self._follower.stop()
            self._follower = None

    def _take(self, news: News) -> None:
        """What is new in the log goes to everybody."""
        self.now = self.clock()
        for item in news:
            recent = self.recents[item.stream]
            if isinstance(item, Skipped):
                recent.restart(item.offset)
            else:
                recent.add(item)
        self.candles.touch(news)
        step = Step(self.encoded, news)
        for connection in list(self._connections):
            connection.go(step)
        self._count()

    def _fail(self, error: LogError) -> None:
        self._stop_following()
        for connection in list(self._connections):
            connection.fail(str(error), "connect again; if this goes on, see `k2 status`")

    def _count(self) -> None:
        for channel, count in self.sent.items():
            if count:
                STREAM_RECORDS.labels(channel).inc(count)
                self.sent[channel] = 0

    # -- time ----------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._looking = None
        now = self.now = self.clock()
        for connection in list(self._full):
            if not connection.look(now):
                self._full.pop(connection, None)
        if self._full:
            self._looking = asyncio.get_running_loop().call_later(self.limits.look_s, self._look)

    def _beat(self) -> None:
        self._beating = None
        now, ts = self.clock(), time.time_ns()
        for connection in list(self._connections):
            connection.beat(now, ts)
        self._count()
        if self._connections:
            wait = min(_BEAT_S, self.limits.heartbeat_s / 2)
            self._beating = asyncio.get_running_loop().call_later(wait, self._beat)
