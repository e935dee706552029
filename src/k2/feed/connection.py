"""One connection to a venue, alive: its socket, what it has subscribed, and the watchdog that judges its silence."""

import asyncio
import logging
from collections.abc import Iterable

from picows import WSCloseCode

from k2 import metrics
from k2.config import FeedConfig
from k2.core.exchange import Exchange
from k2.core.types import Confirmed, Heartbeat, Refused
from k2.feed.socket import Socket
from k2.feed.subscriptions import Subscriptions
from k2.feed.watchdog import Watchdog

_log = logging.getLogger("k2.feed")


class Connection:
    """A dialled socket. Its owner calls `tick` some times a second, and `on_signal`, `on_trade` with what was decoded.

    `settled` is done when the venue has answered for every symbol. `outcome` says, as a slug, why this side ended it.
    """

    def __init__(
        self, exchange: Exchange, config: FeedConfig, socket: Socket, natives: Iterable[str], dialled_at: float
    ) -> None:
        self.exchange = exchange
        self.socket = socket
        self.dialled_at = dialled_at
        self.subscriptions = Subscriptions(exchange)
        self.subscriptions.want(natives)
        self.watchdog = Watchdog(exchange.limits, config.silence, dialled_at)
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.outcome = "closed"
        self._seen = socket.last_recv

    @property
    def name(self) -> str:
        return self.socket.name

    @property
    def is_open(self) -> bool:
        return not self.socket.closed.done()

    def want(self, natives: Iterable[str]) -> None:
        """Subscribe and unsubscribe on the open connection until it carries exactly these symbols."""
        self.subscriptions.want(natives)
        self.watchdog.forget(self.subscriptions.wanted)

    def tick(self, now: float) -> None:
        """Send what is due, end the connection if it is silent or leaves questions unanswered."""
        if not self.is_open:
            return
        if self.socket.last_recv != self._seen:
            self._seen = self.socket.last_recv
            metrics.LAST_FRAME.labels(self.exchange.name).set(self._seen / 1e9)
            self.watchdog.on_frame(now)
        if self.subscriptions.overdue(now):
            self.end("unanswered", "subscriptions were not answered")
        elif self.subscriptions.wanted and not self.socket.paused and (silent := self.watchdog.silent(now)) is not None:
            self.end("silent", silent)
        else:
            for message in self.subscriptions.due(now):
                self.socket.send(message)
            self._settle()

    def end(self, outcome: str, reason: str) -> None:
        self.outcome = outcome
        self.socket.close(reason, WSCloseCode.GOING_AWAY)

    def on_trade(self, now: float) -> None:
        self.watchdog.on_trade(now)

    def on_signal(self, signal: Heartbeat | Confirmed | Refused, now: float) -> None:
        """An answer or a heartbeat that came on this connection."""
        if isinstance(signal, Heartbeat):
            self.watchdog.on_heartbeat(signal.channel, signal.native_symbol, now)
            return
        if isinstance(signal, Confirmed):
            self.subscriptions.on_confirmed(signal)
        else:
            for native, reason in self.subscriptions.on_refused(signal, now):
                metrics.REFUSALS.labels(self.exchange.name).inc()
                _log.error(
                    "%s refuses %s: %s; the other symbols go on, it is asked for again from time to time",
                    self.exchange.name,
                    native,
                    reason,
                )
        self._settle()

    def _settle(self) -> None:
        if not self.settled.done() and self.subscriptions.settled:
            self.settled.set_result(None)
            _log.info("%s: %d symbols subscribed", self.name, self.subscriptions.active)
