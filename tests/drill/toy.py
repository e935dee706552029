"""A platform of one process that is none: an exchange that counts, a store that copies, and switches for both."""

import os
import time
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server

from k2.config import load
from k2.log.memory import MemoryLog
from k2.metrics import write_status
from k2.ops.drill.flow import Flow, Span, Spans, Symbol
from k2.ops.drill.signals import Signals
from k2.store import StoreUnavailable

SYMBOL: Symbol = ("binance", "BTC-USDT", 0)
OTHER: Symbol = ("kraken", "BTC-USD", 0)
RATE = 100


class Toy:
    """`lost` are ids that the store never shows; `dark` until that time the store answers nothing."""

    def __init__(self, folder: Path) -> None:
        self.environ = dict(os.environ)
        self.config = load(environ={"K2_DATA": str(folder), "K2_WEB_PORT": "0"})
        self.began = time.monotonic() - 60
        self.dark_until = 0.0
        self.lost: set[Symbol] = set()
        self._server, self._thread = start_http_server(0, "127.0.0.1", CollectorRegistry())
        self.live()
        self.flow = Flow(self.made, self.shown)
        self.signals = Signals(self.config, ("worker",), MemoryLog())
        self.flow.start()
        self.signals.start()

    def close(self) -> None:
        self.flow.end()
        self.signals.end()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def live(self) -> None:
        write_status(self.config, "worker", self._server.server_port)

    def die(self) -> None:
        (self.config.run_dir / "worker.json").unlink()

    def supervisor_says(self, line: str) -> None:
        with (self.config.run_dir / "supervisor.log").open("a") as log:
            log.write(line + "\n")

    def made(self) -> Spans:
        last = int((time.monotonic() - self.began) * RATE)
        return {symbol: Span(1, last, last, last) for symbol in (SYMBOL, OTHER)}

    def shown(self) -> Spans:
        if time.monotonic() < self.dark_until:
            raise StoreUnavailable("it is dark")
        return {
            symbol: span._replace(distinct=span.distinct - 1, rows=span.rows - 1) if symbol in self.lost else span
            for symbol, span in self.made().items()
        }

    def as_platform(self) -> Any:
        """In place of a rehearsal platform."""
        return self
