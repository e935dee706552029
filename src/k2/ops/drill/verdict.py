"""What came of a drill, and whether it is as it must be."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import msgspec

from k2.ops.drill import Drill
from k2.ops.drill.proof import Count

SPARED_S = 1.0  # beyond the second after which a trade counts as late: a busy machine may hesitate so long
PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"


class Round(msgspec.Struct, kw_only=True):
    """One round. Times in seconds: `detected_s` from the strike; from the end of the cause `flowing_s` (the newest
    trades are visible again) and `recovered_s` (every trade is, and every process answers); None for never.
    `interrupted_s` is how long each exchange's flow was not whole; alerts `fired` after the strike and `cleared` after
    the end. `load`: the machine's load average of the last minute. `faults` are what the drill itself found wrong.
    """

    number: int
    cause_s: float
    detected_s: float | None
    detected_by: str
    flowing_s: float | None
    recovered_s: float | None
    load: float = 0.0
    interrupted_s: dict[str, float] = {}
    fired: dict[str, float] = {}
    cleared: dict[str, float] = {}
    commands: list[dict[str, Any]] = []
    watched: bool = False
    notes: list[str] = []
    faults: list[str] = []
    signals: list[str] = []

    def in_words(self) -> str:
        """For a person who waits."""
        seen = (
            "not detected" if self.detected_s is None else f"detected after {self.detected_s:.1f} s: {self.detected_by}"
        )
        back = "not recovered" if self.recovered_s is None else f"recovered {self.recovered_s:.1f} s after its end"
        return f"lasted {self.cause_s:.1f} s; {seen}; {back}"


class Outcome(msgspec.Struct, kw_only=True):
    """A drill's result. `alerts` is `watched` or `not watched`; `reasons` say why it failed or was not run."""

    name: str
    summary: str
    expectation: str
    verdict: str
    reasons: list[str]
    rounds: list[Round] = []
    detected_s: dict[str, float | None] = {}
    flowing_s: dict[str, float | None] = {}
    recovered_s: dict[str, float | None] = {}
    made: int = 0
    lost: int = 0
    twice: int = 0
    places: dict[str, dict[str, Any]] = {}
    alerts_wanted: list[str] = []
    alerts: str = "not watched"
    commands: int = 0
    seconds: float = 0.0


def not_run(drill: Drill, lacking: Sequence[str]) -> Outcome:
    """A drill that could not be run for want of something."""
    return Outcome(
        name=drill.name, summary=drill.summary, expectation=drill.expectation, verdict=NOT_RUN,
        reasons=[f"needs {one}" for one in lacking], alerts_wanted=list(drill.alerts),
    )  # fmt: skip


def judge(
    drill: Drill,
    rounds: Sequence[Round],
    places: Mapping[str, Count],
    unproven: Sequence[str],
    trouble: str,
    seconds: float,
    watched: bool,
) -> Outcome:
    """The verdict: every round detected and recovered in time, nothing lost, nothing twice, all else as expected."""
    reasons = [trouble] if trouble else []
    for one in rounds:
        reasons += [f"round {one.number}: {reason}" for reason in _of_round(drill, one)]
    for name, found in places.items():
        if not found.ok:
            words = f"{name}: {found.lost} lost, {found.twice} twice, {found.strange} strange of {found.made}"
            reasons.append(words + (f" ({', '.join(found.holes)})" if found.holes else ""))
    reasons += [f"k2 verify: {check}" for check in unproven]
    return Outcome(
        name=drill.name,
        summary=drill.summary,
        expectation=drill.expectation,
        verdict=FAILED if reasons else PASSED,
        reasons=reasons,
        rounds=list(rounds),
        detected_s=_spread([one.detected_s for one in rounds]),
        flowing_s=_spread([one.flowing_s for one in rounds]),
        recovered_s=_spread([one.recovered_s for one in rounds]),
        made=max((found.made for found in places.values()), default=0),
        lost=max((found.lost for found in places.values()), default=0),
        twice=max((found.twice for found in places.values()), default=0),
        places={name: found._asdict() for name, found in places.items()},
        alerts_wanted=list(drill.alerts),
        alerts="watched" if watched else "not watched",
        commands=sum(len(one.commands) for one in rounds),
        seconds=round(seconds, 1),
    )


def _of_round(drill: Drill, one: Round) -> list[str]:
    found = list(one.faults)
    if one.detected_s is None:
        found.append(f"no signal of {', '.join(drill.seen_by)} was seen")
    if one.recovered_s is None:
        found.append("it did not recover")
    elif one.recovered_s > drill.recovered_within_s:
        found.append(f"recovered after {one.recovered_s:.1f} s, not within {drill.recovered_within_s:g} s")
    found += [
        f"{exchange} was interrupted for {one.interrupted_s[exchange]:.1f} s, and was to be spared"
        for exchange in drill.spares
        if one.interrupted_s.get(exchange, 0.0) > SPARED_S
    ]
    found += [f"{ran['runbook']}, {ran['moment']}: {ran['said'][-300:]}" for ran in one.commands if not ran["ok"]]
    if one.watched:
        found += [f"alert {name} did not fire" for name in drill.alerts if name not in one.fired]
        found += [f"alert {name} did not clear" for name in one.fired if name not in one.cleared]
    return found


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Median and worst; None for never."""
    if not values:
        return {}
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return {"median": median(known) if known else None, "worst": None}
    return {"median": round(median(known), 3), "worst": max(known)}
