"""What a running platform says of itself: every process's metrics and resources, gathered into one picture."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
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
ENDLESS = ("/stream", "/replay")  # routes whose answers last as long as their readers like


@dataclass
class ProcessVitals:
    """`cpu` in percent of one core since the last look; `memory` is resident bytes; `up` in seconds.

    `queue`: what waits in the process's bounded queues. `restarts`: by the supervisor, None where none runs.
    """

    service: str
    pid: int
    up: float
    cpu: float
    memory: int
    answers: bool
    queue: int = 0
    restarts: int | None = None


@dataclass
class VenueVitals:
    """One exchange; `rate` in trades a second since the last look, `last_trade` as ns-free epoch seconds or None.

    `stages` are its own: stage -> (p50, p99) in seconds since the last look; `rates`: stage -> trades a second.
    """

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
    stages: dict[str, tuple[float, float]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)


@dataclass
class JobVitals:
    """A job of the archiver. `last_success` in epoch seconds, `seconds` is how long that run took; None: not yet."""

    ok: int
    failed: int
    last_success: float | None
    seconds: float | None


@dataclass
class ServingVitals:
    """What store and web answer: rates are a second since the last look, `p50` and `p99` in seconds, None: no request.

    Live streams and replays, which last as long as their readers like, are not among the requests.
    """

    queries: float = 0.0
    queries_failed: float = 0.0
    requests: float = 0.0
    subscribers: int = 0
    p50: float | None = None
    p99: float | None = None


@dataclass
class Vitals:
    """A look at the whole platform. `stages`: stage -> (p50, p99) in seconds since the last look.

    `span` is the time since that look, 0 at the first one, which can tell no rates. `rates`: stage -> trades a second
    that went through it; `lags`: consumer -> stream -> records; `jobs`: the archiver's, by name. `restarts`: service ->
    how often the supervisor started it again, also of those that do not run now; empty where no supervisor answers.
    """

    at: float
    span: float = 0.0
    processes: list[ProcessVitals] = field(default_factory=list)
    venues: list[VenueVitals] = field(default_factory=list)
    stages: dict[str, tuple[float, float]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    lags: dict[str, dict[str, int]] = field(default_factory=dict)
    jobs: dict[str, JobVitals] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    serving: ServingVitals = field(default_factory=ServingVitals)

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
                if name.startswith("k2_") and not math.isnan(value):  # what could not be measured just now
                    samples.setdefault(name, {})[labels] = value
            with suppress(psutil.NoSuchProcess), process.oneshot():
                up, cpu, memory = now - float(word["started"]), process.cpu_percent(), process.memory_info().rss
                queue = int(sum(value for (name, _), value in page.items() if name == "k2_queue_depth"))
                vitals.processes.append(ProcessVitals(service, process.pid, up, cpu, memory, bool(page), queue))
        elapsed = now - self._before_at if self._before_at else 0.0
        vitals.venues = _venues(samples, self._before, elapsed, now)
        vitals.stages = _stages(samples, self._before)
        vitals.span = elapsed
        vitals.rates = _stage_rates(samples, self._before, elapsed)
        vitals.lags = _lags(samples)
        vitals.jobs = _jobs(samples)
        vitals.restarts = _restarts(samples)
        for one in vitals.processes:
            one.restarts = vitals.restarts.get(one.service)
        vitals.serving = _serving(samples, self._before, elapsed)
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
                stages=_stages(samples, before, exchange),
                rates=_stage_rates(samples, before, elapsed, exchange),
            )
        )
    return found


def _stages(samples: Samples, before: Samples, exchange: str = "") -> dict[str, tuple[float, float]]:
    """Quantiles of each stage (of one exchange) from the histogram buckets that grew since the last look (of all time
    at the first)."""
    counts: dict[str, dict[float, float]] = {}
    for labels, grown in _grown(samples, before, "k2_stage_seconds_bucket"):
        if exchange in ("", labels["exchange"]):
            _add(counts.setdefault(labels["stage"], {}), labels, grown)
    return {
        stage: (quantile(buckets, 0.5), quantile(buckets, 0.99))
        for stage, buckets in counts.items()
        if max(buckets.values())
    }


def _grown(samples: Samples, before: Samples, name: str) -> Iterator[tuple[dict[str, str], float]]:
    earlier = before.get(name, {})
    return ((dict(labels), value - earlier.get(labels, 0.0)) for labels, value in samples.get(name, {}).items())


def _add(buckets: dict[float, float], labels: Mapping[str, str], count: float) -> None:
    edge = float(labels["le"])
    buckets[edge] = buckets.get(edge, 0.0) + count


def _stage_rates(samples: Samples, before: Samples, elapsed: float, exchange: str = "") -> dict[str, float]:
    rates: dict[str, float] = {}
    for labels, grown in _grown(samples, before, "k2_stage_seconds_count"):
        if exchange not in ("", labels["exchange"]):
            continue
        rates[labels["stage"]] = rates.get(labels["stage"], 0.0) + (max(0.0, grown) / elapsed if elapsed else 0.0)
    return rates


def _lags(samples: Samples) -> dict[str, dict[str, int]]:
    lags: dict[str, dict[str, int]] = {}
    for labels, value in samples.get("k2_consumer_lag_records", {}).items():
        label = dict(labels)
        lags.setdefault(label["consumer"], {})[label["stream"]] = int(value)
    return lags


def _restarts(samples: Samples) -> dict[str, int]:
    found: dict[str, int] = {}
    for labels, value in samples.get("k2_service_restarts_total", {}).items():
        service = dict(labels)["service"]
        found[service] = found.get(service, 0) + int(value)
    return found


def _jobs(samples: Samples) -> dict[str, JobVitals]:
    return {
        job: JobVitals(
            ok=int(_sum(samples, "k2_archive_runs_total", job=job, outcome="ok")),
            failed=int(_sum(samples, "k2_archive_runs_total", job=job, outcome="error")),
            last_success=next(_values(samples, "k2_archive_last_success_timestamp_seconds", job=job), None),
            seconds=next(_values(samples, "k2_archive_last_run_seconds", job=job), None),
        )
        for job in sorted({dict(labels)["job"] for labels in samples.get("k2_archive_runs_total", {})})
    }


def _serving(samples: Samples, before: Samples, elapsed: float) -> ServingVitals:
    def rate(name: str, wanted: Callable[[Mapping[str, str]], bool] = lambda _: True) -> float:
        grown = sum(grown for labels, grown in _grown(samples, before, name) if wanted(labels))
        return max(0.0, grown) / elapsed if elapsed else 0.0

    buckets: dict[float, float] = {}
    for labels, grown in _grown(samples, before, "k2_web_request_seconds_bucket"):
        if not labels["route"].endswith(ENDLESS):
            _add(buckets, labels, grown)
    known = any(buckets.values())
    return ServingVitals(
        queries=rate("k2_store_queries_total"),
        queries_failed=rate("k2_store_queries_total", lambda labels: labels["outcome"] not in ("ok", "cancelled")),
        requests=rate("k2_web_requests_total"),
        subscribers=int(_sum(samples, "k2_stream_subscribers")),
        p50=quantile(buckets, 0.5) if known else None,
        p99=quantile(buckets, 0.99) if known else None,
    )


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
        "span_s": vitals.span,
        "memory_bytes": vitals.memory,
        "cpu_percent": round(vitals.cpu, 1),
        "processes": [vars(process) for process in vitals.processes],
        "venues": [
            {**{k: v for k, v in vars(venue).items() if k != "rates"}, "stages": _plain(venue.stages, venue.rates)}
            for venue in vitals.venues
        ],
        "stages": _plain(vitals.stages, vitals.rates),
        "lags": vitals.lags,
        "restarts": vitals.restarts,
        "jobs": {name: vars(job) for name, job in vitals.jobs.items()},
        "serving": vars(vitals.serving),
    }


def _plain(stages: Mapping[str, tuple[float, float]], rates: Mapping[str, float]) -> dict[str, dict[str, float]]:
    return {
        stage: {"p50_s": p50, "p99_s": p99, **({"rate": rates[stage]} if stage in rates else {})}
        for stage, (p50, p99) in stages.items()
    }
