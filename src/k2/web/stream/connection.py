"""One client: its subscriptions, pumped from the log into its socket for as long as the socket takes it.

A full way (more unsent than the limit) is left alone: the cursors wait. What happens then is the subscriber's choice:
`disconnect` closes the connection, with its positions, once it has not caught up in time; `conflate` goes on with each
symbol's newest trade. Who takes nothing at all for long is cut off in any case.
"""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from k2.log import LogError
from k2.metrics import STREAM_SLOW
from k2.web.problems import Problem
from k2.web.stream import Sink, history
from k2.web.stream.encode import Framed
from k2.web.stream.framing import framed
from k2.web.stream.messages import Encoding, message, records
from k2.web.stream.step import Step
from k2.web.stream.subscription import Subscription

if TYPE_CHECKING:
    from k2.web.stream.hub import Hub

_MOMENTARY_S = 0.05  # a way that is free again sooner was not too slow
_GONE, _TOO_SLOW, _BROKEN = 1001, 1008, 1011  # WebSocket close codes: policy violation, internal error


class Connection:
    """Made by a transport and given to `Hub.enter`. Everything happens in the event loop."""

    def __init__(self, hub: "Hub", sink: Sink, encoding: Encoding) -> None:
        self.encoding: Encoding = encoding
        self.subscriptions: dict[str | int, Subscription] = {}
        self.ended = False
        self._hub = hub
        self._sink = sink
        self._limits = hub.limits
        self._at_end: Subscription | None = None  # the only one, if its cursors are at the log's end
        self._reading = False  # one piece of history is on its way
        self._full_since: float | None = None
        self._least_unsent = 0
        self._taken_at = 0.0  # when a full way last moved
        self._told_at = hub.clock()

    def add(self, subscription: Subscription) -> None:
        """Tell the client that its subscription begins, and begin."""
        self._at_end = None
        self.subscriptions[subscription.id] = subscription
        self._tell(subscription, "subscribed", subscription.accepted())

    def remove(self, ident: str | int) -> Subscription | None:
        """End a subscription; it keeps its positions."""
        self._at_end = None
        return self.subscriptions.pop(ident, None)

    def tell(self, kind: str, members: dict[str, object]) -> None:
        """Send a message without records."""
        if not self.ended:
            self._sink.write(framed(kind, message(kind, members, self.encoding), self.encoding))
            self._told_at = self._hub.clock()

    def refuse(self, problem: Problem, ident: str | int = "") -> None:
        """Send a problem document; its `type` stands in `problem`, for a message has a type of its own."""
        document = problem.document()
        document["problem"] = document.pop("type")
        self.tell("error", {"id": ident, **document} if ident != "" else document)

    def _tell(self, subscription: Subscription, kind: str, members: dict[str, object]) -> None:
        if self.encoding == "sse":
            self._sink.write(_event_id(subscription))
        self.tell(kind, members)
        subscription.sent_at = self._told_at

    def full(self) -> bool:
        """Whether more is on its way than may be."""
        return self._sink.unsent() > self._limits.buffer_bytes

    # -- at the end of the log -----------------------------------------------------------------------------------------

    def go(self, step: Step) -> None:
        """Take what is new in the log."""
        at_end = self._at_end
        if at_end is None or not step.whole:
            self.pump()
            return
        stride = step.stride(at_end.signature)
        if len(stride.data) > self._limits.chunk_bytes:  # piece by piece, until the way is full
            self.pump()
            return
        if stride.data:
            if self.full():
                self._stand_still()
                return
            self._sink.write(stride.data)
            at_end.sent_at = self._hub.now
            sent = self._hub.sent
            for kind, number in stride.numbers:
                sent[kind] += number
        at_end.cursors.update(stride.cursors)

    def _rest(self) -> None:
        """Nothing is left to send: note if the only subscription is where the log's next step begins."""
        for subscription in self.subscriptions.values():
            subscription.caught_up()
        if len(self.subscriptions) == 1 and self.encoding != "sse":
            (only,) = self.subscriptions.values()
            recents = self._hub.recents
            if only.joined and all(recents[stream].end == offset for stream, offset in only.cursors.items()):
                self._at_end = only

    # -- the pump ------------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Send what the cursors have, until they are at the end or the way is full."""
        self._at_end = None
        while not self.ended and self.subscriptions and self._full_since is None:
            if self.full():
                self._stand_still()
                return
            pieces: list[bytes] = []
            moved = False
            for subscription in self.subscriptions.values():
                if not subscription.conflating:
                    moved |= self._advance(subscription, pieces)
            if pieces:
                self._sink.write(b"".join(pieces))
            if not moved:
                if not self._reading:
                    self._rest()
                return

    def _advance(self, subscription: Subscription, pieces: list[bytes]) -> bool:
        """Move each cursor over one chunk. False: none could."""
        moved = False
        behind = ""
        cursors, recents, encoded = subscription.cursors, self._hub.recents, self._hub.encoded
        for stream, want in subscription.wants.items():
            offset, recent = cursors[stream], recents[stream]
            if offset < recent.start:
                if not behind or subscription.read_ts[stream] < subscription.read_ts[behind]:
                    behind = stream
                continue
            chunk = recent.after(offset)
            if chunk is None:
                continue
            if chunk.offset < offset:
                chunk = chunk.part(offset, chunk.end)
            live_from = subscription.live_from[stream]
            if chunk.offset < live_from < chunk.end:
                chunk = chunk.part(chunk.offset, live_from)
            cursors[stream] = chunk.end
            moved = True
            self._put(subscription, want.kind, encoded.get(chunk, want, chunk.offset >= live_from), pieces)
        if subscription.candles:
            values = list(subscription.candles.values())
            subscription.candles.clear()
            payload = records("candles", {"id": subscription.id}, values, self.encoding)
            self._put(subscription, "candles", Framed(framed("candles", payload, self.encoding), len(values)), pieces)
        if behind and not self._reading:
            self._read(subscription, behind)
        return moved

    def _put(self, subscription: Subscription, kind: str, frame: Framed, pieces: list[bytes]) -> None:
        if frame.data:
            if self.encoding == "sse":
                pieces.append(_event_id(subscription))
            pieces.append(frame.data)
            subscription.sent_at = self._hub.now
            self._hub.sent[kind] += frame.number

    # -- history -------------------------------------------------------------------------------------------------------

    def _read(self, subscription: Subscription, stream: str) -> None:
        """Read on in a thread, for a cursor that is further back than what is kept for all."""
        self._reading = True
        job = partial(
            history.read,
            self._hub.log,
            subscription.wants[stream],
            stream,
            offset=subscription.cursors[stream],
            until=self._hub.recents[stream].start,
            live_from=subscription.live_from[stream],
            most_bytes=self._limits.chunk_bytes,
        )
        self._hub.run(job).add_done_callback(partial(self._have_read, subscription, stream))

    def _have_read(self, subscription: Subscription, stream: str, done: "asyncio.Future[history.Piece]") -> None:
        self._reading = False
        if not self._well(done):
            return
        if self.subscriptions.get(subscription.id) is subscription:
            piece = done.result()
            subscription.cursors[stream] = piece.end
            subscription.read_ts[stream] = piece.append_ts
            self._write(subscription, [(subscription.wants[stream].kind, frame) for frame in piece.frames])
        self.pump()

    def _well(self, done: "asyncio.Future[Any]") -> bool:
        """Whether what was read is there and of use; tells the client what went wrong."""
        if self.ended or done.cancelled():
            return False
        if isinstance(error := done.exception(), LogError):
            self.fail(str(error), "subscribe again with a later start; /v1/trades and /v1/replay have what is older")
            return False
        return True

    def _write(self, subscription: Subscription, frames: list[tuple[str, Framed]]) -> None:
        pieces: list[bytes] = []
        for kind, frame in frames:
            self._put(subscription, kind, frame, pieces)
        if pieces:
            self._sink.write(b"".join(pieces))

    # -- too slow ------------------------------------------------------------------------------------------------------

    def _stand_still(self) -> None:
        self._at_end = None
        if self._full_since is None:
            now = self._hub.clock()
            self._full_since = self._taken_at = now
            self._least_unsent = self._sink.unsent()
            for subscription in self.subscriptions.values():
                if subscription.joined and subscription.behind_since is None:
                    subscription.behind_since = now
            self._hub.watch(self)

    def look(self, now: float) -> bool:
        """Look after a full way. False: it is free again, or gone."""
        unsent = self._sink.unsent()
        if self.ended or self._full_since is None:
            return False
        if unsent <= self._limits.buffer_bytes // 2:
            slow = now - self._full_since > _MOMENTARY_S
            self._full_since = None
            for subscription in list(self.subscriptions.values()):
                if slow and subscription.conflates and subscription.joined:
                    self._conflate(subscription)
            self.pump()
            return self._full_since is not None
        if unsent < self._least_unsent:
            self._least_unsent, self._taken_at = unsent, now
        if now - self._taken_at > self._limits.stall_s or self.overdue(now):
            self._give_up()
            return False
        return True

    def overdue(self, now: float) -> bool:
        """Whether a subscriber that was live has taken too long to be so again."""
        return any(
            subscription.behind_since is not None
            and not subscription.conflates
            and now - subscription.behind_since > self._limits.behind_s
            for subscription in self.subscriptions.values()
        )

    def _give_up(self) -> None:
        STREAM_SLOW.labels("disconnect").inc()
        for subscription in self.subscriptions.values():
            self._tell(subscription, "slow", {"id": subscription.id, "positions": dict(subscription.cursors)})
        self.end(_TOO_SLOW, "too slow: resume from the positions in the last message")

    def _conflate(self, subscription: Subscription) -> None:
        """Go on at the end, with the newest trade of each symbol for all that was missed."""
        if self._reading:
            return
        recents, cursors = self._hub.recents, subscription.cursors
        ends = {
            stream: recents[stream].end
            for stream, want in subscription.wants.items()
            if want.kind == "trades" and cursors[stream] < recents[stream].end
        }
        if not ends:
            return
        STREAM_SLOW.labels("conflate").inc()
        self._reading = subscription.conflating = True
        wants = {stream: subscription.wants[stream] for stream in ends}
        job = partial(history.newest, self._hub.log, wants, dict(cursors), ends)
        self._hub.run(job).add_done_callback(partial(self._have_conflated, subscription, ends))

    def _have_conflated(
        self, subscription: Subscription, ends: dict[str, int], done: "asyncio.Future[list[Framed]]"
    ) -> None:
        self._reading = subscription.conflating = False
        if not self._well(done):
            return
        if self.subscriptions.get(subscription.id) is subscription:
            subscription.cursors.update(ends)
            self._write(subscription, [("trades", frame) for frame in done.result()])
        self.pump()

    # -- time and end --------------------------------------------------------------------------------------------------

    def beat(self, now: float, ts: int) -> None:
        """A heartbeat for each subscription that was sent nothing for long, with its positions."""
        if self._sink.gone():
            self.end(_GONE, "")
        if self._full_since is not None or self.ended:
            return
        for subscription in self.subscriptions.values():
            if now - subscription.sent_at >= self._limits.heartbeat_s:
                positions = dict(subscription.cursors)
                self._tell(subscription, "heartbeat", {"id": subscription.id, "ts": ts, "positions": positions})
        if not self.subscriptions and now - self._told_at >= self._limits.heartbeat_s:
            self.tell("heartbeat", {"ts": ts})
        if self.overdue(now):
            self._give_up()

    def fail(self, detail: str, remedy: str) -> None:
        """The stream cannot go on: say why, and close."""
        problem = Problem(503, "The stream broke off", detail, remedy, "stream-broken")
        self.refuse(problem)
        self.end(_BROKEN, "see the last message")

    def end(self, code: int, reason: str) -> None:
        """Close. Idempotent."""
        if not self.ended:
            self.ended = True
            self._sink.end(code, reason)
            self._hub.leave(self)


def _event_id(subscription: Subscription) -> bytes:
    """A server-sent event's id: the positions after it, from which `Last-Event-ID` resumes."""
    return b"id: %b\n" % msgspec.json.encode(subscription.cursors)
