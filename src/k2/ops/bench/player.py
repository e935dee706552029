"""Plays ready-made Binance trade frames by the clock, over WebSocket on loopback: `python -m k2.ops.bench.player`.

It hears JSON lines on standard input and answers each on standard output:
`{"frames": n, "rate": r, "tick_ms": t}` plays n frames, r a second, what is due every t ms in one write, to the client,
and answers when the last is handed to the system;
`{"symbols": n}` is answered when a client has subscribed to so many. Standard input's end ends it. Frames are made
before they are played, so that playing costs one write a tick.
"""

import asyncio
import json
import sys
import time

import msgspec
import picows
import uvloop

FIRST_ID = 4_000_000_000


def frame(symbol: str, trade_id: int, ts_ms: int) -> bytes:
    """A trade as Binance's combined stream sends it; price and quantity vary with the id."""
    price, size = 61_000 + trade_id % 997, trade_id * 7919 % 99_991
    return (
        b'{"stream":"%b@trade","data":{"e":"trade","E":%d,"s":"%b","t":%d,"p":"%d.%02d000000","q":"0.%05d000",'
        b'"T":%d,"m":%b,"M":true}}'
    ) % (
        symbol.lower().encode(), ts_ms + 1, symbol.encode(), trade_id, price, trade_id % 100, size,
        ts_ms, b"true" if trade_id & 1 else b"false",
    )  # fmt: skip


def envelope(payload: bytes) -> bytes:
    """A server's unfragmented text frame (RFC 6455, 5.2)."""
    size = len(payload)
    return (b"\x81" + bytes((size,)) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")) + payload


class _Client(picows.WSListener):
    """Answers subscriptions as Binance does; remembers what was subscribed."""

    def __init__(self, player: "Player") -> None:
        self.player = player

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.CLOSE:
            transport.disconnect()
        elif frame.msg_type == picows.WSMsgType.TEXT:
            asked = msgspec.json.decode(frame.get_payload_as_bytes())
            transport.send(picows.WSMsgType.TEXT, b'{"result":null,"id":%d}' % asked["id"])
            if asked["method"] == "SUBSCRIBE":
                names = [name.partition("@")[0].upper() for name in asked["params"] if name.endswith("@trade")]
                self.player.subscribed(transport, names)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.player.left(transport)


class Player:
    """One client at a time; ids go on from play to play, so that no play looks like a hole."""

    def __init__(self) -> None:
        self.transport: picows.WSTransport | None = None
        self.symbols: list[str] = []
        self.next_id: dict[str, int] = {}

    def subscribed(self, transport: picows.WSTransport, names: list[str]) -> None:
        if transport is not self.transport:
            self.transport, self.symbols = transport, []
        self.symbols += names

    def left(self, transport: picows.WSTransport) -> None:
        if transport is self.transport:
            self.transport = None

    def make(self, frames: int) -> tuple[bytes, list[int]]:
        """The bytes of so many frames over all symbols, and where each begins and the last ends."""
        now_ms = time.time_ns() // 1_000_000
        parts, edges, at = [], [0], 0
        for number in range(frames):
            symbol = self.symbols[number % len(self.symbols)]
            trade_id = self.next_id.setdefault(symbol, FIRST_ID)
            self.next_id[symbol] = trade_id + 1
            part = envelope(frame(symbol, trade_id, now_ms))
            parts.append(part)
            at += len(part)
            edges.append(at)
        return b"".join(parts), edges

    async def play(self, frames: int, rate: float, tick: float) -> dict[str, float]:
        """Open loop: frame i is due i / rate seconds after the start; what is due goes out each `tick` seconds.

        Answers how long it took and the worst delay."""
        if self.transport is None or not self.symbols:
            return {"error": 1}
        data, edges = self.make(frames)
        whole = memoryview(data)
        wire = self.transport.underlying_transport
        began = time.perf_counter()
        sent, late = 0, 0.0
        while sent < frames:
            elapsed = time.perf_counter() - began
            due = min(frames, int(elapsed * rate) + 1)
            if due > sent:
                late = max(late, elapsed - sent / rate)
                wire.write(whole[edges[sent] : edges[due]])
                sent = due
            await asyncio.sleep(tick)
            if sent < frames and wire.is_closing():
                return {"error": 1}
        return {"frames": frames, "seconds": time.perf_counter() - began, "late_ms": late * 1e3, "bytes": len(data)}

    async def client(self, symbols: int) -> dict[str, float]:
        """Waits until a client has subscribed to so many symbols."""
        while self.transport is None or len(self.symbols) < symbols:
            await asyncio.sleep(0.005)
        return {"symbols": len(self.symbols)}


def say(answer: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def serve() -> None:
    player = Player()
    server = await picows.ws_create_server(lambda request: _Client(player), "127.0.0.1", 0)
    say({"port": server.sockets[0].getsockname()[1]})
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        if "frames" in command:
            say(await player.play(command["frames"], command["rate"], command["tick_ms"] / 1e3))
        else:
            say(await player.client(command["symbols"]))
    server.close()


if __name__ == "__main__":
    uvloop.run(serve())
