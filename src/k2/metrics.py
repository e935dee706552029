"""Every metric's name, declared once; each process serves its own on loopback and leaves a status file in `run/`.

Counters are added to in batches, never a frame at a time, so that measuring costs nothing on the hot path.
"""

import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from k2 import __version__
from k2.config import Config

STAGE_BUCKETS = (
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.02,
    0.025,
    0.035,
    0.05,
    0.075,
    0.1,
    0.15,
    0.25,
    0.5,
    1,
    2.5,
    10,
)

BUILD_INFO = Gauge("k2_build_info", "Always 1; the labels say what runs.", ["version", "service"])
FRAMES = Counter("k2_frames_total", "Frames received.", ["exchange"])
FRAME_BYTES = Counter("k2_frame_bytes_total", "Bytes of frames received.", ["exchange"])
TRADES = Counter("k2_trades_total", "Trades written to the log.", ["exchange", "source"])
DUPLICATES = Counter("k2_duplicates_total", "Trades that arrived again and were left out.", ["exchange"])
FAULTS = Counter("k2_faults_total", "Frames or parts of frames that could not be understood.", ["exchange", "reason"])
REFUSALS = Counter("k2_subscription_refusals_total", "Symbols that the venue refused.", ["exchange"])
CONNECTED = Gauge("k2_connected", "Open WebSocket connections that answered their subscription.", ["exchange"])
RECONNECTS = Counter("k2_reconnects_total", "Dials after the first.", ["exchange", "reason"])
VENUE_ENABLED = Gauge("k2_venue_enabled", "1 for every venue that is to be captured.", ["exchange"])
LAST_FRAME = Gauge(
    "k2_last_frame_timestamp_seconds", "When anything at all last came from the venue's socket.", ["exchange"]
)
LAST_TRADE = Gauge(
    "k2_last_trade_timestamp_seconds", "Receive time of the symbol's newest trade.", ["exchange", "symbol"]
)
CLOCK_OFFSET = Gauge(
    "k2_exchange_clock_offset_seconds",
    "Median of receive time less exchange time; negative: our clock is behind.",
    ["exchange"],
)
GAPS_OPEN = Gauge("k2_gaps_open", "Gaps that are open.", ["exchange"])
GAPS = Counter("k2_gaps_total", "Gap ledger events.", ["exchange", "state"])
UNHEALABLE = Gauge(
    "k2_gaps_unhealable", "Open gaps that the venue was asked for twice or more and does not have.", ["exchange"]
)
MISSING = Gauge("k2_missing_trades", "Trade ids that are missing in open gaps.", ["exchange"])
LOST = Counter("k2_trades_lost_total", "Trade ids that were given up: the venue does not have them.", ["exchange"])
COMPLETENESS = Gauge(
    "k2_completeness_ratio", "Trades captured, of those that are known to exist since the capture began.", ["exchange"]
)
REST_REQUESTS = Counter(
    "k2_backfill_requests_total", "REST requests for missing trades, by outcome.", ["exchange", "outcome"]
)
QUEUE = Gauge("k2_queue_depth", "Items waiting in a bounded queue.", ["queue"])
QUEUE_BOUND = Gauge("k2_queue_bound", "How many items the queue holds at most.", ["queue"])
BACKPRESSURE = Counter(
    "k2_backpressure_total", "Times that the venue's socket was not read: the queue was full.", ["exchange"]
)
DROPS = Counter("k2_drops_total", "Records that were let go, by reason.", ["what", "reason"])
STAGE = Histogram(
    "k2_stage_seconds",
    "Latency of each stage on the way of a trade.",
    ["stage", "exchange"],
    buckets=STAGE_BUCKETS,
)
LOADED = Counter("k2_loaded_rows_total", "Rows written to the store.", ["table"])
LAG = Gauge("k2_consumer_lag_records", "Records that a consumer has yet to read.", ["consumer", "stream"])
LAG_SECONDS = Gauge(
    "k2_consumer_lag_seconds",
    "Age of the oldest record that a consumer has yet to read; 0: none.",
    ["consumer", "stream"],
)
CANDLE_DELAY = Gauge(
    "k2_candle_delay_seconds",
    "Age of the oldest trade in the log that the candles do not show yet; 0: none.",
    ["exchange"],
)
INSERT_FAILURES = Counter("k2_insert_failures_total", "Attempts to write to the store that failed.", ["reason"])
INSERT_FAILING = Gauge("k2_insert_failing_seconds", "How long writing to the store has failed by now; 0: it works.")
STORE_ERRORS = Counter("k2_store_errors_total", "Requests to the store that failed.", ["service"])
QUERIES = Counter("k2_store_queries_total", "Queries that the store answered.", ["kind", "outcome"])
ARCHIVED = Counter("k2_archived_rows_total", "Rows written to the cold tier.", ["table"])
ARCHIVE_RUNS = Counter("k2_archive_runs_total", "Offloads and maintenance runs, by outcome.", ["job", "outcome"])
ARCHIVE_SUCCESS = Gauge(
    "k2_archive_last_success_timestamp_seconds", "When the job last ended well, also with nothing to do.", ["job"]
)
ARCHIVE_SECONDS = Gauge("k2_archive_last_run_seconds", "How long the job's last run took.", ["job"])
ARCHIVE_FAILURES = Gauge("k2_archive_failures_in_a_row", "Runs of the job that failed since one ended well.", ["job"])
AUDIT_OK = Gauge("k2_audit_ok", "1 if the last audit of the cold tier found no difference, else 0.", ["scope"])
AUDIT_TIME = Gauge("k2_audit_timestamp_seconds", "When the last audit of the cold tier ended.", ["scope"])
AUDIT_FINDINGS = Gauge("k2_audit_findings", "What the last audit of the cold tier found wrong.", ["scope"])
VERIFY_OK = Gauge("k2_verify_ok", "1 if the last `k2 verify` proved all that it was asked, else 0.", ["scope"])
VERIFY_TIME = Gauge("k2_verify_timestamp_seconds", "When the last `k2 verify` ended.", ["scope"])
VERIFY_MISSING = Gauge(
    "k2_verify_missing_trades", "Trades that the last `k2 verify` missed and no gap explains.", ["exchange"]
)
VERIFY_DUPLICATES = Gauge("k2_verify_duplicate_trades", "Trades that the last `k2 verify` found twice.", ["exchange"])
COLD_ROWS = Gauge("k2_cold_rows", "Rows in a cold table.", ["table"])
WEB_REQUESTS = Counter("k2_web_requests_total", "Requests that the API answered.", ["route", "status"])
WEB_SECONDS = Histogram(
    "k2_web_request_seconds", "Time from a request to the end of its answer.", ["route"], buckets=STAGE_BUCKETS
)
WEB_BYTES = Counter("k2_web_response_bytes_total", "Bytes of answers, as sent.", ["route"])
SUBSCRIBERS = Gauge("k2_stream_subscribers", "Live streams that are open.", ["transport"])
STREAM_RECORDS = Counter("k2_stream_records_total", "Records sent to subscribers.", ["channel"])
STREAM_SLOW = Counter("k2_stream_slow_total", "Times that a subscriber was too slow, by what was done.", ["policy"])
SERVICE_UP = Gauge("k2_service_up", "1 while the supervised process runs and has said that it is ready.", ["service"])
RESTARTS = Counter(
    "k2_service_restarts_total", "Times that a process was started again, by how it ended.", ["service", "reason"]
)
DISK_FREE = Gauge("k2_disk_free_bytes", "Free space where the data folder lies.")
DISK_SIZE = Gauge("k2_disk_size_bytes", "Size of the file system where the data folder lies.")
SIM_TRADES = Counter("k2_sim_trades_total", "Trades that the simulator made.", ["exchange"])
SIM_FAULTS = Counter("k2_sim_faults_total", "Faults that the simulator played.", ["exchange", "fault"])


