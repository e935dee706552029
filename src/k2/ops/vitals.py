"""What a running platform says of itself: every process's metrics and resources, gathered into one picture."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from k2.metrics import STAGE_BUCKETS, parse, read_status

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass
class ProcessVitals:
    """`cpu` in percent of one core since the last look; `memory` is resident bytes; `up` in seconds."""

    service: str
    pid: int
    up: float
    cpu: float
    memory: int
    answers: bool


@dataclass
class VenueVitals:
    """One exchange; `rate` in trades a second since the last look, `last_trade` as ns-free epoch seconds or None."""

    exchange: str
    connected: bool
    rate: float
    trades: int
    last_trade: float | None
    gaps_open: int
    gaps_healed: int
    duplicates: int
    faults: int
    reconnects: int
    clock_offset: float | None
    lag: int


@dataclass
class Vitals:
    """A look at the whole platform. `stages`: stage -> (p50, p99) in seconds since the last look."""

    at: float
    processes: list[ProcessVitals] = field(default_factory=list)
    venues: list[VenueVitals] = field(default_factory=list)
    stages: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def memory(self) -> int:
        return sum(process.memory for process in self.processes)

    @property
    def cpu(self) -> float:
        return sum(process.cpu for process in self.processes)


class Observer:
    """Looks again and again at the processes of one run folder; keeps what it needs to tell rates."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._processes: dict[int, psutil.Process] = {}
        self._before: Samples = {}
        self._before_at = 0.0

    def look(self) -> Vitals:
        """One look. A process that does not answer is shown as such; nothing is raised."""
        now = time.time()
        vitals = Vitals(now)
        samples: Samples = {}
        for service, word in read_status(self.run_dir).items():
            process = self._process(int(word["pid"]))
            if process is None:
                continue
            page = _scrape(int(word["metrics_port"]))
            samples.update(page)
            with process.oneshot():
                vitals.processes.append(
                    ProcessVitals(
                        service,
                        process.pid,
                        now - float(word["started"]),
                        process.cpu_percent(),
                        process.memory_info().rss,
                        bool(page),
                    )
                )
        elapsed = now - self._before_at if self._before_at else 0.0
        vitals.venues = _venues(samples, self._before, elapsed, now)
        vitals.stages = _stages(samples, self._before)
        self._before, self._before_at = samples, now
        return vitals

    def _process(self, pid: int) -> psutil.Process | None:
        try:
            process = self._processes.setdefault(pid, psutil.Process(pid))
            return process if process.is_running() and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def _scrape(port: int) -> Samples:
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1.0) as answer:
            return parse(answer.read().decode())
    except (URLError, OSError, ValueError):
        return {}


def _sum(samples: Samples, name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(value for (sample, have), value in samples.items() if sample == name and wanted <= set(have))


def _venues(samples: Samples, before: Samples, elapsed: float, now: float) -> list[VenueVitals]:
    names = sorted({dict(labels)["exchange"] for (name, labels) in samples if name == "k2_connected"})
    found = []
    for exchange in names:
        last = [
            v
            for (n, ls), v in samples.items()
            if n == "k2_last_trade_timestamp_seconds" and ("exchange", exchange) in ls
        ]
        offset = [
            v
            for (n, ls), v in samples.items()
            if n == "k2_exchange_clock_offset_seconds" and ("exchange", exchange) in ls
        ]
        trades = _sum(samples, "k2_trades_total", exchange=exchange)
        earlier = _sum(before, "k2_trades_total", exchange=exchange)
        found.append(
            VenueVitals(
                exchange=exchange,
                connected=_sum(samples, "k2_connected", exchange=exchange) > 0,
                rate=max(0.0, trades - earlier) / elapsed if elapsed else 0.0,
                trades=int(trades),
                last_trade=max(last) if last else None,
                gaps_open=int(_sum(samples, "k2_gaps_open", exchange=exchange)),
                gaps_healed=int(_sum(samples, "k2_gaps_total", exchange=exchange, state="healed")),
                duplicates=int(_sum(samples, "k2_duplicates_total", exchange=exchange)),
                faults=int(_sum(samples, "k2_faults_total", exchange=exchange)),
                reconnects=int(_sum(samples, "k2_reconnects_total", exchange=exchange)),
                clock_offset=offset[0] if offset else None,
                lag=int(_sum(samples, "k2_consumer_lag_records", stream=f"market.crypto.trades.{exchange}")),
            )
        )
    return found


def _stages(samples: Samples, before: Samples) -> dict[str, tuple[float, float]]:
    """Quantiles of each stage from the histogram buckets that grew since the last look (of all time at the first)."""
    counts: dict[str, dict[float, float]] = {}
    for (name, labels), value in samples.items():
        if name == "k2_stage_seconds_bucket":
            label = dict(labels)
            buckets = counts.setdefault(label["stage"], {})
            edge = float(label["le"])
            buckets[edge] = buckets.get(edge, 0.0) + value - before.get((name, labels), 0.0)
    return {
        stage: (quantile(buckets, 0.5), quantile(buckets, 0.99))
        for stage, buckets in counts.items()
        if max(buckets.values())
    }


def quantile(buckets: Mapping[float, float], q: float) -> float:
    """The q-quantile in a histogram's cumulative buckets {upper edge: count}, linear inside the bucket."""
    wanted = q * max(buckets.values())
    low, below = 0.0, 0.0
    for edge in sorted(buckets):
        count = buckets[edge]
        if count >= wanted and count > below:
            top = edge if edge != float("inf") else STAGE_BUCKETS[-1]
            return low + (top - low) * (wanted - below) / (count - below)
        low, below = edge, count
    return low


def as_json(vitals: Vitals) -> dict[str, Any]:
    """The look as plain values."""
    return {
        "at": vitals.at,
        "memory_bytes": vitals.memory,
        "cpu_percent": round(vitals.cpu, 1),
        "processes": [vars(process) for process in vitals.processes],
        "venues": [vars(venue) for venue in vitals.venues],
        "stages": {stage: {"p50_s": p50, "p99_s": p99} for stage, (p50, p99) in vitals.stages.items()},
    }
