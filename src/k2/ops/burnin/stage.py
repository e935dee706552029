"""The stage of a burn-in: `k2 up` as a person runs it, and the simulator in the place of the exchanges.

Both are children that end when their standard input does, so a burn-in that is killed leaves nothing behind. They have
data folders of their own: the simulator's is no part of the platform, and its truth file is what the data is held to.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import msgspec

from k2.config import EXCHANGES, Config
from k2.metrics import read_status
from k2.ops.bench.lab import LabError, Process, environment, free_port
from k2.ops.burnin import BurninError
from k2.ops.burnin.folder import Parameters
from k2.ops.platform import demo_environment, live

READY_WITHIN = 180.0


class Stage:
    """The platform and its exchanges on a burn-in's folder. `start`, look on, `stop`.

    Nothing is waited for any longer once `going` says no.
    """

    def __init__(self, base: Config, folder: Path, parameters: Parameters, going: Callable[[], bool]) -> None:
        self.going = going
        self.config = _settings(base, folder)
        self.sim_config = msgspec.structs.replace(self.config, data=str(folder / "sim"))
        self.parameters = parameters
        self.words = folder / "words"
        self.supervisor: Process | None = None
        self.sim: Process | None = None

    def start(self) -> None:
        """Start both; returns when every service runs and every symbol is subscribed.

        Nothing is traded before that, so all that is traded can be asked for. Raises BurninError.
        """
        self.start_sim()
        self.start_platform()
        self.until(self._subscribed, "every venue to be subscribed")
        if self.going():
            self.control("resume", {})

    def start_sim(self) -> None:
        given = self.parameters
        self.sim = self._child(
            "sim", self.sim_config, ["sim", "--rate", f"{given.rate:g}", "--seed", str(given.seed), "--paused"]
        )
        self.until(lambda: bool(self.status()), "the simulator to answer")

    def start_platform(self) -> None:
        self.supervisor = self._child("supervisor", self.config, ["up"])
        self.until(self._complete, "every service to run")

    def _child(self, name: str, config: Config, arguments: list[str]) -> Process:
        return Process(
            name, ["-m", "k2.child", *arguments], environment(config), self.words / f"{name}.err", speaks=False
        )

    def ended(self) -> list[Process]:
        """Those of the two that have ended by themselves."""
        return [child for child in (self.sim, self.supervisor) if child and child.child.poll() is not None]

    def mend(self) -> list[str]:
        """Start again what has ended. Returns the names, with what they said last. Raises BurninError."""
        gone = self.ended()
        told = [words for child in gone if (words := _last_words(child))]
        if self.sim in gone:
            self.sim = None
        if self.supervisor in gone:
            self.supervisor = None
            self.until(lambda: not read_status(self.config.run_dir), "services to leave")
        if self.sim is None:
            self.start_sim()
            if self.going():
                self.control("resume", {})
        if self.supervisor is None:
            self.start_platform()
        return told

    def until(self, done: Callable[[], bool], what: str, within: float = READY_WITHIN) -> None:
        """Raises BurninError if a child ends or the time is over."""
        deadline = time.monotonic() + within
        while self.going() and not done():
            for child in self.ended():
                raise BurninError(_last_words(child))
            if time.monotonic() > deadline:
                raise BurninError(
                    f"waited {within:.0f} s for {what} in vain; see {self.words} and {self.config.run_dir}"
                )
            time.sleep(0.1)

    def _complete(self) -> bool:
        return {service.name for service in live(self.config)} <= set(read_status(self.config.run_dir))

    def _subscribed(self) -> bool:
        venues = self.status().get("exchanges", {}).values()
        return bool(venues) and all(venue["subscribed"] >= len(venue["symbols"]) for venue in venues)

    def status(self) -> dict[str, Any]:
        """What the simulator says of itself; empty if it does not answer."""
        try:
            return self.control("status")
        except BurninError:
            return {}

    def control(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The simulator's answer to a control request. Raises BurninError."""
        url = f"http://{self.config.sim.host}:{self.config.sim.rest_port}/control/{path}"
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(Request(url, data, {"Content-Type": "application/json"}), timeout=10) as answer:
                said: dict[str, Any] = json.load(answer)
                return said
        except (URLError, OSError, ValueError) as error:
            raise BurninError(f"the simulator does not answer {url}: {error}") from None

    def stop(self) -> None:
        """Stop both, the platform first. Idempotent."""
        for child in (self.supervisor, self.sim):
            if child is not None:
                child.stop()
        self.supervisor = self.sim = None


def _last_words(child: Process) -> str:
    """How a child ended and what it said last; empty if it lives."""
    try:
        child.alive()
    except LabError as error:
        return str(error)
    return ""


def _settings(base: Config, folder: Path) -> Config:
    """The person's settings on the burn-in's folder, with free ports and the feed handlers turned to the simulator."""
    ports = {
        "store": {"port": free_port()},
        "web": {"port": free_port()},
        "sim": {"ws_port": free_port(), "rest_port": free_port()},
        "metrics": {"port": 0},
    }
    tree = {key: msgspec.structs.replace(getattr(base, key), **values) for key, values in ports.items()}
    config = msgspec.structs.replace(base, data=str(folder / "data"), **tree)
    urls = demo_environment(config)
    turned = {
        name: msgspec.structs.replace(
            config.exchange(name),
            ws_url=urls[f"K2_EXCHANGES_{name.upper()}_WS_URL"],
            rest_url=urls[f"K2_EXCHANGES_{name.upper()}_REST_URL"],
            enabled=True,
        )
        for name in EXCHANGES
    }
    return msgspec.structs.replace(config, exchanges=msgspec.structs.replace(config.exchanges, **turned))
