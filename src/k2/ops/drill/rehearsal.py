"""The platform that drills break: `k2 up` with every service, and a simulator that plays the exchanges."""

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError
from urllib.request import Request, urlopen

import msgspec
import psutil

from k2.config import EXCHANGES, Config
from k2.metrics import read_status
from k2.ops import platform
from k2.ops.bench.lab import Lab, LabError, Process, environment
from k2.ops.drill import DrillError

READY_WITHIN = 120.0
SUPERVISOR, SIM = "supervisor", "sim"
OFFLOAD_S = 12.0  # alerts of its lag, times divided, allow half a minute


@dataclass
class Setup:
    """How the platform will be, for a drill's `prepare` to change before it is started.

    `config` is the platform's, `exchange` the simulator's (another data folder). `environ` is added to the environment
    of `k2 up` and so of all its services. `under` is put before the command of `k2 up`, as in `["ip", "netns", "exec",
    NAME]`; it must become that command (exec), or hand its standard input on. `cleanup` is unwound when all has ended,
    also after a failure.
    """

    folder: Path
    config: Config
    exchange: Config
    environ: dict[str, str] = field(default_factory=dict)
    under: list[str] = field(default_factory=list)
    exchange_under: list[str] = field(default_factory=list)
    cleanup: ExitStack = field(default_factory=ExitStack)

    def change(self, **sections: Mapping[str, Any]) -> None:
        """Change settings of the platform, as in `change(tier={"every_s": 3})`."""
        self.config = changed(self.config, **sections)


def changed(config: Config, **sections: Mapping[str, Any]) -> Config:
    """A configuration with other values in some sections."""
    tree = {name: msgspec.structs.replace(getattr(config, name), **values) for name, values in sections.items()}
    return msgspec.structs.replace(config, **tree)


def at_simulator(config: Config, ws_port: int, rest_port: int) -> Config:
    """The configuration with its exchanges at these loopback ports."""
    asked = changed(config, sim={"ws_port": ws_port, "rest_port": rest_port})
    urls = platform.demo_environment(asked)
    found = {
        name: msgspec.structs.replace(
            config.exchange(name),
            ws_url=urls[f"K2_EXCHANGES_{name.upper()}_WS_URL"],
            rest_url=urls[f"K2_EXCHANGES_{name.upper()}_REST_URL"],
            enabled=True,
        )
        for name in EXCHANGES
    }
    return msgspec.structs.replace(config, exchanges=msgspec.structs.replace(config.exchanges, **found))


def setup(lab: Lab, name: str, rate: float) -> Setup:
    """A platform in the lab as drills have it unless they change it: K2's own settings, free ports, offloads soon."""
    exchange = lab.config(f"{name}/exchange", sim={"rate": rate})
    config = lab.config(f"{name}/platform", tier={"every_s": OFFLOAD_S})
    config = at_simulator(config, exchange.sim.ws_port, exchange.sim.rest_port)
    return Setup(lab.folder / name, config, exchange)


