"""`k2 alerts`: what is watched, the files for Prometheus and Alertmanager, and the proof that each alert fires."""

import signal
import sys
from pathlib import Path

import click
import msgspec

from k2.config import Config
from k2.ops.watch.alerts import ALERTS
from k2.ops.watch.watch import WatchError
from k2.terminal import emit, note


@click.group()
def alerts() -> None:
    """The alerts: what they watch, and the files for Prometheus and Alertmanager.

    \b
    Examples:
      k2 alerts list
      k2 alerts write deploy
      k2 alerts prove
    """


@alerts.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(as_json: bool) -> None:
    """Every alert with its severity, team, and what fires it."""
    rows = [
        (one.name, one.severity, one.team, one.hold, one.summary, one.runbook, ", ".join(one.drills))
        for one in ALERTS.values()
    ]
    emit(
        ("alert", "severity", "team", "for", "summary", "runbook", "drills"), rows, as_json,
        spare=("runbook", "drills", "for"),
    )  # fmt: skip


@alerts.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
def write(folder: Path) -> None:
    """Write the configuration of Prometheus and Alertmanager into DIR/prometheus and DIR/alertmanager.

    \b
    Example:
      k2 alerts write deploy
    """
    from k2.ops.watch import deploy

    try:
        for file in deploy.write(folder):
            click.echo(file)
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be written: {error}") from None


@alerts.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", default="deploy")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def check(folder: Path, as_json: bool) -> None:
    """Compare the files in DIR (default: deploy) with what would be written, and have promtool and amtool check them.

    \b
    Exit status: 0 all is well, 1 it is not, 2 a tool is not installed.
    Example:
      k2 alerts check
    """
    from k2.ops.watch import deploy

    try:
        found = list(deploy.check(folder))
    except WatchError as error:
        note(f"k2 alerts check: {error}")
        sys.exit(2)
    emit(("checked", "ok", "said"), [(one.what, one.ok, one.said) for one in found], as_json)
    sys.exit(0 if all(one.ok for one in found) else 1)


@alerts.command()
@click.pass_obj
def targets(config: Config) -> None:
    """What runs on this data folder now, as Prometheus's file_sd reads it; `k2 up` keeps run/prometheus/targets.json.

    \b
    Example:
      k2 alerts targets > targets.json
    """
    from k2.ops.watch.rules import targets as found

    click.echo(msgspec.json.format(msgspec.json.encode(found(config))))


@alerts.command()
@click.argument("names", nargs=-1, metavar="[ALERT...]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Also write the JSON object here, and .md beside it."
)
@click.option(
    "--dir", "parent", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR",
    help="Folder to work in (default: the system's temporary folder).",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave data and logs behind.")
@click.pass_obj
def prove(
    config: Config, names: tuple[str, ...], as_json: bool, out: Path | None, parent: Path | None, keep: bool
) -> None:
    """Fire every alert for real, or the ones named: on a platform of its own, by a true cause each.

    A real Prometheus and a real Alertmanager, which must be installed, watch it; times are divided by 60.

    \b
    Exit status: 0 every one fired, was received and cleared; 1 one did not; 2 it could not be tried.
    Examples:
      k2 alerts prove GapOpen
      k2 alerts prove --out docs/results/alerts.json
    """
    from k2.ops.bench.lab import Lab, LabError
    from k2.ops.drill import DrillError
    from k2.ops.watch import prove as proving

    if strangers := [name for name in names if name not in ALERTS]:
        raise click.UsageError(f"no alert is called {', '.join(strangers)}; there are: {', '.join(ALERTS)}")
    usual = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # cleans up, as Ctrl-C does
    try:
        with Lab(config, note, parent, keep) as lab:
            proofs = proving.prove(lab, names, note)
    except (WatchError, LabError, DrillError) as error:
        note(f"k2 alerts prove: {error}")
        sys.exit(2)
    finally:
        signal.signal(signal.SIGTERM, usual)
    found = proving.report_of(proofs)
    if out is not None:
        proving.write(found, out)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        emit(
            ("alert", "told", "fired_s", "cleared_s", "ok", "why_not"),
            [(one.alert, one.receiver, one.fired_s, one.cleared_s, one.ok, one.why_not) for one in proofs],
            spare=("why_not",),
        )
    sys.exit(0 if all(one.ok for one in proofs) else 1)
