"""A subscriber of the live stream, in a process of its own: `python -m k2.ops.bench.latency_subscriber URL`.

It subscribes to every trade from now on and says `{"subscribed": 1}`. It notes each message in the trace when it is in
its hands. When it hears a line, `{"stop": n}`, it waits until it has `n` trades (or nothing has come for 5 s) and says
`{"markets": {"exchange/symbol/epoch": [[first id, last id], ...]}, "twice", "broken", "closed", "messages"}`: the ids
that it was sent, how many again, and how many messages did not follow the one before.
"""

import asyncio
import json
import sys
import time
from typing import Any

import msgspec
import picows
import uvloop

from k2 import trace
from k2.config import load
from k2.core.islands import Islands

_QUIET_S = 5.0
_ASK = b'{"op":"subscribe","channels":["trades"],"symbols":["*"],"start":"now","id":1}'


class _Trade(msgspec.Struct, gc=False):
    exchange: str
    symbol: str
    trade_id: int
    epoch: int = 0


class _Message(msgspec.Struct):
    type: str
    stream: str = ""
    offset: int = 0
    next: int = 0
    start: dict[str, int] = {}
    trades: list[_Trade] = []


_decode = msgspec.json.Decoder(_Message).decode


class Subscriber(picows.WSListener):
    def __init__(self) -> None:
        self.ids: dict[tuple[str, str, int], Islands] = {}
        self.at: dict[str, int] = {}
        self.trades = self.twice = self.broken = self.messages = 0
        self.closed = False

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        transport.send(picows.WSMsgType.TEXT, _ASK)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        now = time.time_ns()
        if frame.msg_type == picows.WSMsgType.TEXT:
            self.heard(_decode(frame.get_payload_as_memoryview()), now)

    def heard(self, message: _Message, now: int) -> None:
        """A message that was in hand at `now` (ns)."""
        if message.type == "subscribed":
            self.at = dict(message.start)
        elif message.type == "trades":
            number = len(message.trades)
            trace.note("received", message.stream, message.offset, number, now, now)
            self.broken += self.at.get(message.stream) != message.offset or message.next - message.offset != number
            self.at[message.stream] = message.next
            self.trades += number
            self.messages += 1
            for trade in message.trades:
                counter = trade.exchange, trade.symbol, trade.epoch
                ids = self.ids.get(counter)
                if ids is None:
                    ids = self.ids[counter] = Islands()
                self.twice += not ids.add(trade.trade_id)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.closed = True

    async def until(self, trades: int) -> None:
        """Until it has so many trades, or nothing comes any more."""
        had, since = -1, time.monotonic()
        while self.trades < trades and time.monotonic() - since < _QUIET_S:
            if self.trades != had:
                had, since = self.trades, time.monotonic()
            await asyncio.sleep(0.02)

    def report(self) -> dict[str, Any]:
        return {
            "markets": {"/".join(map(str, counter)): ids.to_list() for counter, ids in self.ids.items()},
            "twice": self.twice,
            "broken": self.broken,
            "closed": int(self.closed),
            "messages": self.messages,
        }


def say(words: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


async def main(url: str) -> None:
    trace.start(load().metrics.trace)
    _, listener = await picows.ws_connect(Subscriber, url)
    assert isinstance(listener, Subscriber)
    while not listener.at:
        await asyncio.sleep(0.01)
    say({"subscribed": 1})
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    command = json.loads(await reader.readline())
    await listener.until(command["stop"])
    say(listener.report())


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
