"""What an operator can see of a failure, and when: looked at some times a second, as a monitor would.

A signal has a name:

    down:<service>          no process of this service lives
    silent:<service>        its metrics page does not answer within a second
    supervisor:<service>    the supervisor's log says that it ended
    readyz:<what>           `/readyz` says so: `venue:<exchange>`, `loader`, `store`, `log`; `web` if nobody answers
    ledger:<exchange>       the gap ledger has a new open gap
    metric:<name>{<label>}  a counter of trouble went up, or a gauge crossed its line (`COUNTERS`, `GAUGES`)

What merely is so at one look (down, silent, readyz, gauges) stands in `timeline` as wrong until it ends; `health` has
of it what counts against recovery: processes that are down or silent.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple

from k2.config import Config
from k2.core.codec import GAPS_STREAM, decode_gap
from k2.log import Log, LogError
from k2.metrics import parse, read_status
from k2.ops.drill.timeline import Timeline

LOOK_EVERY_S = 0.25
READY_EVERY_S = 0.6
COUNTERS = {  # metric -> the label that names what is concerned
    "k2_reconnects_total": "exchange",
    "k2_faults_total": "exchange",
    "k2_subscription_refusals_total": "exchange",
    "k2_store_errors_total": "service",
}
OUTCOMES = {"k2_backfill_requests_total": "exchange", "k2_archive_runs_total": "job"}  # trouble unless outcome is ok
STALE_TRADE_S = 3.0
CLOCK_OFF_S = 0.75
LAGGING = 1_000  # records
GAUGES: dict[str, tuple[str, Callable[[float, float], bool]]] = {  # metric -> label, and (value, now) -> trouble
    "k2_connected": ("exchange", lambda value, _: value < 1),
    "k2_gaps_open": ("exchange", lambda value, _: value > 0),
    "k2_exchange_clock_offset_seconds": ("exchange", lambda value, _: abs(value) > CLOCK_OFF_S),
}
AGED, LAG = "k2_last_trade_timestamp_seconds", "k2_consumer_lag_records"

Page = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


class Signal(NamedTuple):
    """`at` in monotonic seconds."""

    at: float
    name: str
    detail: str


class Signals(threading.Thread):
    """Looks until `end` is called."""

    def __init__(self, config: Config, services: tuple[str, ...], log: Log) -> None:
        super().__init__(name="signals", daemon=True)
        self.timeline, self.health = Timeline(), Timeline()
        self.config, self.services = config, services
        self._log: Log | None = log
        self._own: Log | None = None
        self._lock = threading.Lock()
        self._seen: list[Signal] = []
        self._over = threading.Event()
        self._counts: dict[str, float] = {}
        self._ledger_at = log.bounds(GAPS_STREAM)[1]
        self._told = 0
        self._ready: dict[str, str] = {}
        self._ready_at = 0.0
        self._askers = ThreadPoolExecutor(len(services) + 1, "ask")

    def first(self, since: float, patterns: tuple[str, ...]) -> Signal | None:
        """The first signal from that time on that matches one of the patterns."""
        with self._lock:
            return next(
                (s for s in self._seen if s.at >= since and any(fnmatch(s.name, one) for one in patterns)), None
            )

    def since(self, at: float) -> list[Signal]:
        """All signals from that time on."""
        with self._lock:
            return [signal for signal in self._seen if signal.at >= at]

    def run(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            self.look()

    def end(self) -> None:
        self._over.set()
        if self.is_alive():
            self.join(5.0)
        if self._own is not None:
            self._own.close()
        self._askers.shutdown(wait=False, cancel_futures=True)

    def look(self) -> None:
        """One look at everything."""
        began = time.monotonic()
        ready = None
        if began - self._ready_at >= READY_EVERY_S:
            self._ready_at = began
            ready = self._askers.submit(self._readyz)
        words = read_status(self.config.run_dir)
        wrong = {f"down:{name}": "no such process" for name in self.services if name not in words}
        for name, detail in [*self._supervised(), *self._ledger()]:
            self._tell(name, detail)
        living = [name for name in self.services if name in words]
        for name in wrong.keys() - self.timeline.wrong().keys():
            self._tell(name, wrong[name])
        pages = self._askers.map(lambda service: scrape(int(words[service]["metrics_port"])), living)
        for name, page in zip(living, pages, strict=True):
            if page is None:
                wrong[f"silent:{name}"] = "its metrics page does not answer"
            else:
                wrong |= self._judge(name, page)
        if ready is not None:
            self._ready = ready.result()
        wrong |= self._ready
        now = time.monotonic()
        self.health.note(now, {name: why for name, why in wrong.items() if name.startswith(("down:", "silent:"))})
        for name in self.timeline.note(now, wrong):
            if not name.startswith("down:"):
                self._tell(name, wrong[name])

    def let_go(self) -> None:
        """Close the log: its disk is about to go. `follow` takes it up again."""
        with self._lock:
            log, self._log = self._log, None
        if log is not None:
            log.close()

    def follow(self, log: Log) -> None:
        """Read the ledger from this log, which is ours to close, from now on."""
        with self._lock:
            self._log = self._own = log

    def tell(self, name: str, detail: str) -> None:
        """A signal that the drill itself has seen, such as what a client of the platform notices."""
        self._tell(name, detail)

    def _tell(self, name: str, detail: str) -> None:
        with self._lock:
            self._seen.append(Signal(time.monotonic(), name, detail))

    def _judge(self, service: str, page: Page) -> dict[str, str]:
        """What a metrics page says that must not be; counters that went up are told at once."""
        now = time.time()
        wrong: dict[str, str] = {}
        newest: dict[str, float] = {}
        for (metric, pairs), value in page.items():
            labels = dict(pairs)
            if metric in COUNTERS or (metric in OUTCOMES and labels.get("outcome") != "ok"):
                self._count(
                    f"{metric}{{{labels.get(COUNTERS.get(metric) or OUTCOMES[metric], '')}}}", service, pairs, value
                )
            elif metric in GAUGES and GAUGES[metric][1](value, now):
                wrong[f"metric:{metric}{{{labels[GAUGES[metric][0]]}}}"] = f"{value:g}"
            elif metric == AGED:
                newest[labels["exchange"]] = max(value, newest.get(labels["exchange"], 0.0))
            elif metric == LAG and value > LAGGING and labels["consumer"] == "loader":
                wrong[f"metric:{metric}{{{labels['stream']}}}"] = f"{value:.0f} records"
        for exchange, at in newest.items():
            if now - at > STALE_TRADE_S:
                wrong[f"metric:{AGED}{{{exchange}}}"] = f"{now - at:.1f} s ago"
        return wrong

    def _count(self, name: str, service: str, pairs: tuple[tuple[str, str], ...], value: float) -> None:
        key = f"{service} {name} {pairs}"
        before = self._counts.get(key)
        self._counts[key] = value
        # A counter that is seen for the first time may have grown before; a process that began anew counts from zero.
        if value > (before or 0.0) and (before is not None or self.timeline.looks > 0):
            self._tell(f"metric:{name}", f"{before or 0:g} to {value:g}")

    def _supervised(self) -> Iterator[tuple[str, str]]:
        """What the supervisor wrote about ended processes since the last look."""
        file = self.config.run_dir / "supervisor.log"
        try:
            with file.open("rb") as lines:
                lines.seek(self._told)
                text = lines.read()
        except OSError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._told += len(whole)
        for line in whole.splitlines():
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if "child" in said:
                yield f"supervisor:{said['child']}", f"exit code {said.get('exit_code')}"

    def _ledger(self) -> Iterator[tuple[str, str]]:
        with self._lock:
            try:
                batches = self._log.read(GAPS_STREAM, self._ledger_at) if self._log is not None else []
            except LogError:
                return
        for batch in batches:
            self._ledger_at = batch.end
            for gap in map(decode_gap, batch.values):
                if gap.state == "open":
                    yield f"ledger:{gap.exchange}", f"{gap.symbol} {gap.first_id}..{gap.last_id}"

    def _readyz(self) -> dict[str, str]:
        """What `/readyz` says is not as it must be."""
        if "web" not in self.services:
            return {}
        status, body = ask(self.config.web.host, self.config.web.port, "/readyz", 3.0)
        if status == 200:
            return {}
        try:
            return {f"readyz:{one['name']}": one["detail"] for one in json.loads(body)["checks"] if not one["ok"]}
        except (ValueError, KeyError, TypeError):
            return {"readyz:web": f"no answer (HTTP status {status})" if status else "no answer"}


def ask(host: str, port: int, path: str, within: float) -> tuple[int, bytes]:
    """A GET on a loopback port: status and body; (0, b"") if nobody answers in time."""
    connection = HTTPConnection(host, port, timeout=within)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, HTTPException):
        return 0, b""
    finally:
        connection.close()


def scrape(port: int) -> Page | None:
    """A process's metrics; None if they do not answer."""
    status, body = ask("127.0.0.1", port, "/metrics", 1.0)
    try:
        return parse(body.decode()) if status == 200 else None
    except ValueError:
        return None
