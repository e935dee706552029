"""The least that a feed handler can cost: `python -m k2.ops.bench.feed_floor WS_URL FOLDER LINGER_MS`.

picows receives, msgspec decodes a frame into a typed struct and encodes a batch of them, LMDB keeps it durably: one
block of frames with their receive times and one of trades a batch, one transaction a batch, batches as far apart as the
recorder's. No dedup, no hole detection, no metrics, no healing, one thread. It answers any line of standard input with
`{"stored": n}`.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import lmdb
import msgspec
import picows
import uvloop

from k2.config import Config, instruments
from k2.feed.recorder import CROWD, LINGER_CAP


class _Trade(msgspec.Struct, gc=False):
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool


class _Message(msgspec.Struct, gc=False):
    data: _Trade


class Floor(picows.WSListener):
    """Receives, decodes and, on a timer, stores."""

    def __init__(self, folder: Path, linger: float) -> None:
        self.environment = lmdb.open(str(folder), map_size=16 << 30, max_dbs=2)
        self.frames_db = self.environment.open_db(b"frames")
        self.trades_db = self.environment.open_db(b"trades")
        self.linger = linger
        self.loop = asyncio.get_running_loop()
        self.decode = msgspec.json.Decoder(_Message).decode
        self.encode = msgspec.json.Encoder().encode
        self.frames: list[bytes] = []
        self.times: list[int] = []
        self.trades: list[_Trade] = []
        self.stored = 0
        self.waiting = False
        self.next_batch = 0.0

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        now = time.time_ns()
        payload = frame.get_payload_as_bytes()
        if frame.msg_type != picows.WSMsgType.TEXT or payload.startswith(b'{"result"'):
            return
        self.times.append(now)
        self.frames.append(payload)
        self.trades.append(self.decode(payload).data)
        if not self.waiting:
            self.waiting = True
            self.loop.call_at(max(self.loop.time(), self.next_batch), self.store)

    def store(self) -> None:
        """One durable transaction for all that has come."""
        self.waiting = False
        pause = min(self.linger * (1 + len(self.frames) / CROWD), max(self.linger, LINGER_CAP))
        self.next_batch = self.loop.time() + pause
        frames, times, trades = self.frames, self.times, self.trades
        self.frames, self.times, self.trades = [], [], []
        key = self.stored.to_bytes(8, "big")
        block = msgspec.msgpack.encode((times, frames))
        with self.environment.begin(write=True) as transaction:
            transaction.put(key, block, db=self.frames_db, append=True)
            transaction.put(key, self.encode(trades), db=self.trades_db, append=True)
        self.stored += len(trades)


async def serve(url: str, folder: Path, linger: float) -> None:
    floor = Floor(folder, linger)
    transport, _ = await picows.ws_connect(lambda: floor, url)
    symbols = instruments(Config().instruments_file)["binance"]
    names = [symbol.replace("-", "").lower() + "@trade" for symbol in symbols]
    transport.send(picows.WSMsgType.TEXT, json.dumps({"method": "SUBSCRIBE", "params": names, "id": 1}).encode())
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        sys.stdout.write(json.dumps({"stored": floor.stored}) + "\n")
        sys.stdout.flush()
    transport.disconnect()
    floor.environment.close()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]) / 1e3))
