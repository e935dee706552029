"""What one client says, done."""

import time

import msgspec

from k2.web.problems import Problem
from k2.web.stream.connection import Connection
from k2.web.stream.hub import Hub
from k2.web.stream.messages import Ping, Subscribe, Unsubscribe, heard
from k2.web.stream.subscription import Subscription, wants

REFUSED = 1008  # WebSocket close code: policy violation


class Session:
    """The operations of one connection, one after the other."""

    def __init__(self, hub: Hub, connection: Connection) -> None:
        self._hub = hub
        self._connection = connection
        self._numbered = 0

    async def hear(self, data: bytes | str, binary: bool) -> None:
        """One message of the client. What is wrong with it is told to the client."""
        ident: str | int = ""
        try:
            said = heard(data, binary)
            ident = said.id
            if isinstance(said, Subscribe):
                await self.subscribe(said)
            elif isinstance(said, Unsubscribe):
                self._unsubscribe(said.id)
            elif isinstance(said, Ping):
                self._connection.tell("pong", {"id": said.id, "ts": time.time_ns()})
        except msgspec.MsgspecError as error:
            remedy = 'write {"op": "subscribe", "channels": ["trades"], "symbols": ["*"]}; docs/STREAM.md has them all'
            self._connection.refuse(Problem(400, "Message not understood", str(error), remedy, "stream-message"), ident)
        except Problem as problem:
            self._connection.refuse(problem, ident)

    async def begin(self, asked: Subscribe) -> None:
        """The subscription that came with the URL. If it is refused, the client is told, and the connection ends."""
        try:
            await self.subscribe(asked)
        except Problem as problem:
            self._connection.refuse(problem, asked.id)
            self._connection.end(REFUSED, "see the last message")

    async def subscribe(self, asked: Subscribe) -> None:
        """Raises Problem."""
        ident = asked.id
        if ident == "":
            self._numbered += 1
            ident = self._numbered
        connection, hub = self._connection, self._hub
        self._check(ident)
        if "candles" in asked.channels:
            hub.candles.require_store()
        selection, wanted = wants(asked, ident, connection.encoding)
        now, begin = await hub.begin(asked.start, list(wanted))
        if connection.ended:
            return
        subscription = Subscription(ident, asked, selection, wanted, begin, now, hub.signature(wanted))
        connection.add(subscription)
        hub.follow(now)
        if "candles" in asked.channels:
            hub.candles.add(connection, subscription)
        connection.pump()

    def _check(self, ident: str | int) -> None:
        open_ = self._connection.subscriptions
        if ident in open_:
            raise Problem(
                409,
                "Already subscribed",
                f"the id {ident!r} is in use here",
                "choose another id",
                "stream-subscription",
            )
        if len(open_) >= self._hub.limits.subscriptions:
            detail = f"this connection has {len(open_)} subscriptions"
            raise Problem(409, "Too many subscriptions", detail, "name more symbols in each", "stream-subscription")

    def _unsubscribe(self, ident: str | int) -> None:
        subscription = self._connection.remove(ident)
        if subscription is None:
            raise Problem(404, "Not subscribed", f"there is no subscription {ident!r} here", "", "stream-subscription")
        self._hub.candles.remove(subscription)
        self._connection.tell("unsubscribed", {"id": ident, "positions": dict(subscription.cursors)})
