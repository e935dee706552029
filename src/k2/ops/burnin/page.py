"""A burn-in's report as a page: `docs/results/burnin.md` is this, of the run that is kept."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from k2.ops.burnin.chart import lines, stacked
from k2.ops.burnin.sampler import JOB, OUTSIDE
from k2.ops.burnin.slope import BLOCKS
from k2.ops.burnin.summary import PARTS, TO_JUDGE_H
from k2.ops.burnin.watch import clock

# What the system that K2 replaces used, in MB, at a dozen trades an hour.
BEFORE = (
    ("feed handlers, each", "157 to 167"),
    ("log", "702"),
    ("store", "1,030"),
    ("Spark", "1,060"),
    ("Prefect", "372"),
    ("object store", "132"),
    ("Prometheus", "159"),
    ("Grafana", "124"),
    ("console", "28"),
)
BEFORE_ALL_MB, BEFORE_CPU = "4,900", "32"
PICTURES = ("burnin-memory.svg", "burnin-cpu.svg", "burnin-lag.svg", "burnin-latency.svg", "burnin-disk.svg")
TITLES = {
    "memory_mb": "own memory, MB",
    "resident_mb": "resident memory, MB",
    "files": "open files",
    "threads": "threads",
}

Found = Mapping[str, Any]


def pictures(found: Found) -> dict[str, str]:
    """File name, of `PICTURES`, to SVG."""
    curves, budget = found["results"]["curves"], found["parameters"]["budget"]
    step = curves["step_s"]
    drawn = (
        stacked("Resident memory", "MB", step, curves["rss_mb"], budget["memory_mb"]["all"]),
        stacked("Processor time", "% of a core", step, curves["cpu_percent"], budget["cpu_percent"]["all"]),
        lines("Behind the log", "records", step, {"loader, uncommitted": curves["lag_loader"]}),
        lines("Receive to visible", "ms", step, {"p99 between looks": curves["visible_p99_ms"]}),
        stacked("Disk", "MB", step, {part: curves[f"disk_{part}_mb"] for part in PARTS}),
    )
    return dict(zip(PICTURES, drawn, strict=True))


def page(found: Found) -> str:
    """Markdown."""
    results = found["results"]
    parts = [
        "# Burn-in",
        _opening(found),
        "## Verdict",
        _verdict(found),
        "## Every process",
        _processes(results),
        "![Resident memory of each process over time](burnin-memory.svg)",
        "![Processor time of each process over time](burnin-cpu.svg)",
        "## Beside what was there before",
        _before(results),
        "## Does anything grow?",
        _growth(found),
        "## Flow",
        _flow(results),
        "![Records that the loader has yet to commit, over time](burnin-lag.svg)",
        "![p99 from receipt to visible, over time](burnin-latency.svg)",
        "## Disk",
        _disk(results),
        "![Disk use by part over time](burnin-disk.svg)",
        "## Interruptions",
        _interruptions(results),
        "## Every check",
        _table(
            ("check", "value", "target", ""),
            [(c["name"], f"{_number(c['value'])} {c['unit']}", c["target"], _ok(c["ok"])) for c in found["checks"]],
        ),
        f"## {_window_title(results)}",
        _windows(results),
    ]
    return "\n\n".join(parts) + "\n"


def _opening(found: Found) -> str:
    machine, results, parameters = found["machine"], found["results"], found["parameters"]
    return (
        f"`{parameters['command']}` at commit `{found['commit'][:12]}`, on {machine.get('cores', '?')} cores of "
        f"{machine.get('cpu', 'a processor')} (load before: {machine.get('load_at_start', '?')}). `k2 up` with all its "
        f"services, on the simulator in the place of the exchanges: {parameters['rate']:g} trades a second over all "
        f"venues for {clock(results['seconds_run'])}, a look every {parameters['every_s']:g} s "
        f"({results['looks']:,} looks). [Everything it found](burnin.json)."
    )


def _verdict(found: Found) -> str:
    failed = [check["name"] for check in found["checks"] if not check["ok"]]
    proof = found["results"]["proof"]
    count = len(found["checks"])
    told = [f"**{'Not passed' if failed else 'Passed'}**: {count - len(failed)} of {count} checks ok."]
    if failed:
        told.append("Not ok: " + "; ".join(failed) + ".")
    if proof:
        truth = proof["truth"]
        told.append(
            f"Of {truth['made']:,} trades that the simulator made, {truth['lost']:,} were lost, {truth['twice']:,} "
            f"stand twice, {truth['invented']:,} were never made (by trade id, against the simulator's own record)."
        )
        wrong = [*proof["verify"].get("failed", []), *proof.get("audit", {}).get("failed", [])]
        if wrong:
            told.append("What the proofs found: " + "; ".join(wrong) + ".")
    else:
        told.append("The run has not come to its end: the data was not checked.")
    return " ".join(told)


def _processes(results: Found) -> str:
    rows = [
        (
            one["process"] if one["process"] != JOB else "archiver's jobs, while they run",
            _number(one["cpu_percent"]), _number(one["cpu_percent_worst_window"]), _number(one["rss_mb_max"]),
            _number(one["rss_mb_median"]), _number(one["own_mb_max"]), _number(one["pss_mb_max"]),
            one["threads_max"], one["files_max"], one["queue_max"],
        )
        for one in sorted(results["processes"], key=lambda one: (one["process"] in OUTSIDE, one["process"] == JOB))
    ]  # fmt: skip
    together = results["all"]
    rows.append(
        (
            "**all that stay**", _number(together["cpu_percent"]), _number(together["cpu_percent_worst_window"]),
            _number(together["rss_mb_max"]), _number(together["rss_mb_median"]), "", _number(together["pss_mb_max"]),
            "", "", "",
        )
    )  # fmt: skip
    columns = (
        "process", "CPU, % of a core", "in the worst window", "RSS MB, most", "median", "own MB, most", "PSS MB, most",
        "threads", "files", "queue",
    )  # fmt: skip
    return (
        _table(columns, rows)
        + "\n\nRSS counts a shared page in every process that has it; PSS divides it; own memory is what belongs to no "
        "file. The most of one process is the kernel's own record, that of all together the largest look. With the "
        f"archiver's jobs, which ran at {together['jobs_ran_percent']:g} % of the looks, all together had "
        f"{_number(together['with_jobs_rss_mb_max'])} MB at most; their processor time counts as the archiver's. `sim` "
        "(the exchanges) and `burnin` (who looks) are no part of the platform. Processor time is of the time after the "
        f"warm-up of {clock(results['warm_up_s'])}, memory of all the time."
    )


def _before(results: Found) -> str:
    rows = [(name, mb, "") for name, mb in BEFORE]
    rows.append(("**all**", f"**{BEFORE_ALL_MB}**", f"**{BEFORE_CPU}**"))
    together = results["all"]
    rows.append(
        (
            f"**K2, all, at {results['made_per_s']:g} trades a second**",
            f"**{_number(together['rss_mb_max'])}**",
            f"**{_number(together['cpu_percent'])}**",
        )
    )
    return _table(("the system before, at a dozen trades an hour", "MB", "% of a core"), rows)


def _growth(found: Found) -> str:
    results, bounds = found["results"], found["parameters"]["budget"]["growth_24h"]
    rows = [
        (
            one["process"], TITLES[one["of"]], _number(one["per_24h"]),
            "-" if one["low"] is None else f"{_number(one['low'])} to {_number(one['high'])}",
            one["hours"], one["verdict"],
        )
        for one in results["growth"]
    ]  # fmt: skip
    return (
        f"Slopes after each process's warm-up of {clock(results['warm_up_s'])}, as growth in 24 hours with a 99 % "
        f"interval: least squares through the means of {BLOCKS} stretches of time, the error from the long-run "
        "variance by equally weighted cosines, since samples next to each other are alike and the usual interval would "
        "be far too narrow. It `grows` when the interval lies above 0 and the growth would be "
        + ", ".join(
            f"{bounds[kind]:g} {title.replace(', MB', ' in MB')}" for kind, title in TITLES.items() if kind in bounds
        )
        + f" or more in a day. Under {TO_JUDGE_H * 60:g} steady minutes nothing is judged: it would be the warm-up. "
        "Resident memory is shown and not judged: mapped pages of the log are part of it, which the kernel takes back "
        "when it wants to; what it comes to is held to the budget.\n\n"
        + _table(("process", "of", "in 24 h", "interval", "hours", "verdict"), rows)
    )


def _flow(results: Found) -> str:
    flow = results["flow"]
    return _table(
        ("figure", "value"),
        [
            ("trades a second that were made", _number(results["made_per_s"])),
            ("records that the loader had yet to commit, most", f"{flow['lag_loader_max']:,}"),
            ("records that the archiver had yet to move, most", f"{flow['lag_archiver_max']:,}"),
            (
                "receive to visible, p99 between two looks: median of them",
                f"{_number(flow['visible_p99_ms_median'])} ms",
            ),
            ("the same, most", f"{_number(flow['visible_p99_ms_max'])} ms"),
            (
                "processor time of all that ran on the machine, % of a core: median, most",
                f"{_number(flow['machine_cpu_median'])}, {_number(flow['machine_cpu_max'])}",
            ),
            ("gaps healed, open at the end", f"{flow['gaps_healed']}, {flow['gaps_open_last']}"),
            (
                "duplicates left out, faults, reconnects",
                f"{flow['duplicates']}, {flow['faults']}, {flow['reconnects']}",
            ),
            ("offloads, of these failed", f"{flow['offloads']}, {flow['offloads_failed']}"),
            ("restarts", ", ".join(f"{k}: {v}" for k, v in results["restarts"].items()) or "none"),
        ],
    )


def _disk(results: Found) -> str:
    rows = [(part, _number(use["mb"]), _number(use["mb_24h"])) for part, use in results["disk"].items()]
    return _table(("part", "MB at the end", "MB in 24 h at this rate"), rows)


def _interruptions(results: Found) -> str:
    told = [
        f"- {clock(gap['from_s'])} to {clock(gap['to_s'])} after the start: no samples "
        + ("(late)" if gap["session"] is None else f"(session {gap['session'] + 1} ended: {_how(results, gap)})")
        for gap in results["gaps"]
    ]
    for number, session in enumerate(results["sessions"]):
        told += [f"- in session {number + 1}: {words}" for words in session["ends"]]
    return "\n".join(told) or "None: one session, no look missing."


def _how(results: Found, gap: Found) -> str:
    return results["sessions"][gap["session"]]["how"] or "killed"


def _window_title(results: Found) -> str:
    seconds = results["window_s"]
    return f"Every {seconds / 60:g} minutes" if seconds >= 60 else f"Every {seconds:g} seconds"


def _windows(results: Found) -> str:
    names = [one["process"] for one in results["processes"] if one["process"] not in OUTSIDE]
    cpu = [name for name in names if name != JOB] + ["all"]
    memory = [*names, "all"]
    head = ("from", *memory, "lag", "disk MB")
    used = [
        (
            clock(w["from_s"]),
            *(_number(w["rss_mb"].get(name)) for name in memory),
            w["lag_loader"],
            _number(w["disk_mb"]),
        )
        for w in results["windows"]
    ]
    worked = [(clock(w["from_s"]), *(_number(w["cpu_percent"].get(name)) for name in cpu)) for w in results["windows"]]
    return (
        "Resident memory, the most at a look, in MB; records that the loader had yet to commit, at most:\n\n"
        + _table(head, used)
        + "\n\nProcessor time in percent of a core:\n\n"
        + _table(("from", *cpu), worked)
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines_ = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    lines_ += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines_)


def _number(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value + 0.0:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:,}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _ok(ok: bool) -> str:
    return "ok" if ok else "**not ok**"
