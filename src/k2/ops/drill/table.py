"""Drills as people read them: lines while they run, a table in the end, Markdown for the documentation."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from k2.ops.drill.rounds import Options
from k2.ops.drill.verdict import FAILED, NOT_RUN, PASSED, Outcome
from k2.ops.report import equal, report
from k2.terminal import console, note

COLUMNS = ("drill", "seen", "flows", "recovered", "lost", "twice", "alerts", "runbook", "verdict")
NUMBERS = ("seen", "flows", "recovered", "lost", "twice")
TITLE = "Drills: seconds, median/worst; seen from the strike on, flows and recovered from the end of the cause on"


@contextmanager
def progress(name: str, number: int, of: int) -> Iterator[Callable[[str], None]]:
    """Lines on stderr, each with the seconds since the drill began."""
    began = time.monotonic()

    def say(line: str) -> None:
        note(f"[{number}/{of}] {name} {time.monotonic() - began:5.1f} s  {line}")

    yield say


def report_of(asked: str, outcomes: Sequence[Outcome], options: Options) -> dict[str, Any]:
    """The object that `--json` prints, as of every command that measures. `asked`: the names as given."""
    ran = [one for one in outcomes if one.verdict != NOT_RUN]
    checks = [
        equal("drills that passed", sum(one.verdict == PASSED for one in ran), len(ran)),
        equal("trades lost", sum(one.lost for one in ran), 0, "trades"),
        equal("trades twice", sum(one.twice for one in ran), 0, "trades"),
    ]
    parameters = {"command": f"k2 drill {asked}", "rounds": options.rounds, "rate": options.rate}
    return report(parameters, {"drills": [msgspec.to_builtins(one) for one in outcomes]}, checks)


def rows(found: Mapping[str, Any]) -> list[list[str]]:
    """The cells of the table, by `COLUMNS`."""
    return [
        [
            one["name"],
            _times(one["detected_s"]),
            _times(one["flowing_s"]),
            _times(one["recovered_s"]),
            *((f"{one['lost']:,}", f"{one['twice']:,}") if one["places"] else ("", "")),
            _alerts(one),
            f"{one['commands']} ok" if one["commands"] and one["verdict"] == PASSED else str(one["commands"] or ""),
            one["verdict"],
        ]
        for one in found["results"]["drills"]
    ]


def _times(spread: Mapping[str, float | None]) -> str:
    """Median and worst."""
    if not spread:
        return ""
    return "/".join("never" if value is None else f"{value:.1f}" for value in (spread["median"], spread["worst"]))


def _alerts(one: Mapping[str, Any]) -> str:
    if one["alerts"] == "not watched" or not one["rounds"]:
        return "not watched" if one["rounds"] else ""
    fired = {name for each in one["rounds"] for name in each["fired"]}
    cleared = {name for each in one["rounds"] for name in each["cleared"]}
    return ", ".join(f"{name}{'' if name in cleared else ' (stands)'}" for name in sorted(fired)) or "none"


def draw(found: Mapping[str, Any]) -> None:
    """The table in a terminal (or as text), then why what failed has failed."""
    from rich.table import Table

    table = Table(title=TITLE, title_justify="left", header_style="bold", box=None)
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in NUMBERS else "left", no_wrap=column == "drill")
    colours = {PASSED: "green", FAILED: "bold red", NOT_RUN: "yellow"}
    for cells in rows(found):
        table.add_row(*cells[:-1], f"[{colours[cells[-1]]}]{cells[-1]}[/]")
    console().print(table)
    for one in found["results"]["drills"]:
        for reason in one["reasons"]:
            console().print(f"{one['name']}: {reason}", markup=False)


def markdown(found: Mapping[str, Any]) -> list[str]:
    """The table as Markdown, one line each."""
    columns = ("drill", "breaks", "seen", "flows", "recovered", "lost", "twice", "alerts", "verdict")
    lines = [f"| {' | '.join(columns)} |", "|---|---|--:|--:|--:|--:|--:|---|---|"]
    for one, cells in zip(found["results"]["drills"], rows(found), strict=True):
        name, *times, lost, twice, alerts, _, verdict = cells
        lines.append(f"| `{name}` | {one['summary']} | {' | '.join((*times, lost, twice, alerts, verdict))} |")
    return lines


def page(found: Mapping[str, Any]) -> str:
    """docs/results/drill.md: the kept run, drill by drill."""
    asked, machine = found["parameters"], found["machine"]
    lines = [
        "# Drills",
        "",
        "<!-- Written by `make docs` from the kept run. -->",
        "",
        f"`{asked['command']} --rounds {asked['rounds']}` at commit `{found['commit'][:12]}`, {asked['rate']:g} "
        f"trades/s, on {machine.get('cores', '?')} cores of {machine.get('cpu', 'a processor')}."
        " [Everything it found](drill.json).",
        "",
        "Times are seconds, median/worst of the rounds. *Seen*: from the strike to the first signal of it (metrics,",
        "`/readyz`, gap ledger, supervisor). *Flows*: from the end of the cause until every symbol's newest trades",
        "are visible in the store again; *recovered*: until none is missing before them and every process answers.",
        "*Lost* and *twice* are counted by trade id, every trade of the run, in log, store and, where concerned, cold",
        "tier. *Load* is the machine's load average in each round: more than its cores, and it was late for all.",
        "",
        *markdown(found),
    ]
    for one in found["results"]["drills"]:
        lines += ["", f"## {one['name']}", "", f"Breaks: {one['summary']}.", "", f"Expected: {one['expectation']}."]
        lines += ["", f"Alerts that fired: {_alerts(one)}."] if one["rounds"] else []
        lines += ["", *(f"- {reason}" for reason in one["reasons"])] if one["reasons"] else []
        lines += ["", *(f"- round {each['number']}: {_seen(each)}" for each in one["rounds"])] if one["rounds"] else []
    return "\n".join(lines) + "\n"


def _seen(each: Mapping[str, Any]) -> str:
    by = each["detected_by"] or "nothing"
    spells = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in sorted(each["interrupted_s"].items()))
    whole = f"not whole: {spells or 'no exchange'}"
    return f"the cause lasted {each['cause_s']:.1f} s; first seen by {by}; {whole}; load {each['load']:.1f}"
