"""The simulator as a whole: three markets, the clock that drives them, and their doors."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from k2 import metrics
from k2.config import Config, ConfigError, instruments
from k2.sim import capture, rest, server
from k2.sim.faults import Faults, Order
from k2.sim.generator import Arrivals
from k2.sim.market import Market
from k2.sim.player import Player
from k2.sim.truth import truth_dir
from k2.sim.venues import Venue
from k2.sim.venues.binance import Binance
from k2.sim.venues.coinbase import Coinbase
from k2.sim.venues.kraken import Kraken

log = logging.getLogger("k2.sim")
VENUES: tuple[type[Venue], ...] = (Binance, Coinbase, Kraken)
SHORTEST_TICK, BUSY_TICK = 0.001, 0.004  # s between two sends: the higher the rate, the longer
TICK_BY_RATE = 2e-6  # s for each trade a second
LONGEST_TICK = 0.05
AT_ONCE = 4_000  # trades made before others get a turn
BEHIND_AT_MOST = (
    10_000_000_000  # ns; after a longer pause of the process (a suspended machine) the schedule begins anew
)


@dataclass(frozen=True)
class Options:
    """What a run does. Zero or None: no limit, or the configuration's value."""

    burst: float = 1.5  # mean trades of a taker order
    count: int | None = None  # trades to make, then none
    duration: float | None = None  # s, then no trades
    paused: bool = False
    exit_when_drained: bool = False
    orders: tuple[Order, ...] = ()  # faults in force from the start
    captures: Path | None = None
    speed: float = 1.0  # 0: as fast as clients read
    all_channels: bool = False
    limits: bool = True  # hold REST clients to the venues' limits
    max_age: float = 24 * 3600.0  # s until a connection is closed
    cert: Path | None = None
    key: Path | None = None