class Rehearsal:
    """A running platform. Use it as a context manager; processes are named as services, and `supervisor` and `sim`."""

    def __init__(self, lab: Lab, made: Setup) -> None:
        self.lab, self.setup = lab, made
        self.config, self.exchange = made.config, made.exchange
        self.services = tuple(service.name for service in platform.live(self.config))
        self.exchanges = tuple(name for name in EXCHANGES if self.config.exchange(name).enabled)
        self.environ = {**environment(self.config), **made.environ}
        self.supervisor: Process | None = None
        self.sim: Process | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all; returns when every symbol is subscribed and trades flow. Raises LabError."""
        self.start_sim("--paused")
        self.up()
        self.wait("every service to be ready", lambda: set(self.services) <= self.pids().keys(), READY_WITHIN)
        self.wait("every symbol to be subscribed", self.subscribed, READY_WITHIN)
        self.control("resume", {})

    def start_sim(self, *arguments: str) -> None:
        """Start the simulator; it goes on where its truth ends."""
        self.sim = self.lab.run(
            SIM, ["-m", "k2.child", "sim", *arguments], environment(self.exchange), self.exchange.run_dir,
            under=self.setup.exchange_under,
        )  # fmt: skip
        self.lab.ready(self.exchange, self.sim)

    def up(self) -> None:
        """Start `k2 up`; returns at once."""
        self.config.run_dir.mkdir(parents=True, exist_ok=True)
        self.supervisor = self.lab.run(
            SUPERVISOR, ["-m", "k2.child", "up"], self.environ, self.config.run_dir, under=self.setup.under
        )

    def stop(self) -> None:
        """End all processes, whatever state they are in. Idempotent."""
        pids = self.pids()
        self.thaw(*pids)
        if self.supervisor is not None:
            self.lab.stop(self.supervisor)
            self.supervisor = None
        for pid in pids.values():
            with suppress(psutil.Error):
                psutil.Process(pid).wait(timeout=6.0)
        self._kill_rest(pids)
        if self.sim is not None:
            self.lab.stop(self.sim)
            self.sim = None

    def _kill_rest(self, pids: Mapping[str, int]) -> None:
        now = self.pids()
        for name, pid in pids.items():
            if now.get(name) == pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def pids(self) -> dict[str, int]:
        """The services that live (frozen ones too), and their process ids."""
        return {name: int(word["pid"]) for name, word in read_status(self.config.run_dir).items()}

    def pid(self, name: str) -> int:
        """The process id of a service, of the `supervisor` or of the `sim`. Raises DrillError if it does not live."""
        own = {SUPERVISOR: self.supervisor, SIM: self.sim}.get(name)
        if own is not None and own.child.poll() is None:
            return own.child.pid
        pid = self.pids().get(name)
        if pid is None:
            raise DrillError(f"{name} does not run just now; see {self.config.run_dir}/{name}.log")
        return pid

    def kill(self, *names: str) -> None:
        """kill -9 these, all at once."""
        pids = [self.pid(name) for name in names]
        for name in names:
            self._forget(name)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def kill_all(self) -> None:
        """kill -9 the supervisor and every service, all at once, as when the machine goes down."""
        self.kill(SUPERVISOR, *self.pids())

    def living_below(self, folder: Path) -> list[int]:
        """Process ids, ours aside, that have files open below a folder."""
        found = []
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):
                if process.pid != os.getpid() and str(folder) in Path(f"/proc/{process.pid}/maps").read_text():
                    found.append(process.pid)
        return found

    def freeze(self, *names: str) -> None:
        """SIGSTOP: they live and do nothing."""
        for pid in [self.pid(name) for name in names]:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self, *names: str) -> None:
        """SIGCONT. Those that do not live any more are left alone."""
        for name in names:
            with suppress(DrillError, ProcessLookupError):
                os.kill(self.pid(name), signal.SIGCONT)

    def _forget(self, name: str) -> None:
        """The lab does not mind when this one ends."""
        own = {SUPERVISOR: self.supervisor, SIM: self.sim}.get(name)
        if own is not None and own in self.lab.processes:
            self.lab.processes.remove(own)

    def order(self, fault: str, exchange: str, **fields: Any) -> None:
        """Order a fault of the simulator, as docs/SIMULATOR.md names them."""
        self.control("faults", {"fault": fault, "exchange": exchange, **fields})

    def clear(self, fault: str = "") -> None:
        """End the simulator's faults of this name, or all."""
        self.control(f"faults?fault={fault}" if fault else "faults", method="DELETE")

    def rate(self, trades_per_s: float) -> None:
        """Set the simulator's rate."""
        self.control("rate", {"rate": trades_per_s})

    def subscribed(self) -> bool:
        """Whether the exchanges' clients have subscribed every symbol."""
        state = self.control("status")["exchanges"]
        return all(state[name]["subscribed"] >= len(state[name]["symbols"]) for name in self.exchanges)

    def control(self, path: str, body: Mapping[str, Any] | None = None, method: str = "") -> dict[str, Any]:
        """The simulator's answer to a control request. Raises LabError."""
        url = f"http://{self.exchange.sim.host}:{self.exchange.sim.rest_port}/control/{path}"
        data = None if body is None else json.dumps(body).encode()
        asked = Request(url, data, {"Content-Type": "application/json"}, method=method or ("POST" if data else "GET"))
        try:
            with urlopen(asked, timeout=10) as answer:
                said: dict[str, Any] = json.load(answer)
                return said
        except (URLError, OSError, ValueError) as error:
            raise LabError(f"the simulator does not answer {url}: {error}") from None

    def wait(self, what: str, done: Callable[[], object], within: float, every: float = 0.05) -> float:
        """Wait for something; returns how many seconds it took. Raises LabError."""
        began = time.monotonic()
        self.lab.until(lambda: bool(done()), what, within, every)
        return time.monotonic() - began
