"""The reference pages, written from the code: commands, settings, metrics. `make docs` renews them, a test compares."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from prometheus_client.metrics import MetricWrapperBase

from k2 import metrics
from k2.cli import VERBS, main
from k2.config import Config, settings, variable
from k2.ops.bench import latency_page
from k2.ops.burnin import page as burnin_page
from k2.ops.drill import table as drill_table
from k2.ops.watch.alerts import ALERTS
from k2.ops.watch.rules import ON_DUTY

RENEW = "<!-- Written by `make docs` from the code. Change the code, not this page. -->"


def commands() -> str:
    """docs/COMMANDS.md: every verb with its help."""
    lines = ["# Commands", "", RENEW, "", "`k2 VERB --help` shows the same. `--data DIR` and `--config FILE` may stand "
             "before or after every verb.", ""]  # fmt: skip
    root = click.Context(main, info_name="k2")
    for name in VERBS:
        command = main.get_command(root, name)
        assert command is not None
        with click.Context(command, info_name=name, parent=root, terminal_width=100) as context:
            lines += [f"## k2 {name}", "", "```text", command.get_help(context).rstrip(), "```", ""]
            parts = []
            if isinstance(command, click.Group):
                parts = [part for one in command.list_commands(context) if (part := command.get_command(context, one))]
        for part in parts:
            with click.Context(part, info_name=f"{name} {part.name}", parent=root, terminal_width=100) as context:
                lines += ["```text", part.get_help(context).rstrip(), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def configuration() -> str:
    """docs/CONFIGURATION.md: every setting with its variable, default and meaning."""
    lines = ["# Configuration", "", RENEW, ""]
    lines += [
        "One tree. Defaults, then `k2.toml` in the working folder (or the file that `--config` or `K2_CONFIG` names),",
        "then `K2_*` environment variables; the later wins. An unknown key or variable is an error that names the",
        "nearest known one. `k2 check` prints the effective tree with secrets masked, and probes every part.",
        "",
        "| setting | variable | default | meaning |",
        "|---|---|---|---|",
    ]
    for setting in settings(Config):
        default = "(empty)" if setting.default == "" else setting.default
        lines.append(f"| `{'.'.join(setting.path)}` | `{variable(setting.path)}` | {default} | {setting.description} |")
    lines += [
        "",
        "In `k2.toml` a dot is a table:",
        "",
        "```toml",
        'data = "/srv/k2"',
        "",
        "[store]",
        "port = 9000",
        "",
        "[exchanges.kraken]",
        "enabled = false",
        "```",
        "",
        "Secrets (`*.password`) are best given as environment variables. They are never logged or printed.",
    ]
    return "\n".join(lines) + "\n"


def metric_names() -> str:
    """docs/METRICS.md: every metric with its labels and meaning."""
    lines = ["# Metrics", "", RENEW, ""]
    lines += [
        "Every process serves Prometheus metrics on `metrics.host`, from port `metrics.port` on, in this order: "
        + ", ".join(f"`{name}`" for name in metrics.SERVICES)
        + ". If a port is taken, a free one is used; `run/<service>.json` in the data folder names it.",
        "",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            labels = ", ".join(f"`{label}`" for label in metric._labelnames) or "-"
            name = family.name + ("_total" if family.type == "counter" else "")
            lines.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(lines) + "\n"


def alert_names() -> str:
    """docs/ALERTS.md: every alert, and how Prometheus and Alertmanager come by them."""
    lines = ["# Alerts", "", RENEW, ""]
    lines += [
        "`deploy/prometheus` and `deploy/alertmanager` hold what the two programs read; `k2 alerts write deploy`",
        "writes it, `k2 alerts check` has promtool and amtool check it, a test holds it equal to the code.",
        "`k2 alerts prove` fires every alert for real ([how long that took](results/alerts.md)).",
        "",
        "## Attach Prometheus to a platform on one machine",
        "",
        "`k2 up` keeps `run/prometheus/targets.json` of its data folder up to date, in Prometheus's `file_sd` form,",
        "also when a process comes back on another port:",
        "",
        "```sh",
        "cp -r deploy/prometheus deploy/alertmanager /etc/k2-watch/",
        "ln -s /srv/k2/run/prometheus /etc/k2-watch/prometheus/targets",
        "prometheus --config.file=/etc/k2-watch/prometheus/prometheus.yaml",
        "alertmanager --config.file=/etc/k2-watch/alertmanager/alertmanager.yaml",
        "```",
        "",
        "Put your own addresses into `alertmanager.yaml`; the secrets are files in `/etc/alertmanager/secrets`:",
        "`pager-token`, `smtp-password`, `chat-url`. Critical alerts page the team (webhook and e-mail), the others go",
        "to its chat, and the Watchdog goes to a dead man's switch. One cause is one message: while the platform is",
        "down, nothing that follows from it is told; see `inhibit_rules`.",
        "",
        "## All alerts",
        "",
        "| alert | severity | team | holds for | when |",
        "|---|---|---|---|---|",
    ]
    for alert in ALERTS.values():
        when = ON_DUTY.expression(alert.expr).replace("|", "\\|")
        name = f"[{alert.name}]({alert.runbook.removeprefix('docs/')})"
        lines.append(f"| {name} | {alert.severity} | {alert.team} | {alert.hold} | `{when}` |")
    return "\n".join(lines) + "\n"


def results() -> str:
    """docs/results/README.md: what each kept run found."""
    lines = ["# Results", "", RENEW, ""]
    lines += [
        "Kept runs, each as one command wrote it, targets that were missed included. How they are measured:",
        "[benchmarks](../BENCHMARKS.md).",
    ]
    for file in sorted(RESULTS.glob("*.json")):
        report = json.loads(file.read_text())
        machine = report["machine"]
        lines += [
            "",
            f"## {file.stem}",
            "",
            f"`{_command(report, file.stem)} --json --out docs/results/{file.name}` at commit "
            f"`{report['commit'][:12]}`, on {machine.get('cores', '?')} cores of {machine.get('cpu', 'a processor')} "
            f"(load before: {machine.get('load_at_start', '?')}). [Everything it found]({file.name}).",
            "",
            "| figure | value | target | |",
            "|---|---:|---|---|",
        ]
        for check in _headline(report):
            value = f"{check['value']:,}" if isinstance(check["value"], int | float) else check["value"]
            target = f"{check['target']} {check['unit']}".strip()
            lines.append(
                f"| {check['name']} | {value} {check['unit']} | {target} | {'ok' if check['ok'] else 'missed'} |"
            )
    return "\n".join(lines) + "\n"


def _command(report: dict[str, Any], stem: str) -> str:
    """What was run: a result that comes from no bench says it."""
    return str(report["parameters"].get("command", f"k2 bench {stem}"))


def _headline(report: dict[str, Any]) -> list[dict[str, Any]]:
    """A result's checks; of one that has very many, those that it calls its headline, and those that failed."""
    names = report["results"].get("headline")
    return [check for check in report["checks"] if names is None or check["name"] in names or not check["ok"]]


