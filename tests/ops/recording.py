"""A data folder with a history: frames of a venue made to measure, recorded as the feed does it, and archived."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE_S

from k2.config import EXCHANGES, Config, load
from k2.core.codec import GAPS_STREAM, encode_frames, encode_gap, frames_stream, trades_stream
from k2.core.sequence import Sequences
from k2.core.session import Decoder
from k2.core.types import Frame, Gap
from k2.exchanges import venue
from k2.log import Entry
from k2.store.loader import Loader
from k2.wire import open_archive, open_log, open_store

START_MS = 1_767_312_000_000 - 90_000  # 90 s before midnight of 2026-01-02
DAY_MS = 86_400_000
STEP_MS = 1_000  # between two ids of a symbol


def trade_ms(number: int) -> int:
    return START_MS + number * STEP_MS


def received(number: int) -> int:
    """When the frame of a trade comes in, ns."""
    return trade_ms(number) * 1_000_000 + 5_000_123


def trade_frame(number: int, symbol: str = "BTCUSDT", recv_ts: int | None = None) -> Frame:
    data = {"e": "trade", "E": 1, "s": symbol, "t": number, "T": trade_ms(number), "m": bool(number % 3), "M": True}
    data |= {"p": f"{61_000 + number % 17}.{number % 100:02d}000000", "q": f"0.{number % 97 + 1:03d}00001"}
    payload = json.dumps({"stream": f"{symbol.lower()}@trade", "data": data}).encode()
    return Frame(received(number) if recv_ts is None else recv_ts, "ws", "c1", "", payload)


def page_frame(numbers: Sequence[int], recv_ts: int, symbol: str = "BTCUSDT") -> Frame:
    """A REST answer with these trades."""
    rows: list[dict[str, Any]] = [
        {
            "id": n,
            "price": f"{61_000 + n % 17}.{n % 100:02d}000000",
            "qty": f"0.{n % 97 + 1:03d}00001",
            "time": trade_ms(n),
            "isBuyerMaker": bool(n % 3),
        }
        for n in numbers
    ]
    request = f"200 /api/v3/historicalTrades?symbol={symbol}&fromId={numbers[0]}&limit=1000"
    return Frame(recv_ts, "rest", "rest", request, json.dumps(rows).encode())


class Recording:
    """Records frames of one exchange into the log of a data folder."""

    def __init__(self, data: Path, exchange: str = "binance", **settings: str) -> None:
        self.config: Config = load(environ={"K2_DATA": str(data), "K2_METRICS_PORT": "0", **settings})
        self.exchange = exchange
        self.log = open_log(self.config)
        self.decoder = Decoder(venue(exchange), Sequences(exchange))

    def record(self, frames: Iterable[Frame]) -> None:
        frames = list(frames)
        decoded = self.decoder.run(frames)
        entries = [Entry(frames_stream(self.exchange), [""] * len(frames), encode_frames(frames))]
        if decoded.values:
            entries.append(Entry(trades_stream(self.exchange), decoded.keys, decoded.values))
        self.log.append(entries)
        self.note(decoded.gaps)

    def give_up(self, reason: str, now_ns: int) -> None:
        """What is missing now cannot be had."""
        sequences = self.decoder.sequences
        told = [sequences.unavailable(hole, reason, now_ns) for hole in sequences.holes()]
        self.note([gap for gap in told if gap is not None])

    def note(self, gaps: Sequence[Gap]) -> None:
        if gaps:
            self.log.append([Entry(GAPS_STREAM, [gap.symbol for gap in gaps], [encode_gap(gap) for gap in gaps])])

    def archive(self) -> None:
        open_archive(self.config, self.log).run()

    def load(self) -> None:
        """Bring the store up to the end of the log, as a loader that starts does."""
        stores = open_store(self.config), open_store(self.config)
        Loader(self.log, *stores, self.config.loader, EXCHANGES).take_over()
        for store in stores:
            store.close()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        store = open_store(self.config)
        try:
            return store.rows(sql)
        finally:
            store.close()

    def forget_store(self) -> None:
        shutil.rmtree(self.config.store_dir)

    def close(self) -> None:
        self.log.close()


@contextmanager
def served(config: Config) -> Iterator[None]:
    """A store process of the folder, while inside."""
    command = [sys.executable, "-m", "k2", "--data", config.data, "store", "--port", str(config.store.port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        words = iter(process.stderr.readline, "")
        assert any("listening" in line for line in words), "the store did not start"
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def history(data: Path, **settings: str) -> Recording:
    """Two symbols over midnight: a hole that REST filled, one that nobody could, repeats, junk; archived twice."""
    made = Recording(data, **settings)
    frames = [trade_frame(n, s) for n in range(1, 121) for s in ("BTCUSDT", "ETHUSDT") if s != "BTCUSDT" or n % 60 < 50]
    middle = len(frames) // 2
    made.record([*frames[:middle], frames[middle - 1], Frame(received(56), "ws", "c1", "", b"junk")])
    made.archive()
    made.record([page_frame([50, 51, 52, 53, 54, 55, 56, 57, 58, 59], received(63)), *frames[middle:]])
    made.record([trade_frame(n) for n in range(120, 200)])
    made.give_up("the venue does not have them", received(200))
    made.record([trade_frame(n) for n in range(200, 240)])
    made.archive()
    return made
