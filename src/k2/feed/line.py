"""The line to a venue: one subscribed connection at all times.

It is dialled again with back-off when it ends, and replaced before the venue's age limit ends it: the new connection is
dialled and subscribed before the old one closes.
"""

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from k2 import metrics
from k2.config import FeedConfig
from k2.core.exchange import Exchange
from k2.core.pacing import Backoff
from k2.feed.connection import Connection
from k2.feed.recorder import Recorder
from k2.feed.socket import DialError, dial

DIAL_WITHIN = 10.0
UNHEARD_CAP = 2.0  # s between tries that reach nobody: they annoy nobody, and the network may be back any moment
AGE_MARGIN = 0.95  # of the venue's connection age: when to reconnect by plan
LIVED = 5.0  # s that a subscribed connection must have lived for the back-off to begin anew
OUTCOMES = ("planned", "closed", "silent", "unanswered", "tradeless", "dial-failed")
SAY_EVERY = 30.0  # s between warnings of one kind

_log = logging.getLogger("k2.feed")


class Line:
    """`connections` are the open ones by name: one, or two while a successor takes over.

    `on_settled` is called when a connection has had its subscriptions answered.
    """

    def __init__(
        self,
        exchange: Exchange,
        config: FeedConfig,
        url: str,
        context: ssl.SSLContext,
        recorder: Recorder,
        on_settled: Callable[[], None],
    ) -> None:
        self.exchange = exchange
        self.config = config
        self.url = url
        self.context = context
        self.recorder = recorder
        self.on_settled = on_settled
        self.connections: dict[str, Connection] = {}
        self.natives: tuple[str, ...] = ()
        self._backoff = Backoff(config.backoff_first, config.backoff_cap)
        self._unheard = Backoff(config.backoff_first, min(UNHEARD_CAP, config.backoff_cap))
        self._now = asyncio.get_running_loop().time
        self._dials = 0
        self._said = -SAY_EVERY
        self._unsaid = 0
        self._changed = asyncio.Event()
        age = exchange.limits.connection_age
        self._age = config.reconnect_after or (age * AGE_MARGIN if age else 0.0)
        for outcome in OUTCOMES:
            metrics.RECONNECTS.labels(exchange.name, outcome)
        self._dial_within = min(DIAL_WITHIN, config.silence or DIAL_WITHIN)

    def want(self, natives: Iterable[str]) -> None:
        """The symbols to carry, by the venue's names; takes effect on the open connections."""
        self.natives = tuple(natives)
        for connection in self.connections.values():
            connection.want(self.natives)
        self._changed.set()

    def tick(self) -> None:
        """To be called several times a second."""
        now = self._now()
        for connection in self.connections.values():
            connection.tick(now)
        ready = sum(1 for c in self.connections.values() if c.is_open and c.settled.done() and c.subscriptions.active)
        metrics.CONNECTED.labels(self.exchange.name).set(ready)

    async def run(self) -> None:
        """Keep the line up until cancelled; then close what is open."""
        try:
            while not self.natives:
                await self._change()
            current = await self._open()
            while True:
                outcome = await self._until_due(current)
                metrics.RECONNECTS.labels(self.exchange.name, outcome).inc()
                if current.is_open:
                    current = await self._replace(current)
                else:
                    current = await self._open()
        finally:
            for connection in self.connections.values():
                connection.end("stopped", "the handler stops")

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _until_due(self, current: Connection) -> str:
        """Wait until the connection has ended, or should be replaced; why, as a slug."""
        due_at = current.dialled_at + self._age if self._age else float("inf")
        while current.is_open:
            now = self._now()
            if now >= due_at:
                return "planned"
            if self.natives and (tradeless := current.watchdog.tradeless(now)) is not None:
                _log.warning("%s: %s: dialling a new connection", current.name, tradeless)
                return "tradeless"
            await asyncio.wait([current.socket.closed], timeout=max(0.01, min(1.0, due_at - now)))
        self._bury(current)
        return current.outcome

    def _bury(self, connection: Connection) -> None:
        self.connections.pop(connection.name, None)
        lived = self._now() - connection.dialled_at
        if connection.settled.done() and lived >= LIVED:
            self._backoff.reset()
        self._warn(f"{connection.name} ended after {lived:.0f} s: {connection.socket.closed.result()}")

    async def _replace(self, current: Connection) -> Connection:
        """Dial and subscribe a successor, then close `current`: the two overlap, duplicates go by their ids."""
        while True:
            successor = await self._open(at_once=True)
            either: list[asyncio.Future[Any]] = [successor.settled, successor.socket.closed]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if successor.is_open:
                break
            self._bury(successor)
            if not current.is_open:
                break
        if not successor.is_open:
            self._bury(current)
            return await self._open()
        successor.watchdog.trades_rope = current.watchdog.next_rope()
        current.end("replaced", f"replaced by {successor.name}")
        self.connections.pop(current.name, None)
        return successor

    async def _open(self, at_once: bool = False) -> Connection:
        """Dial until a connection stands, with back-off from the second dial on."""
        pace = self._backoff
        while True:
            if self._dials and not at_once:
                await asyncio.sleep(pace.next(random.random()))
            at_once = False
            self._dials += 1
            began = self._now()
            try:
                socket = await dial(self.url, self.context, f"c{self._dials}", self.recorder, self._dial_within)
            except DialError as error:
                metrics.RECONNECTS.labels(self.exchange.name, "dial-failed").inc()
                self._warn(f"cannot reach {self.exchange.name}: {error}")
                pace = self._backoff if error.heard else self._unheard
                continue
            self._unheard.reset()
            connection = Connection(self.exchange, self.config, socket, self.natives, began)
            self.connections[connection.name] = connection
            connection.settled.add_done_callback(lambda settled: settled.cancelled() or self.on_settled())
            connection.tick(self._now())
            return connection

    def _warn(self, message: str) -> None:
        now = self._now()
        if now - self._said < SAY_EVERY:
            self._unsaid += 1
            _log.info(message)
            return
        more = f" ({self._unsaid} more such events since the last warning)" if self._unsaid else ""
        _log.warning(
            "%s; dialling again, at most %g s between tries, what is missed is healed%s",
            message,
            self.config.backoff_cap,
            more,
        )
        self._said, self._unsaid = now, 0
