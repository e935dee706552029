"""`k2 feed` killed again and again while the simulator trades: by trade id, the log lacks none and holds none twice."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from feed_kit import gaps, trades
from tests.patience import PATIENCE_S

from k2.exchanges import venue
from k2.feed.replay import replay
from k2.log.lmdb import LmdbLog
from k2.sim.truth import truth

PATHS = {"binance": "/binance/stream", "coinbase": "/coinbase", "kraken": "/kraken/v2"}
SYMBOLS = {"binance": ["BTC-USDT", "ETH-USDT"], "coinbase": ["BTC-USD", "ETH-USD"], "kraken": ["BTC-USD", "ETH-USD"]}


class Processes:
    """The simulator and one exchange's feed, in a data folder of their own."""

    def __init__(self, data: Path, exchange: str) -> None:
        (data / "instruments.toml").write_text(f"{exchange} = {json.dumps(SYMBOLS[exchange])}\n")
        self.exchange = exchange
        self.env = {
            **os.environ,
            "K2_DATA": str(data),
            "K2_INSTRUMENTS": str(data / "instruments.toml"),
            "K2_METRICS_PORT": "0",
            "K2_FEED_BACKOFF_FIRST": "0.05",
        }
        self.sim = self._start("sim", "--ws-port", "0", "--rest-port", "0", "--rate", "100", "--no-limits")
        assert self.sim.stdout is not None
        ports = json.loads(self.sim.stdout.readline())
        self.rest = f"http://127.0.0.1:{ports['rest_port']}"
        name = exchange.upper()
        self.env[f"K2_EXCHANGES_{name}_WS_URL"] = f"ws://127.0.0.1:{ports['ws_port']}{PATHS[exchange]}"
        self.env[f"K2_EXCHANGES_{name}_REST_URL"] = f"{self.rest}/{exchange}"
        self.start_feed()

    def _start(self, *words: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-m", "k2", *words], env=self.env, stdout=subprocess.PIPE)

    def start_feed(self) -> None:
        self.feed = self._start("feed", self.exchange)

    def kill_feed(self) -> None:
        self.feed.kill()
        self.feed.wait()

    def post(self, path: str) -> None:
        with urlopen(
            Request(f"{self.rest}{path}", data=b"{}", headers={"Content-Type": "application/json"}), timeout=PATIENCE_S
        ):
            pass

    def end(self) -> None:
        for process in (self.feed, self.sim):
            process.terminate()
        for process in (self.feed, self.sim):
            process.wait(PATIENCE_S)


def recorded(data: Path, exchange: str) -> Counter[tuple[str, int]]:
    log = LmdbLog(data / "log", 1 << 32)
    try:
        return Counter((trade.symbol, trade.trade_id) for trade in trades(log, exchange))
    finally:
        log.close()


def wait_for_more(data: Path, exchange: str, than: int, within: float = PATIENCE_S) -> int:
    until = time.monotonic() + within
    while (count := recorded(data, exchange).total()) <= than:
        assert time.monotonic() < until, f"{exchange}: no trade came in {within} s"
        time.sleep(0.1)
    return count


@pytest.mark.slow
@pytest.mark.parametrize("exchange", list(PATHS))
def test_killed_at_random_moments_it_loses_and_doubles_nothing(tmp_path: Path, exchange: str) -> None:
    chance = random.Random(exchange)
    processes = Processes(tmp_path, exchange)
    try:
        count = 0
        for _ in range(6):
            count = wait_for_more(tmp_path, exchange, count)
            time.sleep(chance.uniform(0, 0.5))
            processes.kill_feed()
            processes.start_feed()
        wait_for_more(tmp_path, exchange, count + 100)
        processes.post("/control/pause")
        expected = None
        until = time.monotonic() + PATIENCE_S
        while expected is None or set(recorded(tmp_path, exchange)) != expected:
            assert time.monotonic() < until, "the holes were not healed"
            time.sleep(0.2)
            seen = recorded(tmp_path, exchange)
            first = {symbol: min(n for s, n in seen if s == symbol) for symbol in SYMBOLS[exchange]}
            made = ((trade.exchange, trade.symbol, trade.trade_id) for trade in truth(tmp_path))
            expected = {(symbol, n) for name, symbol, n in made if name == exchange and n >= first[symbol]}
    finally:
        processes.end()
    assert processes.feed.returncode == 0
    log = LmdbLog(tmp_path / "log", 1 << 32)
    try:
        assert max(recorded(tmp_path, exchange).values()) == 1
        latest = {(gap.symbol, gap.first_id, gap.state == "start"): gap.state for gap in gaps(log)}
        assert set(latest.values()) <= {"start", "healed"}
        assert replay(log, venue(exchange)).different == 0
    finally:
        log.close()
