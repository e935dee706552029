"""What a drill has in its hands while it acts: the platform, the clock of the failure, and eyes on everything."""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from k2.metrics import read_status
from k2.ops.drill import Drill, DrillError
from k2.ops.drill.flow import Flow
from k2.ops.drill.rehearsal import Rehearsal
from k2.ops.drill.runbook import DIAGNOSIS, Ran, run
from k2.ops.drill.signals import Page, Signal, Signals, ask, scrape
from k2.ops.drill.timeline import Timeline

STEADY_S = 2.5  # nothing wrong for so long: longer than any look takes to see that something is
STEADY_WITHIN_S = 120.0
ALERT_WITHIN_S = 45.0


class Alerts(Protocol):
    """Who watches alerts. Both give what came since the round began: the alert's name and when (monotonic seconds)."""

    def begin(self) -> None:
        """A round begins: forget what came before."""

    def fired(self) -> Mapping[str, float]:
        """The alerts of which Alertmanager has sent word that they fire."""

    def cleared(self) -> Mapping[str, float]:
        """Those that fired and of which it has sent word that they are resolved."""


class Stage:
    """One round of a drill.

    `struck` and `ended` are when the cause began and ended, in monotonic seconds; 0 until then. `rng` is seeded by the
    round, so that chance repeats.
    """

    def __init__(
        self,
        drill: Drill,
        platform: Rehearsal,
        flow: Flow,
        signals: Signals,
        say: Callable[[str], None],
        number: int = 1,
        alerts: Alerts | None = None,
        runbooks: Path | None = None,
    ) -> None:
        self.drill, self.platform, self.flow, self.signals = drill, platform, flow, signals
        self.alerts, self.number, self.say = alerts, number, say
        self.rng = random.Random(f"{drill.name}:{number}")
        self.struck = self.ended = 0.0
        self.ran: list[Ran] = []
        self.notes: list[str] = []
        self.faults: list[str] = []
        self._runbooks = runbooks
        self._diagnosed = False

    @contextmanager
    def failing(self) -> Iterator[None]:
        """While inside, the cause of the failure lasts. Enter right before breaking, leave right after mending it."""
        self.struck = time.monotonic()
        try:
            yield
        finally:
            self.ended = time.monotonic()

    def hold(self, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Let the failure last for so long, and, where alerts are watched, until the drill's have fired. Runs what the
        runbooks have for diagnosis, and `meanwhile` some times a second."""
        until = time.monotonic() + seconds
        self.diagnose()
        while time.monotonic() < until or (self._alerts_due() and time.monotonic() < until + ALERT_WITHIN_S):
            meanwhile()
            time.sleep(0.05)

    def diagnose(self) -> None:
        """Run what the runbooks have for diagnosis, once a round. Whoever holds need not call it."""
        if not self._diagnosed:
            self._diagnosed = True
            self.run_runbooks(DIAGNOSIS)

    def run_runbooks(self, moment: str) -> None:
        """Execute the runbooks' commands for this moment."""
        if self._runbooks is not None:
            names, environ = self.drill.all_runbooks, self.platform.environ
            self.ran += run(self._runbooks, names, self.drill.name, moment, environ)

    def _alerts_due(self) -> bool:
        return self.alerts is not None and not set(self.drill.alerts) <= self.alerts.fired().keys()

    def note(self, text: str) -> None:
        """Something worth reading in the report, such as what a random round did."""
        self.notes.append(text)
        self.say(text)

    def fault(self, text: str) -> None:
        """Something is not as the drill expects: it fails, and says this."""
        self.faults.append(text)
        self.say(text)

    def wait(self, what: str, done: Callable[[], object], within: float) -> float:
        """Wait for something; returns how many seconds it took. Raises DrillError."""
        began = time.monotonic()
        while not done():
            if time.monotonic() - began > within:
                raise DrillError(f"waited {within:.0f} s for {what} in vain; run again with --keep and read the logs")
            time.sleep(0.05)
        return time.monotonic() - began

    def wait_seen(self, *patterns: str, within: float = 30.0) -> Signal:
        """Until a signal since the strike matches (the drill's own patterns if none are given). Raises DrillError."""
        wanted = patterns or self.drill.seen_by
        self.wait(f"a signal of {', '.join(wanted)}", lambda: self.signals.first(self.struck, wanted), within)
        seen = self.signals.first(self.struck, wanted)
        assert seen is not None
        return seen

    def recovered(self, within: float) -> float | None:
        """Until every trade flows again, no hole is left and every process answers, for a while. Returns since when it
        has been so (monotonic seconds); None if not within that time."""
        return self._clean(within, self.flow.timeline, self.signals.health)

    def steady(self, within: float = STEADY_WITHIN_S) -> float | None:
        """The same, and no signal of trouble stands."""
        return self._clean(within, self.flow.timeline, self.signals.timeline)

    def _clean(self, within: float, *timelines: Timeline) -> float | None:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            since = [timeline.clean_since() for timeline in timelines]
            latest = max((at for at in since if at is not None), default=0.0)
            if None not in since and time.monotonic() - max(latest, self.ended) >= STEADY_S:
                return latest
            time.sleep(0.05)
        return None

    def metrics(self, service: str) -> Page:
        """A service's metrics now: (name, labels) to value. Raises DrillError."""
        word = read_status(self.platform.config.run_dir).get(service)
        page = scrape(int(word["metrics_port"])) if word else None
        if page is None:
            raise DrillError(f"{service} does not answer with its metrics")
        return page

    def metric(self, service: str, name: str, /, **labels: str) -> float:
        """The sum of a metric's samples with these labels. Raises DrillError."""
        wanted = set(labels.items())
        return sum(v for (metric, have), v in self.metrics(service).items() if metric == name and wanted <= set(have))

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """What `/readyz` answers: whether all is well, and its document ({} without an answer)."""
        status, document = self._web("/readyz")
        return status == 200, document

    def status(self) -> dict[str, Any]:
        """What `/v1/status` answers; {} without an answer."""
        return self._web("/v1/status")[1]

    def _web(self, path: str) -> tuple[int, dict[str, Any]]:
        web = self.platform.config.web
        status, body = ask(web.host, web.port, path, 5.0)
        try:
            return status, json.loads(body)
        except ValueError:
            return status, {}