class Simulator:
    """Made, started (`start`), run until `stop` (`run`), closed by `run`."""

    def __init__(self, config: Config, options: Options) -> None:
        self.config, self.options = config, options
        self.faults = Faults(config.sim.seed)
        for order in options.orders:
            self.faults.order(order)
        folder = truth_dir(config.data_dir)
        self.markets: Mapping[str, Market] = {
            venue.name: Market(venue(), self.faults, folder, config.sim.seed) for venue in VENUES
        }
        self.players: list[Player] = []
        self.paused = options.paused
        self.ws_port = self.rest_port = self.metrics_port = 0
        self._wall, self._mono = time.time_ns(), time.monotonic_ns()
        self._stopping = asyncio.Event()
        self._left = options.count
        self._until = time.monotonic() + options.duration if options.duration else None
        self._instruments_seen = 0.0
        self._lag = 0
        if options.captures is None:
            self._list_instruments()
        else:
            self._load_captures(options.captures)
        flat = [(market, one) for market in self.markets.values() for one in market.instruments]
        self._flat = flat
        made = sum(one.last_id for _, one in flat)
        seed = f"{config.sim.seed}:{made}"
        self._arrivals = Arrivals([one.weight for _, one in flat] or [1], config.sim.rate, options.burst, seed)
        self._arrivals.next = self.now_ns()

    def now_ns(self) -> int:
        """The wall clock as it was at the start plus what the monotonic one counted since."""
        return self._wall + time.monotonic_ns() - self._mono

    def _list_instruments(self) -> None:
        file = self.config.instruments_file
        listed = instruments(file)
        self._instruments_seen = file.stat().st_mtime
        for name, symbols in listed.items():
            for symbol in symbols:
                self.markets[name].add(symbol)

    def _load_captures(self, folder: Path) -> None:
        found: dict[str, list[capture.Capture]] = {}
        for one in capture.captures(folder):
            found.setdefault(one.header.exchange, []).append(one)
        for name, files in found.items():
            market = self.markets[name]
            speed, every = self.options.speed, self.options.all_channels
            self.players.append(Player(market, files, speed, every, _behind, lambda: self.paused))

    async def start(self) -> None:
        """Open the doors. Raises OSError (a port in use), ConfigError (a certificate that cannot be read)."""
        loop, sim = asyncio.get_running_loop(), self.config.sim
        tls = server.tls_context(self.options.cert, self.options.key)
        for market in self.markets.values():
            market.start(self.now_ns())
        self._server = await server.serve(self.markets, sim.host, sim.ws_port, tls, self.options.max_age, loop)
        self.ws_port = self._server.sockets[0].getsockname()[1]
        self._runner = web.AppRunner(rest.application(self, self.options.limits), access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, sim.host, sim.rest_port, ssl_context=tls)
        await site.start()
        self.rest_port = self._runner.addresses[0][1]
        self.metrics_port = metrics.serve(self.config, "sim")
        file = self.config.run_dir / "sim.json"
        word = msgspec.json.decode(file.read_bytes()) | {"ws_port": self.ws_port, "rest_port": self.rest_port}
        part = file.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(word))
        part.replace(file)

    async def run(self) -> None:
        """Trade until `stop`. Raises OSError if the truth cannot be written, CaptureError if a capture is broken."""
        work = [asyncio.create_task(one) for one in (self._keep_house(), *(player.play() for player in self.players))]
        if not self.players:
            work.append(asyncio.create_task(self._trade()))
        stopped = asyncio.create_task(self._stopping.wait())
        pending = {*work, stopped}
        try:
            while not self._stopping.is_set():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await self._close()

    def stop(self) -> None:
        self._stopping.set()

    async def _close(self) -> None:
        for market in self.markets.values():
            market.close()
        self._server.close()
        await self._runner.cleanup()

    async def _trade(self) -> None:
        """The market's own pace: whatever is due by the clock is made, then sent in one write a client."""
        while not self.finished:
            now = self.now_ns()
            if self.paused or not self._arrivals.rate:
                self._arrivals.next = now
                await asyncio.sleep(LONGEST_TICK)
                continue
            if now - self._arrivals.next > BEHIND_AT_MOST:
                log.warning("the schedule begins anew", extra={"behind_s": (now - self._arrivals.next) / 1e9})
                self._arrivals.next = now
            self._make_due(now)
            self._lag = max(0, now - self._arrivals.next)
            self._flush(now)
            if self._arrivals.next <= now:
                await asyncio.sleep(0)
                continue
            tick = min(BUSY_TICK, max(SHORTEST_TICK, self._arrivals.rate * TICK_BY_RATE))
            await asyncio.sleep(min(LONGEST_TICK, max(tick, (self._arrivals.next - self.now_ns()) / 1e9)))
        log.info("all trades made", extra={"made": self.made})

    def _make_due(self, now: int) -> None:
        flat = self._flat
        for at, index, wanted, word in self._arrivals.due(now, AT_ONCE):
            count = wanted if self._left is None else min(wanted, self._left)
            if self._left is not None:
                self._left -= count
            if count:
                market, instrument = flat[index]
                market.order(instrument, at, count, word)

    def _flush(self, now: int) -> None:
        if self.faults.standing:
            self.faults.expire(time.monotonic())
        for market in self.markets.values():
            market.now_ns = now
            market.flush()

    async def _keep_house(self) -> None:
        """Faults that stand by the clock, heartbeats, the instruments file, metrics."""
        beats: dict[Any, float] = {}
        checked = 0.0
        while True:
            await asyncio.sleep(0.05)
            now = time.monotonic()
            self.faults.expire(now)
            for market in self.markets.values():
                market.now_ns = self.now_ns()
                market.tick()
                for client in list(market.clients):
                    if now - beats.setdefault(client, now) >= 0.98:
                        beats[client] = now
                        client.beat(now)
            if now - checked >= 1:
                checked = now
                beats = {client: at for client, at in beats.items() if now - at < 10}
                self._once_a_second()
            if self.options.exit_when_drained and self.drained:
                self.stop()

    def _once_a_second(self) -> None:
        for market in self.markets.values():
            market.count_trades()
        file = self.config.instruments_file
        if self.players or not file.exists() or file.stat().st_mtime == self._instruments_seen:
            return
        try:
            self._list_instruments()
        except ConfigError as error:
            log.warning("the instruments file cannot be used: %s", error)
            return
        self._flat = [(market, one) for market in self.markets.values() for one in market.instruments]
        self._arrivals.set_weights([one.weight for _, one in self._flat])

    @property
    def made(self) -> int:
        return sum(market.made for market in self.markets.values())

    @property
    def finished(self) -> bool:
        """The generator has made all that it was asked for."""
        return self._left == 0 or (self._until is not None and time.monotonic() >= self._until)

    @property
    def drained(self) -> bool:
        """Captures played to their ends, or the trades asked for all made; and no frame is held back."""
        if any(market.shaper.pending() for market in self.markets.values()):
            return False
        return all(player.drained for player in self.players) if self.players else self.finished

    def pause(self, paused: bool) -> None:
        self.paused = paused

    def set_rate(self, rate: float) -> None:
        self._arrivals.set_rate(rate)
        self._arrivals.next = min(self._arrivals.next, self.now_ns())

    def emit(self, exchange: str, symbol: str, count: int, side: str) -> list[int]:
        market = self.markets.get(exchange)
        if market is None:
            raise ValueError(f"no exchange is called {exchange!r}; there are: {', '.join(self.markets)}")
        instrument = market.by_native.get(market.venue.native(symbol))
        if instrument is None:
            raise ValueError(f"{exchange} does not list {symbol!r}")
        if side not in ("buy", "sell") or not 1 <= count <= 10_000:
            raise ValueError("side is buy or sell, count is 1 to 10000")
        now = self.now_ns()
        first = instrument.last_id + 1
        market.order(instrument, now, count, self._arrivals.word() >> 22 & ~1 | (side == "buy"))
        market.now_ns = now
        market.flush()
        return list(range(first, first + count))

    def status(self) -> dict[str, Any]:
        exchanges = {}
        for name, market in self.markets.items():
            exchanges[name] = {
                "clients": len(market.clients),
                "subscribed": sum(len(client.trades) for client in market.clients),
                "made": market.made,
                "frames": market.sent_frames,
                "skew_s": market.clock.offset / 1e9,
                "symbols": {one.symbol: {"last_id": one.last_id, "epoch": one.epoch} for one in market.instruments},
            }
        return {
            "ws_port": self.ws_port,
            "rest_port": self.rest_port,
            "metrics_port": self.metrics_port,
            "rate": self._arrivals.rate,
            "paused": self.paused,
            "made": self.made,
            "behind_s": self._lag / 1e9,
            "drained": self.drained,
            "exchanges": exchanges,
            "faults": len(self.faults.standing),
        }


def _behind(market: Market) -> int:
    return max((client.waiting() for client in market.clients), default=0)
