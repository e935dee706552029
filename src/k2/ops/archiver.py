"""The resident archiver: offloads every so often, maintains once a day, each in a process that ends afterwards.

What moves data needs PyIceberg, a hundred and fifty megabytes; what waits needs neither. So this process only looks: it
compares the log with the watermarks of the cold tier, and starts a `k2 archive` when there is something to move.
"""

import logging
import subprocess
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from k2.config import EXCHANGES, Config, ConfigError
from k2.core.pacing import Backoff
from k2.log import Log, LogError
from k2.log.lag import measure
from k2.metrics import ARCHIVE_FAILURES, ARCHIVE_RUNS, ARCHIVE_SECONDS, ARCHIVE_SUCCESS, ARCHIVED, COLD_ROWS
from k2.ops.cold import maintained_file
from k2.ops.supervise import CHILD, last_words
from k2.tier import TierError
from k2.tier.heads import behind
from k2.tier.names import streams
from k2.wire import read_heads

logger = logging.getLogger("k2.archiver")

FIRST_AFTER_S = 60.0  # the platform starts first
RETRY_FIRST_S, RETRY_CAP_S = 5.0, 60.0  # storage that is back is used within a minute
LEAVE_WITHIN_S = 3.0
LOOK_EVERY_S = 30.0
OFFLOAD, MAINTENANCE = "offload", "maintenance"
COMMANDS = {OFFLOAD: ["archive", "--json"], MAINTENANCE: ["archive", "maintain", "--json"]}


def maintenance_due(at: str, last: float | None, now: float) -> bool:
    """Whether a maintenance is due: none has ended since the last time it was `at` (`HH:MM`, UTC). Epoch seconds."""
    hour, minute = map(int, at.split(":"))
    day = datetime.fromtimestamp(now, UTC)
    due = day.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if due > day:
        due -= timedelta(days=1)
    return last is None or last < due.timestamp()


class Resident:
    """Runs the two jobs when they are due, until `stop`. `program` is what a child's arguments are given to."""

    def __init__(self, config: Config, log: Log, stop: threading.Event, program: Sequence[str] = CHILD) -> None:
        self._config = config
        self._log = log
        self._stop = stop
        self._program = program
        self._began = time.time()
        self._not_before = dict.fromkeys(COMMANDS, time.monotonic() + min(config.tier.every_s, FIRST_AFTER_S))
        self._have: dict[str, int] = {}
        measure(log, "archiver", [name for names in streams(EXCHANGES).values() for name in names], lambda: self._have)
        for job in COMMANDS:
            ARCHIVE_FAILURES.labels(job).set(0)
            for outcome in ("ok", "error"):
                ARCHIVE_RUNS.labels(job, outcome)
        self._backoff = {job: Backoff(RETRY_FIRST_S, RETRY_CAP_S) for job in COMMANDS}

    def run(self) -> None:
        """Returns when told to stop; what fails is logged, counted and tried again."""
        self._measure_at_start()
        while not self._stop.is_set():
            if time.monotonic() >= self._not_before[OFFLOAD]:
                self._do(OFFLOAD, self._config.tier.every_s)
            if time.monotonic() >= self._not_before[MAINTENANCE] and self._maintenance_due():
                self._do(MAINTENANCE, LOOK_EVERY_S)
            self._stop.wait(min(LOOK_EVERY_S, max(0.1, self._not_before[OFFLOAD] - time.monotonic())))

    def _do(self, job: str, again_after: float) -> None:
        begun = time.monotonic()
        try:
            if job == MAINTENANCE or behind(self._log, read_heads(self._config), EXCHANGES):
                self._run_child(job)
            self._measure()
        except (TierError, LogError, ConfigError, OSError) as error:
            ARCHIVE_RUNS.labels(job, "error").inc()
            ARCHIVE_FAILURES.labels(job).inc()
            pause = self._backoff[job].next(0.5)
            logger.error("%s failed, trying again in %.0f s: %s", job, pause, error)
            self._not_before[job] = time.monotonic() + pause
            return
        ARCHIVE_RUNS.labels(job, "ok").inc()
        ARCHIVE_FAILURES.labels(job).set(0)
        ARCHIVE_SUCCESS.labels(job).set_to_current_time()
        ARCHIVE_SECONDS.labels(job).set(time.monotonic() - begun)
        self._backoff[job].reset()
        self._not_before[job] = begun + again_after

    def _maintenance_due(self) -> bool:
        """A cold tier that was never maintained is not behind until it is that time of day."""
        if not self._config.tier.maintain_at:
            return False
        try:
            last = maintained_file(self._config).stat().st_mtime
        except OSError:
            last = self._began
        return maintenance_due(self._config.tier.maintain_at, last, time.time())

    def _run_child(self, job: str) -> None:
        """One job in a process of its own. Raises TierError with its last words."""
        self._config.run_dir.mkdir(parents=True, exist_ok=True)
        errors = self._config.run_dir / f"{job}.err"
        with errors.open("wb") as sink:
            child = subprocess.Popen(
                [*self._program, *COMMANDS[job]],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, start_new_session=True,
            )  # fmt: skip
        with child:
            printed: list[bytes] = []
            reader = threading.Thread(target=lambda: printed.append(child.stdout.read()), daemon=True)  # type: ignore[union-attr]
            reader.start()
            while child.poll() is None:
                if self._stop.wait(0.2):
                    _end(child)
            reader.join()
        if self._stop.is_set():
            return
        if child.returncode:
            raise TierError(last_words(errors, 0) or f"`k2 {' '.join(COMMANDS[job])}` ended with {child.returncode}")
        if job == OFFLOAD:
            for table, written in msgspec.json.decode(printed[0])["tables"].items():
                ARCHIVED.labels(table).inc(written["rows"])

    def _measure_at_start(self) -> None:
        try:
            self._measure()
        except (TierError, LogError, ConfigError, OSError) as error:
            logger.warning("how far the cold tier is behind is known after the next offload: %s", error)

    def _measure(self) -> None:
        heads = read_heads(self._config)
        for table, head in heads.items():
            COLD_ROWS.labels(table).set(head.rows)
        for table, names in streams(EXCHANGES).items():
            for stream in names:
                if table in heads and stream in heads[table].offsets:
                    self._have[stream] = heads[table].offsets[stream]


def _end(child: subprocess.Popen[bytes]) -> None:
    """An offload ends after the slice that it is at; the next one goes on from there, also if this one is killed."""
    child.terminate()
    try:
        child.wait(LEAVE_WITHIN_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
