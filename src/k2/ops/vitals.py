"""What a running platform says of itself: every process's metrics and resources, gathered into one picture."""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psutil

from k2.core.codec import trades_stream
from k2.metrics import STAGE_BUCKETS, parse, read_status

Labels = tuple[tuple[str, str], ...]
Samples = dict[str, dict[Labels, float]]


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
            for (name, labels), value in page.items():
                if name.startswith("k2_"):
                    samples.setdefault(name, {})[labels] = value
            with suppress(psutil.NoSuchProcess), process.oneshot():
                up, cpu, memory = now - float(word["started"]), process.cpu_percent(), process.memory_info().rss
                vitals.processes.append(ProcessVitals(service, process.pid, up, cpu, memory, bool(page)))
        elapsed = now - self._before_at if self._before_at else 0.0
        vitals.venues = _venues(samples, self._before, elapsed, now)
        vitals.stages = _stages(samples, self._before)
        self._before, self._before_at = samples, now
        return vitals

    def _process(self, pid: int) -> psutil.Process | None:
        """The process, the same object at every look: it knows how much time was used at the last one."""
        try:
            known = self._processes.get(pid)
            if known is None or not known.is_running():
                known = self._processes[pid] = psutil.Process(pid)
            return known
        except psutil.NoSuchProcess:
            return None


def _scrape(port: int) -> dict[tuple[str, Labels], float]:
    connection = HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.request("GET", "/metrics")
        return parse(connection.getresponse().read().decode())
    except (OSError, HTTPException, ValueError):
        return {}
    finally:
        connection.close()


def _values(samples: Samples, name: str, **labels: str) -> Iterator[float]:
    wanted = set(labels.items())
    return (value for have, value in samples.get(name, {}).items() if wanted <= set(have))


def _sum(samples: Samples, name: str, **labels: str) -> float:
    return sum(_values(samples, name, **labels))


def _venues(samples: Samples, before: Samples, elapsed: float, now: float) -> list[VenueVitals]:
    found = []
    for exchange in sorted({dict(labels)["exchange"] for labels in samples.get("k2_connected", {})}):
        trades = _sum(samples, "k2_trades_total", exchange=exchange)
        earlier = _sum(before, "k2_trades_total", exchange=exchange)
        found.append(
            VenueVitals(
                exchange=exchange,
                connected=_sum(samples, "k2_connected", exchange=exchange) > 0,
                rate=max(0.0, trades - earlier) / elapsed if elapsed else 0.0,
                trades=int(trades),
                last_trade=max(_values(samples, "k2_last_trade_timestamp_seconds", exchange=exchange), default=None),
                gaps_open=int(_sum(samples, "k2_gaps_open", exchange=exchange)),
                gaps_healed=int(_sum(samples, "k2_gaps_total", exchange=exchange, state="healed")),
                duplicates=int(_sum(samples, "k2_duplicates_total", exchange=exchange)),
                faults=int(_sum(samples, "k2_faults_total", exchange=exchange)),
                reconnects=int(_sum(samples, "k2_reconnects_total", exchange=exchange)),
                clock_offset=next(_values(samples, "k2_exchange_clock_offset_seconds", exchange=exchange), None),
                lag=int(_sum(samples, "k2_consumer_lag_records", consumer="loader", stream=trades_stream(exchange))),
            )
        )
    return found


def _stages(samples: Samples, before: Samples) -> dict[str, tuple[float, float]]:
    """Quantiles of each stage from the histogram buckets that grew since the last look (of all time at the first)."""
    counts: dict[str, dict[float, float]] = {}
    earlier = before.get("k2_stage_seconds_bucket", {})
    for labels, value in samples.get("k2_stage_seconds_bucket", {}).items():
        label = dict(labels)
        buckets = counts.setdefault(label["stage"], {})
        edge = float(label["le"])
        buckets[edge] = buckets.get(edge, 0.0) + value - earlier.get(labels, 0.0)
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
