"""Subscribers of the live stream in a process of their own: `python -m k2.ops.bench.serve_subscribers URL NUMBER`.

All subscribe to every trade from now on, and it says `{"subscribed": NUMBER}`. It hears `{"since": ns, "before": ns,
"stop": n}`, waits until each has `n` trades (or nothing has come for 5 s), and says what each got. Every message of
every subscriber is looked at: its bytes are compared with what the others got, so that equal ones are decoded once.
"""

import asyncio
import json
import sys
import time
from array import array
from collections import Counter
from typing import Any, NamedTuple

import msgspec
import picows
import uvloop

from k2.ops.bench.samples import spread

_QUIET_S = 5.0
_ASK = b'{"op":"subscribe","channels":["trades"],"symbols":["*"],"start":"now","id":1}'


class _Trade(msgspec.Struct):
    exchange: str
    symbol: str
    trade_id: int
    recv_ts: int


class _Message(msgspec.Struct):
    type: str
    stream: str = ""
    offset: int = 0
    next: int = 0
    start: dict[str, int] = {}
    trades: list[_Trade] = []


_decode = msgspec.json.Decoder(_Message).decode


class Seen(NamedTuple):
    """A message, decoded once: `ids` are (exchange:symbol, id) of its trades, `received` their receipts (ns)."""

    message: _Message
    ids: list[tuple[str, int]]
    received: list[int]


class Subscriber(picows.WSListener):
    """One client. `frames` are numbers of messages in `Crowd.seen`, `times` when each was here (ns)."""

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd
        self.frames = array("I")
        self.times = array("q")
        self.trades = 0
        self.at: dict[str, int] = {}
        self.broken = 0  # messages that did not follow those before
        self.closed = False

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.transport = transport
        transport.send(picows.WSMsgType.TEXT, _ASK)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        now = time.time_ns()
        if frame.msg_type != picows.WSMsgType.TEXT:
            return
        crowd = self._crowd
        payload = frame.get_payload_as_bytes()
        number = crowd.numbers.get(payload)
        if number is None:
            number = crowd.read(payload)
        message, ids, _ = crowd.seen[number]
        if message.type == "trades":
            self.broken += int(self.at.get(message.stream) != message.offset)
            self.at[message.stream] = message.next
            self.frames.append(number)
            self.times.append(now)
            self.trades += len(ids)
        elif message.type == "subscribed":
            self.at = dict(message.start)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.closed = True


class Crowd:
    """All subscribers, and the messages they got."""

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}
        self.seen: list[Seen] = []
        self.subscribers: list[Subscriber] = []

    def read(self, payload: bytes) -> int:
        message = _decode(payload)
        ids = [(f"{trade.exchange}:{trade.symbol}", trade.trade_id) for trade in message.trades]
        self.seen.append(Seen(message, ids, [trade.recv_ts for trade in message.trades]))
        self.numbers[payload] = len(self.seen) - 1
        return len(self.seen) - 1

    async def come(self, url: str, number: int) -> None:
        for _ in range(number):
            _, listener = await picows.ws_connect(lambda: Subscriber(self), url)
            self.subscribers.append(listener)  # type: ignore[arg-type]  # it is what the factory made
        while not all(subscriber.at for subscriber in self.subscribers):
            await asyncio.sleep(0.01)

    async def until(self, trades: int) -> None:
        """Until each has so many trades, or nothing comes any more."""
        had, since = -1, time.monotonic()
        while min(subscriber.trades for subscriber in self.subscribers) < trades:
            got = sum(subscriber.trades for subscriber in self.subscribers)
            if got != had:
                had, since = got, time.monotonic()
            if time.monotonic() - since > _QUIET_S:
                return
            await asyncio.sleep(0.02)

    def report(self, since: int, before: int) -> dict[str, Any]:
        """What they got: latencies of trades that were received in the window, and every subscriber's ids by symbol,
        as number, greatest and sum; equal ones once, with how many had them."""
        samples = array("q")
        for subscriber in self.subscribers:
            for number, at in zip(subscriber.frames, subscriber.times, strict=True):
                samples.extend(at - received for received in self.seen[number].received if since <= received < before)
        tallies = Counter(json.dumps(self._tally(subscriber)) for subscriber in self.subscribers)
        return {
            "latency_ms": spread(samples, 1e-6),
            "tallies": [[json.loads(tally), number] for tally, number in tallies.items()],
            "broken": sum(subscriber.broken for subscriber in self.subscribers),
            "closed": sum(subscriber.closed for subscriber in self.subscribers),
            "messages": sum(len(subscriber.frames) for subscriber in self.subscribers),
            "trades": sum(subscriber.trades for subscriber in self.subscribers),
        }

    def _tally(self, subscriber: Subscriber) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number in subscriber.frames:
            for market, trade_id in self.seen[number].ids:
                tally = found.get(market)
                if tally is None:
                    found[market] = [1, trade_id, trade_id]
                else:
                    tally[0] += 1
                    tally[1] = max(tally[1], trade_id)
                    tally[2] += trade_id
        return {market: found[market] for market in sorted(found)}


def say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def main(url: str, number: int) -> None:
    crowd = Crowd()
    await crowd.come(url, number)
    say({"subscribed": number})
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    command = json.loads(await reader.readline())
    await crowd.until(command["stop"])
    say(crowd.report(command["since"], command["before"]))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