def latency() -> str:
    """docs/results/latency.md: the kept run of the latency bench, segment by segment."""
    return latency_page.page(_kept("latency"), "latency.svg", "../BENCHMARKS.md#latency")


def latency_drawing() -> str:
    """docs/results/latency.svg."""
    return latency_page.drawing(_kept("latency"))


def _kept(bench: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((RESULTS / f"{bench}.json").read_text())
    return report


def readme() -> str:
    """README.md with its table of figures as the kept runs have them."""
    text = (ROOT / "README.md").read_text()
    head, begin, rest = text.partition("<!-- results: written by `make docs` -->\n")
    _, end, tail = rest.partition("<!-- end of results -->\n")
    lines = ["| figure | value | target | | from |", "|---|---:|---|---|---|"]
    for file in sorted(RESULTS.glob("*.json")):
        report = json.loads(file.read_text())
        for check in _headline(report):
            if check["unit"]:
                verdict = "ok" if check["ok"] else "missed"
                value = "none" if check["value"] is None else f"{check['value']:,} {check['unit']}"
                lines.append(
                    f"| {check['name']} | {value} | {check['target']} | {verdict} | `{_command(report, file.stem)}` |"
                )
    return _with_drills(head + begin + "\n" + "\n".join(lines) + "\n\n" + end + tail)


def _with_drills(text: str) -> str:
    """The README with its table of drills, if a run of them is kept."""
    head, begin, rest = text.partition("<!-- drills: written by `make docs` -->\n")
    _, end, tail = rest.partition("<!-- end of drills -->\n")
    if not (RESULTS / "drill.json").exists() or not end:
        return text
    return head + begin + "\n" + "\n".join(drill_table.markdown(_kept("drill"))) + "\n\n" + end + tail


ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/results"

PAGES: dict[str, Callable[[], str]] = {
    "COMMANDS.md": commands,
    "CONFIGURATION.md": configuration,
    "METRICS.md": metric_names,
    "ALERTS.md": alert_names,
    "results/README.md": results,
    "results/latency.md": latency,
    "results/latency.svg": latency_drawing,
    "../README.md": readme,
}
if (RESULTS / "burnin.json").exists():
    PAGES["results/burnin.md"] = lambda: burnin_page.page(_kept("burnin"))
    for _name in burnin_page.PICTURES:
        PAGES[f"results/{_name}"] = partial(lambda name: burnin_page.pictures(_kept("burnin"))[name], _name)
if (RESULTS / "drill.json").exists():
    PAGES["results/drill.md"] = lambda: drill_table.page(_kept("drill"))

if __name__ == "__main__":
    for page, write in PAGES.items():
        Path(sys.argv[1], page).write_text(write())
