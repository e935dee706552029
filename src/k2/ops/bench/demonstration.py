"""`k2 demo` as a person starts it, in a lab: the whole platform under its supervisor."""

import time

from k2.config import Config
from k2.metrics import read_status
from k2.ops.bench.lab import Lab, Process
from k2.ops.platform import demo
from k2.store import Store, StoreError
from k2.wire import open_store

FIRST_CANDLE_WITHIN = 60.0


class Demonstration:
    """A running `k2 demo`, from the moment of its start."""

    def __init__(self, lab: Lab, name: str, rate: float) -> None:
        self.lab = lab
        self.config: Config = lab.config(name)
        self.began = time.monotonic()
        self.supervisor: Process = lab.k2(self.config, "supervisor", ["demo", "--rate", str(rate)])

    def first_candle(self) -> float:
        """Seconds from the start until a candle could be read."""
        store = open_store(self.config)
        try:
            self.lab.until(lambda: _has_candle(store), "the first candle", FIRST_CANDLE_WITHIN)
            return time.monotonic() - self.began
        finally:
            store.close()

    def pids(self) -> dict[str, int]:
        """Service to process id, of those that run; the supervisor is one of them."""
        words = read_status(self.config.run_dir)
        return {"supervisor": self.supervisor.child.pid, **{name: int(word["pid"]) for name, word in words.items()}}

    def complete(self) -> bool:
        """Whether every service of the demonstration runs."""
        return {service.name for service in demo(self.config, [])} <= set(self.pids())

    def stop(self) -> float:
        """Stop it all; returns the seconds that it took."""
        began = time.monotonic()
        self.lab.stop(self.supervisor)
        return time.monotonic() - began


def _has_candle(store: Store) -> bool:
    try:
        return bool(store.rows("SELECT 1 FROM k2.ohlcv_1m LIMIT 1"))
    except StoreError:
        return False
