"""Start the platform's processes in order, restart what dies, and stop them all without losing anything."""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from k2.core.pacing import Backoff

log = logging.getLogger("k2.supervise")

READY_WITHIN = 30.0
STEADY_AFTER = 30.0
STOP_WITHIN = 4.5


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
    """Runs services until `stop`. A child's standard error goes to `run/<service>.err`, its log to its `.log`."""

    def __init__(self, services: Sequence[Service], run_dir: Path, environ: Mapping[str, str]) -> None:
        self.services = {service.name: service for service in services}
        self.run_dir = run_dir
        self.environ = {**os.environ, **environ}
        self.stopping = False
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
        backoff = Backoff(0.2, 10.0)
        while not self.stopping:
            began = time.monotonic()
            code = await self._run(service)
            if self.stopping:
                break
            if time.monotonic() - began > STEADY_AFTER:
                backoff.reset()
            service.restarts += 1
            service.state = "restarting"
            pause = backoff.next(0.5)
            log.error(
                "process ended", extra={"process": service.name, "exit_code": code, "restart_in_s": round(pause, 2)}
            )
            await asyncio.sleep(pause)
        service.state = "stopped"

    async def _run(self, service: Service) -> int:
        service.state = "starting"
        service.started = time.time()
        with (self.run_dir / f"{service.name}.err").open("ab") as errors:
            service.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "k2.ops.child", *service.arguments,
                stdin=asyncio.subprocess.PIPE, stdout=errors, stderr=errors, env=self.environ, start_new_session=True,
            )  # fmt: skip
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
        """SIGTERM in stop order, each group after the one before; SIGKILL for what outlives 4.5 s in all. Returns the
        names of those that had to be killed."""
        self.stopping = True
        deadline = time.monotonic() + STOP_WITHIN
        killed: list[str] = []
        for order in sorted({service.stop_order for service in self.services.values()}):
            group = [s for s in self.services.values() if s.stop_order == order and s.pid]
            for service in group:
                service.state = "stopping"
                service.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
            for service in group:
                if not await self._ended(service, deadline):
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