def observe_many(histogram: Histogram, counts: Sequence[int], total: float) -> None:
    """Add many observations at once to a histogram without labels left: `counts[i]` fell into bucket i (the last one is
    +Inf), `total` is the sum of their values."""
    if any(counts):
        histogram._sum.inc(total)
        for bucket, count in zip(histogram._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


def serve(config: Config, service: str, **more: str) -> int:
    """Serve this process's metrics, write `run/<service>.json`, which says `more` as well (such as the address where
    the service answers). Returns the port: as configured, else a free one."""
    BUILD_INFO.labels(__version__, service).set(1)
    _watch_disk(config.data_dir)
    offset = SERVICES.index(service) if service in SERVICES else len(SERVICES)
    wanted = config.metrics.port + offset if config.metrics.port else 0
    try:
        server, _ = start_http_server(wanted, config.metrics.host)
    except OSError:
        server, _ = start_http_server(0, config.metrics.host)
    port = int(server.server_port)
    write_status(config, service, port, **more)
    return port


def _watch_disk(folder: Path) -> None:
    """Measured when somebody asks. A folder that is gone measures NaN: the page is served all the same."""

    def measure(field: str) -> float:
        try:
            return float(getattr(shutil.disk_usage(folder), field))
        except OSError:
            return float("nan")

    DISK_FREE.set_function(lambda: measure("free"))
    DISK_SIZE.set_function(lambda: measure("total"))


SERVICES = (
    "feed-handler-binance",
    "feed-handler-coinbase",
    "feed-handler-kraken",
    "loader",
    "store",
    "sim",
    "supervisor",
    "archiver",
    "web",
)


def write_status(config: Config, service: str, port: int, **more: str) -> None:
    """Leave word of this process: pid, metrics port, start time, and what else others should know."""
    config.run_dir.mkdir(parents=True, exist_ok=True)
    file = config.run_dir / f"{service}.json"
    part = file.with_suffix(f".{os.getpid()}.part")
    pid = os.getpid()
    word = {"service": service, "pid": pid, "born": _born(pid), "metrics_port": port, "started": time.time()}
    part.write_text(json.dumps({**word, **more}))
    part.replace(file)


def _born(pid: int) -> float:
    """What tells a process from an earlier one of the same pid. On Linux that is when it was started in ticks since the
    machine was, which no step of the clock changes: times of day would make the living look dead. Raises OSError."""
    try:
        return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except FileNotFoundError:
        import psutil

        return float(psutil.Process(pid).create_time())


def read_status(run_dir: Path) -> dict[str, dict[str, float | int | str]]:
    """Every service's word, by name; of processes that live."""
    import psutil

    found = {}
    for file in sorted(run_dir.glob("*.json")):
        with suppress(ValueError, OSError, KeyError, psutil.Error):
            word = json.loads(file.read_text())
            if psutil.Process(word["pid"]).status() == psutil.STATUS_ZOMBIE or _born(word["pid"]) != word["born"]:
                continue  # dead, or its pid has gone to another process since
            found[str(word["service"])] = word
    return found


def parse(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """A metrics page of ours as {(sample name, sorted labels): value}. Raises ValueError."""
    found = {}
    for line in text.splitlines():
        if line and line[0] != "#":
            series, _, value = line.rpartition(" ")
            found[_series(series)] = float(value)
    return found


@lru_cache(maxsize=16384)
def _series(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A sample's name and sorted labels. Remembered: from one page to the next only values change."""
    ((sample,),) = [family.samples for family in text_string_to_metric_families(f"{text} 0")]
    return sample.name, tuple(sorted(sample.labels.items()))
