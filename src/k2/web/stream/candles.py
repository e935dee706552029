"""The channel `candles`: updates of the windows that trades touch, and a final one when a window is over.

The log says which minutes were touched; the store says what they are, in one question for all at most every 0.4 s.
A touched minute is asked for once more when the loader has committed past the touching trade: from then on the answer
holds it for certain. A window is final when it is over and nothing of it waits for that. A late trade makes it open
again. Nothing runs while nobody has subscribed.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from k2.config import EXCHANGES
from k2.core.candle import INTERVALS
from k2.core.codec import trades_stream
from k2.log import LogError, Position
from k2.store import StoreError
from k2.web.problems import Problem
from k2.web.stream import windows
from k2.web.stream.chunk import Chunk
from k2.web.stream.subscription import Subscription
from k2.web.stream.windows import HOUR, MINUTE, Candle, Kept, Market, Span, Window

if TYPE_CHECKING:
    from k2.web.stream.connection import Connection
    from k2.web.stream.follower import News
    from k2.web.stream.hub import Hub

Rows: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[list[tuple[Any, ...]]]]

_log = logging.getLogger("k2.web")

_EVERY_S = 0.4  # between two updates of a candle, at least
_SHARE = 5  # asking may take one of so many parts of the time ...
_LONGEST_S = 2.0  # ... but so long a pause is enough
_LOOK_S = 0.5  # between two looks at what has become final
_GRACE_S = 1.0  # after a window's end, for trades that are on their way
_RETRY_S = 1.0
_MOST_TOLD = 50_000  # windows that are remembered

_EXCHANGE = {trades_stream(exchange): exchange for exchange in EXCHANGES}


class _Time(msgspec.Struct):
    exchange_ts: int


_time = msgspec.json.Decoder(_Time).decode


class CandleChannel:
    """Fed by the hub with what is new in the log. `rows` asks the store; None: there is no store to ask."""

    def __init__(self, hub: "Hub", rows: Rows | None) -> None:
        self._hub = hub
        self._rows = rows
        self._subscribers: dict[Subscription, Connection] = {}
        self._task: asyncio.Task[None] | None = None
        self._awake = asyncio.Event()
        self._begin()

    def _begin(self) -> None:
        self._kept = Kept()
        self._new: list[Subscription] = []
        self._asked: set[Span] = set()
        self._changed: set[Window] = set()
        self._waiting: dict[Market, dict[Span, int]] = {}  # spans to be asked again, once committed up to an offset
        self._newest: dict[Market, int] = {}
        self._told: dict[Window, Candle] = {}
        self._open: set[Window] = set()
        self._failed = False

    # -- subscribers ---------------------------------------------------------------------------------------------------

    def add(self, connection: "Connection", subscription: Subscription) -> None:
        """From now on the subscription gets candles, those of the current windows first. Raises Problem."""
        self._subscribers[subscription] = connection
        self._new.append(subscription)
        self._awake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def require_store(self) -> None:
        """Raises Problem if there are no candles to be had."""
        if self._rows is None:
            raise Problem(
                503, "No candles", "this stream has no store to take them from", "subscribe to trades", "no-candles"
            )

    def remove(self, subscription: Subscription) -> None:
        """Idempotent."""
        if self._subscribers.pop(subscription, None) is None:
            return
        if subscription in self._new:
            self._new.remove(subscription)
        if not self._subscribers and self._task is not None:
            self._task.cancel()
            self._task = None
            self._begin()
        for market in self._kept.markets():
            if not self._intervals(market):
                self._forget(market)

    def _forget(self, market: Market) -> None:
        self._kept.forget(market)
        self._waiting.pop(market, None)
        self._newest.pop(market, None)
        self._asked = {span for span in self._asked if span.market != market}
        for windows_ in (self._changed, self._open):
            windows_.difference_update([window for window in windows_ if window.market == market])
        for window in [window for window in self._told if window.market == market]:
            del self._told[window]

    def _intervals(self, market: Market) -> set[str]:
        """What is wanted of a market."""
        return {i for s in self._subscribers if s.selection.has(*market) for i in s.intervals}

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    # -- what the log says ---------------------------------------------------------------------------------------------

    def touch(self, news: "News") -> None:
        """Note the minutes of new trades."""
        if not self._subscribers:
            return
        for item in news:
            exchange = _EXCHANGE.get(item.stream)
            if exchange is None or not isinstance(item, Chunk):
                continue
            minutes: dict[tuple[str, int], None] = {}
            wanted: dict[str, bool] = {}
            for symbol, value in zip(item.keys, item.values, strict=True):
                if symbol not in wanted:
                    wanted[symbol] = any(s.selection.has(exchange, symbol) for s in self._subscribers)
                if wanted[symbol]:
                    minutes[symbol, _time(value).exchange_ts // (MINUTE * 10**9) * MINUTE] = None
            for symbol, minute in minutes:
                self._touched(Market(exchange, symbol), minute, item.end)
            if minutes:
                self._awake.set()

    def _touched(self, market: Market, minute: int, end: int) -> None:
        hour = Span(market, minute // HOUR * HOUR, HOUR)
        self._ask(Span(market, minute, MINUTE) if self._kept.holds(hour) else hour, end)
        for interval in self._intervals(market):
            self._changed.add(_around(market, interval, minute))
        if minute < self._newest.get(market, 0):  # a late trade may complete the candle that begins after it
            for span in self._kept.spans_from(market, minute):
                self._ask(span, end)
        else:
            self._newest[market] = minute

    def _ask(self, span: Span, end: int) -> None:
        """Ask now, and again when the loader has committed up to `end`."""
        self._asked.add(span)
        waiting = self._waiting.setdefault(span.market, {})
        waiting[span] = max(waiting.get(span, 0), end)

    # -- what the store says -------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            begun = self._hub.clock()
            try:
                await self._step()
                self._failed = False
            except (StoreError, LogError) as error:
                self._tell_failure(error)
                await asyncio.sleep(_RETRY_S)
            pause = (self._hub.clock() - begun) * (_SHARE - 1)
            await asyncio.sleep(min(max(_EVERY_S, pause), _LONGEST_S))
            busy = self._open or self._waiting or self._asked or self._new
            try:
                async with asyncio.timeout(_LOOK_S if busy else None):
                    await self._awake.wait()
            except TimeoutError:
                pass
            self._awake.clear()

    def _tell_failure(self, error: Exception) -> None:
        if self._failed:
            return
        self._failed = True
        _log.warning("candles of live streams stand still: %s", error)
        problem = Problem(
            503, "Candles stand still", str(error), "they go on by themselves once the store answers", "no-candles"
        )
        for connection in set(self._subscribers.values()):
            connection.refuse(problem)

    async def _step(self) -> None:
        """Ask for what was touched, and tell what has changed."""
        committed = await self._hub.run(partial(self._hub.log.committed, "loader"))
        now = time.time()
        self._settle(committed)
        new, self._new = self._new, []
        changed, self._changed = self._changed, set()
        asked: set[Span] = set()
        try:
            firsts = {subscription: await self._first_windows(subscription, int(now)) for subscription in new}
            asked, self._asked = self._asked, set()
            await self._answer(asked, changed.union(*firsts.values()))
        except StoreError:
            self._asked |= asked
            self._changed |= changed
            self._new += [subscription for subscription in new if subscription in self._subscribers]
            raise
        over = {window for window in self._open if now >= window.end + _GRACE_S}
        self._tell(changed | over | self._told_within(asked), now)
        for subscription, first in firsts.items():
            self._tell_first(subscription, first, now)
        self._send()

    async def _first_windows(self, subscription: Subscription, now: int) -> list[Window]:
        """The current windows of a new subscription; what is not kept of them is asked for."""
        selection = subscription.selection
        markets = {Market(*pair) for pair in selection.pairs}
        if selection.whole:
            assert self._rows is not None
            sql = windows.MARKETS.format(start=now // HOUR * HOUR - HOUR)
            rows = await self._rows(sql, {"exchanges": sorted(selection.whole)})
            markets |= {Market(str(exchange), str(symbol)) for exchange, symbol in rows}
        found = [_around(market, interval, now) for market in sorted(markets) for interval in subscription.intervals]
        for window in found:
            if (span := self._kept.needed(window)) is not None:
                self._ask(span, self._hub.recents[trades_stream(window.market.exchange)].end)
        return found

    def _settle(self, committed: Mapping[str, Position]) -> None:
        """Ask again for what the store now holds for certain."""
        for market, waiting in list(self._waiting.items()):
            position = committed.get(trades_stream(market.exchange))
            for span, end in list(waiting.items()):
                if position is not None and position.offset >= end:
                    self._asked.add(span)
                    del waiting[span]
            if not waiting:
                del self._waiting[market]

    async def _answer(self, asked: set[Span], wanted: Iterable[Window]) -> None:
        assert self._rows is not None
        needed = {span for window in wanted if (span := self._kept.needed(window)) is not None} - asked
        for span in needed:
            self._ask(span, self._hub.recents[trades_stream(span.market.exchange)].end)
        self._asked -= needed
        asked |= needed
        for question in windows.questions(asked):
            self._kept.put(question, await self._rows(question.sql, question.params))

    def _told_within(self, spans: Iterable[Span]) -> set[Window]:
        """Windows told before of which a part was asked for again."""
        found: set[Window] = set()
        large: dict[Market, list[Span]] = {}
        for span in spans:
            if span.seconds == MINUTE:
                found.update(_around(span.market, interval, span.start) for interval in INTERVALS)
            else:
                large.setdefault(span.market, []).append(span)
        found &= self._told.keys()
        if large:
            for window in self._told:
                if any(_overlap(window, span) for span in large.get(window.market, ())):
                    found.add(window)
        return found

    # -- what subscribers are told -------------------------------------------------------------------------------------

    def _candle(self, window: Window, now: float) -> Candle | None:
        found = self._kept.part(window)
        if found is None:
            return None
        waits = any(_overlap(window, span) for span in self._waiting.get(window.market, ()))
        return windows.candle(window, found, final=now >= window.end + _GRACE_S and not waits)

    def _tell(self, changed: Iterable[Window], now: float) -> None:
        for window in sorted(changed):
            candle = self._candle(window, now)
            if candle is None:
                continue
            (self._open.discard if candle.final else self._open.add)(window)
            if self._told.get(window) != candle:
                self._told.pop(window, None)
                self._told[window] = candle
                record = msgspec.json.encode(candle)
                for subscription in self._subscribers:
                    if window.interval in subscription.intervals and subscription.selection.has(*window.market):
                        subscription.candles[window] = record
        while len(self._told) > _MOST_TOLD:
            del self._told[next(iter(self._told))]

    def _tell_first(self, subscription: Subscription, first: Iterable[Window], now: float) -> None:
        for window in first:
            candle = self._candle(window, now)
            if candle is not None and subscription in self._subscribers:
                self._told[window] = candle
                self._open.add(window)
                subscription.candles[window] = msgspec.json.encode(candle)

    def _send(self) -> None:
        for subscription, connection in list(self._subscribers.items()):
            if subscription.candles:
                connection.pump()


def _around(market: Market, interval: str, second: int) -> Window:
    seconds = INTERVALS[interval]
    return Window(market, interval, second // seconds * seconds)


def _overlap(window: Window, span: Span) -> bool:
    return window.market == span.market and window.start < span.start + span.seconds and span.start < window.end
