"""Which processes make up the platform, live and as a demonstration, and what it takes to say that all has arrived."""

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from k2.config import EXCHANGES, Config
from k2.core.codec import trades_stream
from k2.ops.supervise import Service
from k2.tier import reach
from k2.tier.names import streams
from k2.wire import open_log

WEB, FEEDS, LOADER, STORE, SIM = 0, 0, 1, 2, 3  # the order in which they are stopped


def feeds(config: Config, after: tuple[str, ...] = ()) -> list[Service]:
    """A feed handler for every enabled exchange."""
    return [
        Service(f"feed-handler-{name}", ["feed", name], after=after, stop_order=FEEDS)
        for name in EXCHANGES
        if config.exchange(name).enabled
    ]


def archiver(config: Config, after: tuple[str, ...]) -> list[Service]:
    """What offloads to the cold tier, if it is to be done by itself."""
    if not config.tier.every_s:
        return []
    return [Service("archiver", ["archive", "--every"], after=after, stop_order=LOADER)]


def web(config: Config) -> list[Service]:
    """What serves the API, the live stream and the page, if it is to."""
    return [Service("web", ["web"], after=("store",), stop_order=WEB)] if config.web.port else []


def protect(config: Config) -> None:
    """From now on the log keeps what the cold tier lacks. Raises LogError, ConfigError."""
    if config.tier.every_s:
        log = open_log(config)
        try:
            reach.protect(log, [name for names in streams(EXCHANGES).values() for name in names])
        finally:
            log.close()


def live(config: Config) -> list[Service]:
    """The platform on the real exchanges."""
    return [
        Service("store", ["store"], stop_order=STORE),
        Service("loader", ["load"], after=("store",), stop_order=LOADER),
        *feeds(config),
        *archiver(config, after=("store", "loader")),
        *web(config),
    ]


def demo(config: Config, sim_arguments: list[str]) -> list[Service]:
    """The platform on the simulator."""
    return [
        Service("store", ["store"], stop_order=STORE),
        Service("sim", ["sim", *sim_arguments], stop_order=SIM),
        Service("loader", ["load"], after=("store",), stop_order=LOADER),
        *feeds(config, after=("sim",)),
        *archiver(config, after=("store", "loader")),
        *web(config),
    ]


def demo_environment(config: Config) -> Mapping[str, str]:
    """Settings that turn the feed handlers to the simulator."""
    ws = f"ws://{config.sim.host}:{config.sim.ws_port}"
    rest = f"http://{config.sim.host}:{config.sim.rest_port}"
    paths = {"binance": "/binance/stream", "coinbase": "/coinbase", "kraken": "/kraken/v2"}
    found = {}
    for name, path in paths.items():
        found[f"K2_EXCHANGES_{name.upper()}_WS_URL"] = ws + path
        found[f"K2_EXCHANGES_{name.upper()}_REST_URL"] = f"{rest}/{name}"
    return found


def sim_status(config: Config) -> dict[str, object]:
    """What the simulator says of itself; empty if it does not answer."""
    try:
        with urlopen(f"http://{config.sim.host}:{config.sim.rest_port}/control/status", timeout=2) as answer:
            status: dict[str, object] = json.load(answer)
            return status
    except (URLError, OSError, ValueError):
        return {}


async def drained(config: Config, timeout: float) -> None:
    """Until the simulator has sent all, the log has stood still for two seconds and the loader has committed its end.

    Raises TimeoutError.
    """
    async with asyncio.timeout(timeout):
        while not (await asyncio.to_thread(sim_status, config)).get("drained"):
            await asyncio.sleep(0.2)
        await loaded(config, still_for=2.0)


async def loaded(config: Config, still_for: float) -> None:
    """Until the trade streams have not grown for `still_for` seconds and the loader's positions are at their ends."""
    streams = [trades_stream(name) for name in EXCHANGES]
    log = open_log(config)
    try:
        ends: list[int] = []
        since = time.monotonic()
        while True:
            now_ends = [log.bounds(stream)[1] for stream in streams]
            if now_ends != ends:
                ends, since = now_ends, time.monotonic()
            positions = log.committed("loader")
            behind = [
                s
                for s, end in zip(streams, ends, strict=True)
                if end and (s not in positions or positions[s].offset < end)
            ]
            if not behind and time.monotonic() - since >= still_for:
                return
            await asyncio.sleep(0.1)
    finally:
        log.close()


def capture_instruments(captures: Path, target: Path) -> None:
    """Write an instruments file with the symbols that the captures hold."""
    from k2.sim.capture import symbols

    lines = [f"{name} = {json.dumps(sorted(found))}" for name, found in symbols(captures).items()]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(lines) + "\n")
