"""Figures against budgets: what a burn-in has to show to have been passed."""

from collections.abc import Mapping
from typing import Any

from k2.config import BudgetConfig
from k2.ops.burnin.folder import Parameters
from k2.ops.burnin.sampler import JOB, OUTSIDE
from k2.ops.burnin.summary import TO_JUDGE_H
from k2.ops.report import Check, at_least, below, equal

NO_SLOPE, GROWS, TOO_SHORT, SHOWN = "no slope", "grows", "too short to tell", "not judged"
KINDS = {"memory_mb": ("own memory", "MB"), "files": ("open files", "files"), "threads": ("threads", "threads")}


def checks(found: Mapping[str, Any], parameters: Parameters, budget: BudgetConfig) -> list[Check]:
    """Every demand. Slopes that are too short to tell are not among them: the report shows them as such."""
    return [
        at_least("hours run", found["seconds_run"] / 3600, parameters.hours * 0.99, "h"),
        at_least("trades a second that were made", found["made_per_s"], parameters.rate * 0.95, "1/s"),
        *_data(found),
        equal("restarts", sum(found["restarts"].values()), 0),
        equal("ends of the supervisor or the simulator", sum(len(one["ends"]) for one in found["sessions"]), 0),
        equal("offloads that failed", found["flow"]["offloads_failed"], 0),
        *_memory(found, budget),
        *_cpu(found, budget),
        *_growth(found, budget),
    ]


def _data(found: Mapping[str, Any]) -> list[Check]:
    proof = found["proof"] or {}
    truth = proof.get("truth", {})
    told = [
        equal("trades lost", truth.get("lost"), 0, "trades"),
        equal("trades twice", truth.get("twice"), 0, "trades"),
        equal("trades that were never made", truth.get("invented"), 0, "trades"),
        equal("k2 verify, exit code", proof.get("verify", {}).get("exit_code"), 0),
    ]
    if "audit" in proof:
        told.append(equal("k2 archive audit, exit code", proof["audit"]["exit_code"], 0))
    return told


def _key(process: str) -> str:
    return "feed" if process.startswith("feed-handler") else process


def _memory(found: Mapping[str, Any], budget: BudgetConfig) -> list[Check]:
    told = []
    for one in found["processes"]:
        bound = getattr(budget.memory_mb, _key(one["process"]), None)
        if bound is not None:
            told.append(below(f"resident memory, most: {one['process']}", one["rss_mb_max"], bound, "MB"))
    told.append(below("resident memory, most: all that stay", found["all"]["rss_mb_max"], budget.memory_mb.all, "MB"))
    return told


def _cpu(found: Mapping[str, Any], budget: BudgetConfig) -> list[Check]:
    told = []
    for one in found["processes"]:
        bound = getattr(budget.cpu_percent, _key(one["process"]), None)
        if bound is not None and one["process"] != JOB and one["process"] not in OUTSIDE:
            told.append(below(f"CPU: {one['process']}", one["cpu_percent"], bound, "% of a core"))
    told.append(below("CPU: all", found["all"]["cpu_percent"], budget.cpu_percent.all, "% of a core"))
    return told


def _growth(found: Mapping[str, Any], budget: BudgetConfig) -> list[Check]:
    return [
        Check(
            f"growth in 24 h of {KINDS[one['of']][0]}: {one['process']}",
            one["per_24h"],
            KINDS[one["of"]][1],
            f"< {getattr(budget.growth_24h, one['of']):g} or no slope",
            growth_verdict(one, budget) == NO_SLOPE,
        )
        for one in found["growth"]
        if growth_verdict(one, budget) not in (TOO_SHORT, SHOWN)
    ]


def growth_verdict(one: Mapping[str, Any], budget: BudgetConfig) -> str:
    """It grows when its interval lies above 0 and a day of it would be more than the bound.

    Resident memory is shown only: mapped pages of the log are part of it, which the kernel takes back when it wants to.
    What it comes to is held to the budget.
    """
    if one["of"] not in KINDS:
        return SHOWN
    if one["per_24h"] is None or one["hours"] < TO_JUDGE_H:
        return TOO_SHORT
    bound = getattr(budget.growth_24h, one["of"])
    return GROWS if one["low"] > 0 and one["per_24h"] >= bound else NO_SLOPE
