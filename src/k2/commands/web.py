"""`k2 web`: the HTTP API, the live stream and the page."""

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import click
import msgspec
import uvloop

from k2 import metrics
from k2.config import Config, ConfigError
from k2.door import is_loopback
from k2.log import Log, LogError
from k2.ops import journal
from k2.ops.vitals import Observer, as_json
from k2.terminal import note
from k2.web.keys import Keys, KeysError, listed
from k2.web.parts import Parts
from k2.web.process import prepare
from k2.web.server import serve
from k2.web.store import StoreReader
from k2.web.stream import limits
from k2.web.stream.hub import Hub
from k2.wire import open_log

_LOOK_AGE = 1.0  # s


@click.command()
@click.option("--host", help="Address to listen on (default: web.host).")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one (default: web.port).")
@click.pass_obj
def web(config: Config, host: str | None, port: int | None) -> None:
    """Serve the HTTP API, the live stream and the page, until SIGTERM or Ctrl-C.

    It reads the store and the log, and writes neither. While the store does not run, questions to it are answered with
    status 503; it is asked again at the next one. Without keys it listens on loopback only.

    \b
    Exit status: 0 told to stop, 1 could not listen (the text says why, and what to do).
    Examples:
      k2 web                                     on http://127.0.0.1:8080
      k2 --data k2-demo web --port 0             a demo's data, on a free port
      k2 keys create me && k2 web --host 0.0.0.0 for the network
    """
    changed = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    served = msgspec.structs.replace(config.web, **changed)
    config = msgspec.structs.replace(config, data=str(config.data_dir), web=served)
    journal.setup(config, "web")
    prepare()
    try:
        _refuse_open_door(config)
        log = open_log(config)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_until_told(config, log))
        finally:
            log.close()
    except (ConfigError, KeysError, LogError) as error:
        note(f"k2 web: {error}")
        sys.exit(1)


async def _until_told(config: Config, log: Log) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def ready(url: str, open_to_all: bool) -> None:
        metrics.serve(config, "web", address=url)
        note(f"web: listening on {url}")
        if open_to_all:
            note("web: no keys are needed: on this machine's loopback only; `k2 keys create NAME` makes one")
        elif url.startswith("http:") and not is_loopback(config.web.host):
            note("web: keys and data travel readable for all on the way: see web.tls_cert, or a proxy with TLS")

    await run(config, log, stop, ready)


async def run(config: Config, log: Log, stop: asyncio.Event, ready: Callable[[str, bool], None]) -> None:
    """Serve until `stop`. `ready` is told the address, and whether everybody who reaches it is let in. Raises
    ConfigError."""
    keys = Keys(config.keys_file, always=not is_loopback(config.web.host))
    store = StoreReader(config)
    hub = Hub(log, limits(config.web), store.rows)
    parts = Parts(config, store, log, Looking(config), keys, hub, time.time())

    try:
        await serve(parts, stop, lambda url: ready(url, not keys.required), hub.close)
    finally:
        await store.close()


class Looking:
    """The platform's vitals, looked at again when they are older than a second, and by one at a time."""

    def __init__(self, config: Config) -> None:
        self._observer = Observer(config.run_dir)
        self._lock = asyncio.Lock()
        self._at = float("-inf")
        self._seen: Mapping[str, Any] = {}

    async def __call__(self) -> Mapping[str, Any]:
        async with self._lock:
            if time.monotonic() - self._at > _LOOK_AGE:
                self._seen = as_json(await asyncio.to_thread(self._observer.look))
                self._at = time.monotonic()
            return self._seen


def _refuse_open_door(config: Config) -> None:
    """Raises ConfigError, KeysError."""
    if is_loopback(config.web.host):
        return
    now = time.time_ns()
    if not any(key.state(now) == "active" for key in listed(config.keys_file)):
        raise ConfigError(
            f"web.host = {config.web.host!r} can be reached from other machines, and there is no key that counts: make"
            " one with `k2 keys create NAME`, or listen on 127.0.0.1"
        )
