"""Plays captures through the venues' WebSockets, frames verbatim, at the recorded pace or any other.

A venue's capture begins once one client has subscribed every symbol in it. It does not wait for clients afterwards, as
no exchange does; what a client misses it finds on REST, which knows each trade once its frame was played.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence

from k2.exchanges import venue
from k2.sim.capture import Capture, Recorded, made, trades_of
from k2.sim.framing import frame
from k2.sim.market import Market

log = logging.getLogger("k2.sim")
CLIENT_BEHIND = 4 << 20  # bytes unread by a client at which `max` speed waits for it
BATCH = 200


class Player:
    """The captures of one venue. `speed` multiplies the recorded pace; 0 plays as fast as clients read."""

    def __init__(
        self,
        market: Market,
        captures: Sequence[Capture],
        speed: float,
        all_channels: bool,
        behind: Callable[[Market], int],
        paused: Callable[[], bool],
    ) -> None:
        self.market, self.captures = market, captures
        self.speed, self.all_channels = speed, all_channels
        self.played = 0
        self.drained = False
        self._behind, self._paused = behind, paused
        self._venue = venue(market.venue.name)
        self._symbols: dict[str, str] = {}
        for capture in captures:
            self._symbols.update(capture.symbols())
        for symbol in self._symbols.values():
            market.add(symbol)

    def awaited(self) -> bool:
        """Whether no client has subscribed all symbols yet."""
        return not any(client.trades >= self._symbols.keys() for client in self.market.clients)

    async def play(self) -> None:
        name = self.market.venue.name
        if not self._symbols:
            log.warning("the captures hold no trades: nothing is played", extra={"exchange": name})
        while self._symbols and self.awaited():
            await asyncio.sleep(0.005)
        log.info("playing", extra={"exchange": name, "files": [str(one.file) for one in self.captures]})
        for batch in self._batches() if self._symbols else ():
            while self._paused() or (not self.speed and self._behind(self.market) > CLIENT_BEHIND):
                await asyncio.sleep(0.005)
            self._send(batch)
            await asyncio.sleep(0)
            if self.speed and batch:
                await self._keep_pace(batch[-1].recv_ts)
        self.drained = True
        log.info("drained", extra={"exchange": name, "frames": self.played})

    def _batches(self) -> Iterator[list[Recorded]]:
        """Frames that go out together: received within a millisecond of playing time."""
        batch: list[Recorded] = []
        span = 1_000_000 * self.speed
        for capture in self.captures:
            self._zero: tuple[int, float] | None = None
            for one in capture.frames():
                if batch and (len(batch) >= BATCH or (self.speed and one.recv_ts - batch[0].recv_ts > span)):
                    yield batch
                    batch = []
                batch.append(one)
            yield batch
            batch = []

    async def _keep_pace(self, recv_ts: int) -> None:
        if self._zero is None:
            self._zero = (recv_ts, time.monotonic())
        first, began = self._zero
        ahead = (recv_ts - first) / 1e9 / self.speed - (time.monotonic() - began)
        if ahead > 0.001:
            await asyncio.sleep(ahead)

    def _send(self, batch: list[Recorded]) -> None:
        natives, frames = [], []
        for one in batch:
            if one.kind != "ws":
                continue
            channel, native = self.market.venue.channel(one.payload)
            if channel == "trade":
                self._remember(one)
            elif channel == "answer" or not self.all_channels:
                continue
            natives.append(native if native in self._symbols else next(iter(self._symbols), ""))
            frames.append(frame(one.payload))
        self.played += len(frames)
        self.market.send(natives, frames)

    def _remember(self, one: Recorded) -> None:
        for trade in trades_of(self._venue, one):
            instrument = self.market.by_native.get(self.market.venue.native(trade.symbol))
            if instrument is not None:
                self.market.record(instrument, made(trade))
