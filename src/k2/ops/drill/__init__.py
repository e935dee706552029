"""Failure drills: each breaks one thing of a running platform on purpose, and holds what follows to what was expected.

A drill is a `Drill` in the `DRILLS` of a module here. It owns a platform (`rehearsal.py`): a simulator under steady
load as the exchanges, and `k2 up` with every service on a data folder of its own. Its `act(stage)` breaks something
inside `with stage.failing():` and puts it right again before leaving, unless the platform is meant to do so by itself.
All else is common to all drills: while it acts, threads look at every symbol's freshness (`flow.py`) and at every
signal that an operator has (`signals.py`); afterwards every trade that was made is looked for by its id in log, store
and, where concerned, cold tier (`proof.py`), and `k2 verify` must find nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from k2.ops.watch.alerts import ALERTS

if TYPE_CHECKING:
    from k2.ops.drill.rehearsal import Setup
    from k2.ops.drill.stage import Stage

MODULES = (
    "processes",
    "exchange",
    "clock",
    "network",
    "disk",
    "memory",
    "objects",
    "power",
)  # each has DRILLS; the order is that of `k2 drill all`
RECOVERED_WITHIN_S = 5.0


class DrillError(Exception):
    """The drill could not be carried out, which says nothing of the platform; the text says what failed and where."""


@dataclass(frozen=True, kw_only=True)
class Drill:
    """One failure.

    `expectation` is printed before anything is broken. `act` is called once a round; it raises DrillError when it could
    not break what it meant to. `prepare` may change the platform before it is started (settings, environment, a command
    to run it under, things to make and to clean up).

    `seen_by` names the signals (patterns as in `fnmatch`, see `signals.py`) of which the first one counts as detection:
    those that lead an operator to this failure. The alerts that name this drill must fire and, after it, clear
    (`k2.ops.watch.alerts`). `runbooks` are files in docs/runbooks; those of its alerts count as well. What they mark
    for drills is executed.

    `spares`: exchanges whose flow may not be interrupted. `cold`: the cold tier is compared as well.
    `recovered_within_s` counts from the end of the cause.
    """

    name: str
    summary: str
    expectation: str
    act: "Callable[[Stage], None]"
    seen_by: tuple[str, ...]
    prepare: "Callable[[Setup], None] | None" = None
    needs: tuple[str, ...] = ()
    runbooks: tuple[str, ...] = ()
    spares: tuple[str, ...] = ()
    cold: bool = False
    recovered_within_s: float = RECOVERED_WITHIN_S

    @property
    def alerts(self) -> tuple[str, ...]:
        """The alerts that it must see fire and clear."""
        return tuple(alert.name for alert in ALERTS.values() if self.name in alert.drills)

    @property
    def all_runbooks(self) -> tuple[str, ...]:
        """Its own runbooks and those of its alerts, each once."""
        return tuple(dict.fromkeys((*self.runbooks, *(f"{alert}.md" for alert in self.alerts))))


def drills() -> dict[str, Drill]:
    """Every drill by name, in the order of `all`."""
    found: dict[str, Drill] = {}
    for module in MODULES:
        for drill in import_module(f"k2.ops.drill.{module}").DRILLS:
            assert drill.name not in found, f"two drills are called {drill.name}"
            found[drill.name] = drill
    return found
