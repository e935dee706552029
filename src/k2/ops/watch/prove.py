"""Every alert fired for real: causes made on a running platform, real Prometheus and Alertmanager, and what they told.

The table that comes of it says for each alert how long after its cause word of it was received, and how long after the
end of the cause that it is over; at divided times, so for somebody on duty the factor comes on top.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from k2.ops.bench.lab import Lab, LabError
from k2.ops.drill import DrillError
from k2.ops.drill.rehearsal import Rehearsal, Setup, changed, setup
from k2.ops.report import equal, report
from k2.ops.watch.alerts import ALERTS
from k2.ops.watch.causes import CAUSES, Cause
from k2.ops.watch.examples import EXAMPLES
from k2.ops.watch.routing import receiver_of
from k2.ops.watch.watch import FACTOR, LEAST_S, SCRAPE_S, Watch, WatchError

RATE = 200.0
OFFLOAD_S = 10.0
DISK_MB = 4096
SETTLE_WITHIN_S = 150.0
FIRE_WITHIN_S = 240.0
CLEAR_WITHIN_S = 150.0

HUSHING = ("PlatformDown", "ServiceDown", "FeedHandlerDown", "StoreInsertFailure", "OffloadFailure")  # others

Say = Callable[[str], None]


class Proof(msgspec.Struct, kw_only=True):
    """What came of one alert. Seconds at divided times: `fired_s` after the cause began, `cleared_s` after it ended;
    None: it did not, or (the Watchdog) it is not to. `receiver` is whom Alertmanager told; `why_not` in words."""

    alert: str
    severity: str
    team: str
    cause: str
    drills: list[str]
    promtool: bool
    runbook: str
    receiver: str = ""
    fired_s: float | None = None
    cleared_s: float | None = None
    why_not: str = ""

    @property
    def ok(self) -> bool:
        return self.fired_s is not None and (self.cleared_s is not None or self.alert == "Watchdog")


def prove(lab: Lab, names: Sequence[str], say: Say) -> list[Proof]:
    """Fire these alerts, or all. Raises WatchError, LabError, DrillError when there is no platform to do it on."""
    wanted = [cause for cause in CAUSES if set(cause.alerts) & set(names or ALERTS)]
    proofs = {name: _blank(cause, name) for cause in wanted for name in cause.alerts}
    made = setup(lab, "alerts", RATE)
    made.config = changed(made.config, tier={"every_s": OFFLOAD_S})
    with made.cleanup, _disk(made, any(cause.root for cause in wanted)), Rehearsal(lab, made) as platform:
        platform.start()
        with Watch(made.config, made.folder / "watch") as watch:
            ended: dict[str, float] = {}
            for cause in wanted:
                _try(watch, platform, cause, proofs, ended, say)
            _await_clear(watch, proofs, ended, say)
    return [proofs[name] for name in ALERTS if name in proofs]


def _try(
    watch: Watch, platform: Rehearsal, cause: Cause, proofs: dict[str, Proof], ended: dict[str, float], say: Say
) -> None:
    """Make the cause and wait for its alerts. What hinders it stands in the proofs."""
    if cause.root and os.geteuid() != 0:
        for name in cause.alerts:
            proofs[name].why_not = "needs root, for a small disk of its own"
        return
    try:
        watch.settle(SETTLE_WITHIN_S, only={*cause.alerts, *HUSHING})
        begin = 0.0 if "Watchdog" in cause.alerts else watch.now()
        say(f"{', '.join(cause.alerts)}: {cause.what}")
        with cause.act(platform):
            for name in cause.alerts:
                notice = watch.wait_fired(name, begin, FIRE_WITHIN_S)
                proof = proofs[name]
                proof.fired_s = round(notice.at - begin, 1) if begin else 0.0
                proof.receiver = notice.receiver
                say(f"{name} fired after {proof.fired_s:.1f} s; {notice.receiver}: {notice.annotations['summary']}")
                ended[name] = watch.now()
        ended.update(dict.fromkeys(cause.alerts, watch.now()))
    except (WatchError, LabError, DrillError) as error:
        for name in cause.alerts:
            proofs[name].why_not = str(error)
        say(f"{', '.join(cause.alerts)}: {error}")


def _await_clear(watch: Watch, proofs: dict[str, Proof], ended: dict[str, float], say: Say) -> None:
    deadline = time.monotonic() + CLEAR_WITHIN_S
    for name, end in ended.items():
        proof = proofs[name]
        if name == "Watchdog" or proof.fired_s is None:
            continue
        began = end  # word that it is over counts from the end of its cause, also if it came while it was being undone
        notice = watch.book.first(name, began - 1.0, False, {}, max(0.0, deadline - time.monotonic()))
        if notice is None:
            proof.why_not = "it did not clear"
        else:
            proof.cleared_s = round(max(0.0, notice.at - end), 1)
        say(f"{name} cleared after {proof.cleared_s} s" if notice else f"{name} did not clear")


def _blank(cause: Cause, name: str) -> Proof:
    alert = ALERTS[name]
    return Proof(
        alert=name, severity=alert.severity, team=alert.team, cause=cause.what, drills=list(alert.drills),
        promtool=any(example.alert == name for example in EXAMPLES), runbook=alert.runbook,
    )  # fmt: skip


@contextmanager
def _disk(made: Setup, wanted: bool) -> Iterator[None]:
    """A small disk, in memory, for the platform's data; only root can make one."""
    if not wanted or os.geteuid() != 0:
        yield
        return
    place = made.folder / "disk"
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "k2-alerts", str(place)], check=True)
    made.config = msgspec.structs.replace(made.config, data=str(place / "data"))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def report_of(proofs: Sequence[Proof]) -> dict[str, Any]:
    """The object that `--json` prints."""
    checks = [
        equal("alerts that fired, were received and cleared", sum(one.ok for one in proofs), len(proofs), "alerts"),
        equal("alerts that reached who they are for", sum(_right(one) for one in proofs), len(proofs), "alerts"),
    ]
    pace = {"command": "k2 alerts prove", "divided_by": FACTOR, "least_s": LEAST_S, "scrape_s": SCRAPE_S, "rate": RATE}
    return report(pace, {"alerts": [{**msgspec.to_builtins(one), "ok": one.ok} for one in proofs]}, checks)


