"""Start the platform's processes in order, restart what dies, and stop them all without losing anything."""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from k2.core.pacing import Backoff

log = logging.getLogger("k2.supervise")

READY_WITHIN = 30.0
STEADY_AFTER = 30.0
PAUSES = (0.2, 3.0)  # s, first and longest before a start: what made it die may be over, and then it is to be back soon
STOP_WITHIN = 4.5
TURN_KEPT = 0.5
ERRORS_KEPT = 1 << 20
CHILD = (sys.executable, "-m", "k2.child")


@dataclass
class Service:
    """One process: `arguments` follow `k2`; it is ready when it has left its status file; `after` names what must be
    ready before it starts. `stop_order`: lower ones are stopped first."""

    name: str
    arguments: Sequence[str]
    after: Sequence[str] = ()
    stop_order: int = 0
    restarts: int = 0
    state: str = "waiting"
    started: float = 0.0
    process: asyncio.subprocess.Process | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.process.returncode is None else None


class Supervisor:
    """Runs services until `stop`. A child's standard error goes to `run/<service>.err`, its log to its `.log`.

    `say` tells the person what ended and why; `on_end` is called with a service that ended by itself, its exit code and
    last words; `program` is what a service's arguments are given to.
    """

    def __init__(
        self,
        services: Sequence[Service],
        run_dir: Path,
        environ: Mapping[str, str],
        say: Callable[[str], None],
        program: Sequence[str] = CHILD,
    ) -> None:
        self.services = {service.name: service for service in services}
        self.say = say
        self.program = program
        self.run_dir = run_dir
        self.environ = {**os.environ, **environ}
        self.on_end: Callable[[Service, int, str], None] = lambda service, code, words: None
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; returns at once. Services whose dependencies are ready start, the others wait for theirs."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._tasks = [
            asyncio.create_task(self._keep(service), name=service.name) for service in self.services.values()
        ]

    async def wait_ready(self) -> None:
        """Until every service has been ready once. Raises TimeoutError that names those that are not."""
        try:
            async with asyncio.timeout(READY_WITHIN):
                for service in self.services.values():
                    await service.ready.wait()
        except TimeoutError:
            late = ", ".join(s.name for s in self.services.values() if not s.ready.is_set())
            raise TimeoutError(
                f"not ready within {READY_WITHIN:.0f} s: {late}; see {self.run_dir}/<service>.err"
            ) from None

    async def _keep(self, service: Service) -> None:
        for name in service.after:
            await self.services[name].ready.wait()
        backoff = Backoff(*PAUSES)
        while not self._stopping.is_set():
            began, began_at = time.monotonic(), time.time()
            code = await self._run(service)
            if self._stopping.is_set():
                break
            if time.monotonic() - began > STEADY_AFTER:
                backoff.reset()
            service.restarts += 1
            service.state = "restarting"
            pause = backoff.next(0.5)
            words = last_words(self.run_dir / f"{service.name}.err", began_at) if code > 0 else ""
            self.on_end(service, code, words)
            log.error(
                "process ended",
                extra={
                    "child": service.name,
                    "exit_code": code,
                    "last_words": words,
                    "restart_in_s": round(pause, 2),
                },
            )
            self.say(
                f"{service.name} ended ({_how(code)}), starting it again in {pause:.1f} s" + (words and f": {words}")
            )
            await asyncio.sleep(pause)
        service.state = "stopped"

    async def _run(self, service: Service) -> int:
        service.state = "starting"
        service.started = time.time()
        file = self.run_dir / f"{service.name}.err"
        if file.exists() and file.stat().st_size > ERRORS_KEPT:
            file.replace(file.with_suffix(".err.1"))
        with file.open("ab") as errors:
            service.process = await asyncio.create_subprocess_exec(
                *self.program, *service.arguments,
                stdin=asyncio.subprocess.PIPE, stdout=errors, stderr=errors, env=self.environ, start_new_session=True,
            )  # fmt: skip
        if self._stopping.is_set():  # the order to stop came while it was being started, and missed it
            service.process.kill()
        ready = asyncio.create_task(self._watch_ready(service))
        try:
            return await service.process.wait()
        finally:
            ready.cancel()

    async def _watch_ready(self, service: Service) -> None:
        file = self.run_dir / f"{service.name}.json"
        while True:
            try:
                word = json.loads(file.read_text())
            except (OSError, ValueError):
                word = {}
            if service.pid and word.get("pid") == service.pid:
                service.state = "running"
                service.ready.set()
                return
            await asyncio.sleep(0.03)

    async def stop(self) -> list[str]:
        """SIGTERM in stop order, each group after the one before; SIGKILL for what outlives 4.5 s in all, or leaves a
        group after it less than half a second. Returns the names of those that had to be killed."""
        self._stopping.set()
        deadline = time.monotonic() + STOP_WITHIN
        killed: list[str] = []
        orders = sorted({service.stop_order for service in self.services.values()})
        for after, order in zip(range(len(orders) - 1, -1, -1), orders, strict=True):
            group = [s for s in self.services.values() if s.stop_order == order and s.pid]
            for service in group:
                service.state = "stopping"
                service.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
            for service in group:
                if not await self._ended(service, deadline - after * TURN_KEPT):
                    killed.append(service.name)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return killed

    async def _ended(self, service: Service, deadline: float) -> bool:
        assert service.process is not None
        try:
            await asyncio.wait_for(service.process.wait(), max(0.1, deadline - time.monotonic()))
        except TimeoutError:
            service.process.kill()
            await service.process.wait()
            return False
        return True


def last_words(file: Path, since: float) -> str:
    """The last line that a process wrote to its standard error, if it wrote at all since that time."""
    try:
        with file.open("rb") as errors:
            if os.fstat(errors.fileno()).st_mtime < since:
                return ""
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4096))
            lines = errors.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
