"""The report of a burn-in, made from its folder: JSON for machines, a page and pictures for people."""

from pathlib import Path
from typing import Any

import msgspec

from k2.config import BudgetConfig
from k2.ops.burnin import BurninError
from k2.ops.burnin.folder import Folder
from k2.ops.burnin.page import page, pictures
from k2.ops.burnin.summary import Run, summarise
from k2.ops.burnin.verdict import checks, growth_verdict
from k2.ops.report import report

HEADLINE = (
    "hours run",
    "trades lost",
    "trades twice",
    "resident memory, most: all that stay",
    "CPU: all",
)


def outcome(folder: Folder, budget: BudgetConfig) -> dict[str, Any]:
    """What the run showed, as the form of a result that every command has. Raises BurninError without any sample."""
    state, looks = folder.state, folder.looks()
    if len(looks) < 2:
        raise BurninError(f"{folder.path} holds no samples yet: go on with `k2 burnin --resume {folder.path}`")
    results = summarise(Run(state.parameters, folder.processes(), looks))
    results["sessions"] = msgspec.to_builtins(state.sessions)
    results["proof"] = state.proof
    for one in results["growth"]:
        one["verdict"] = growth_verdict(one, budget)
    results["headline"] = list(HEADLINE)
    parameters = msgspec.to_builtins(state.parameters)
    command = f"k2 burnin --hours {state.parameters.hours:g} --rate {state.parameters.rate:g}"
    found = report(
        {"command": command, **parameters, "budget": msgspec.to_builtins(budget)},
        results,
        checks(results, state.parameters, budget),
    )
    return {**found, "commit": state.sessions[0].commit, "machine": state.machine}


def write(found: dict[str, Any], folder: Path) -> None:
    """The report into a folder: `burnin.json`, `burnin.md` and its pictures."""
    (folder / "burnin.json").write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    (folder / "burnin.md").write_text(page(found))
    for name, drawn in pictures(found).items():
        (folder / name).write_text(drawn)