def _right(proof: Proof) -> bool:
    return proof.receiver == receiver_of(ALERTS[proof.alert])


def markdown(found: dict[str, Any]) -> str:
    """The table for docs/results."""
    pace = found["parameters"]
    lines = [
        "# Alert coverage",
        "",
        f"`k2 alerts prove --out docs/results/alerts.json` at commit `{found['commit'][:12]}`: every alert fired for"
        " real by its cause, on a running platform, through a real Prometheus and a real Alertmanager, and received.",
        "",
        f"Times of the rules are divided by {pace['divided_by']:g} (none below {pace['least_s']:g} s), scrapes are"
        f" {pace['scrape_s']:g} s apart. *Fired*: seconds from cause to message; *cleared*: seconds from its end"
        " to the message that it is over, most of which is the rule's own window.",
        "",
        "| alert | severity | told | cause | fired | cleared | `promtool` test | drills | |",
        "|---|---|---|---|---:|---:|---|---|---|",
    ]
    for one in found["results"]["alerts"]:
        drills = ", ".join(f"`{name}`" for name in one["drills"]) or "-"
        name = f"[{one['alert']}](../runbooks/{one['alert']}.md)"
        times = (_cell(one["fired_s"]), "always" if one["alert"] == "Watchdog" else _cell(one["cleared_s"]))
        lines.append(
            f"| {name} | {one['severity']} | {one['receiver'] or '-'} | {one['cause']} | {times[0]} | {times[1]} |"
            f" {'yes' if one['promtool'] else 'no'} | {drills} | {'ok' if one['ok'] else one['why_not'] or 'no'} |"
        )
    return "\n".join(lines) + "\n"


def _cell(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f}"


def write(found: dict[str, Any], file: Path) -> None:
    """The JSON object, and the table beside it. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    file.with_suffix(".md").write_text(markdown(found))
