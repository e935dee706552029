"""What the supervisor measures for the whole platform: which services run and how they ended, which venues are to be
captured, and what the last audit and the last proof found. It also tells Prometheus where the processes are.
"""

import asyncio
import json
import logging
import signal
from collections import deque
from contextlib import suppress
from pathlib import Path

from prometheus_client import Gauge

from k2 import metrics
from k2.config import EXCHANGES, Config
from k2.ops import outcome
from k2.ops.supervise import Service, Supervisor
from k2.ops.targets import Targets
from k2.tier import verdict

LOOK_EVERY_S = 0.5
SERVICE = "supervisor"
EXIT, SIGNAL, OUT_OF_MEMORY = "exit", "signal", "out-of-memory"
_NO_MEMORY = ("MemoryError", "Cannot allocate memory", "bad_alloc", "Out of memory", "MEMORY_LIMIT_EXCEEDED")
_VMSTAT = Path("/proc/vmstat")

log = logging.getLogger("k2.supervise")


class Measures:
    """`keep` runs until cancelled. Serves the supervisor's own metrics."""

    def __init__(self, config: Config, supervisor: Supervisor) -> None:
        self._config = config
        self._supervisor = supervisor
        self._ports = {SERVICE: metrics.serve(config, SERVICE), **dict.fromkeys(supervisor.services, 0)}
        self._pids: dict[str, int] = {}
        self._targets = Targets(config)
        self._told = True
        self._killed_for_memory = deque([_killed_for_memory()], maxlen=3)  # the oldest is from before the last look
        for name in EXCHANGES:
            if f"feed-handler-{name}" in supervisor.services:
                metrics.VENUE_ENABLED.labels(name).set(1)
        for service in supervisor.services.values():
            self._measure(service)
        supervisor.on_end = self._ended

    def _measure(self, service: Service) -> None:
        metrics.SERVICE_UP.labels(service.name).set_function(lambda: float(service.state == "running"))
        for reason in (EXIT, SIGNAL, OUT_OF_MEMORY):
            metrics.RESTARTS.labels(service.name, reason)

    def _ended(self, service: Service, code: int, words: str) -> None:
        """A process ended by itself, and is started again."""
        for_memory = code == -signal.SIGKILL and _killed_for_memory() > self._killed_for_memory[0]
        metrics.RESTARTS.labels(service.name, OUT_OF_MEMORY if for_memory else ending(code, words)).inc()

    async def keep(self) -> None:
        """Look again and again."""
        while True:
            try:
                await asyncio.to_thread(self._look)
                self._told = True
            except OSError as error:
                if self._told:
                    log.warning("what Prometheus and the metrics of audits need cannot be kept up to date: %s", error)
                self._told = False
            await asyncio.sleep(LOOK_EVERY_S)

    def _look(self) -> None:
        self._killed_for_memory.append(_killed_for_memory())
        for service in self._supervisor.services.values():
            pid = service.pid
            if pid and service.state == "running" and self._pids.get(service.name) != pid:
                self._ports[service.name] = _port(self._config.run_dir / f"{service.name}.json")
                self._pids[service.name] = pid
        self._targets.update(self._ports)
        self._show_audits()
        self._show_proofs()

    def _show_audits(self) -> None:
        found = verdict.read(self._config.cold_dir)
        outdated = found.part and found.whole and found.part.at < found.whole.at
        for scope, one in (("whole", found.whole), ("part", None if outdated else found.part)):
            _show(metrics.AUDIT_OK, scope, one.ok if one else None)
            _show(metrics.AUDIT_TIME, scope, one.at / 1000 if one else None)
            _show(metrics.AUDIT_FINDINGS, scope, sum(one.findings.values()) if one else None)

    def _show_proofs(self) -> None:
        found = outcome.read(self._config.data_dir)
        for scope, one in (("whole", found.whole), ("part", found.part)):
            _show(metrics.VERIFY_OK, scope, one.ok if one else None)
            _show(metrics.VERIFY_TIME, scope, one.at if one else None)
            for exchange in one.missing if one else ():
                metrics.VERIFY_MISSING.labels(exchange).set(one.missing[exchange] if one else 0)
                metrics.VERIFY_DUPLICATES.labels(exchange).set(one.duplicates.get(exchange, 0) if one else 0)


def ending(code: int, words: str) -> str:
    """How a process ended, by its exit code (negative: the signal) and its last words."""
    if any(word in words for word in _NO_MEMORY):
        return OUT_OF_MEMORY
    return SIGNAL if code < 0 else EXIT


def _show(gauge: Gauge, scope: str, value: float | None) -> None:
    if value is not None:
        gauge.labels(scope).set(value)
    else:
        with suppress(KeyError):
            gauge.remove(scope)


def _port(file: Path) -> int:
    try:
        return int(json.loads(file.read_text())["metrics_port"])
    except (ValueError, KeyError, FileNotFoundError):
        return 0


def _killed_for_memory() -> int:
    """How many processes the kernel has ended on this machine because memory ran out; 0 where it does not say."""
    try:
        found = dict(line.split() for line in _VMSTAT.read_text().splitlines())
    except OSError:
        return 0
    return int(found.get("oom_kill", 0))
