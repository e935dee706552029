"""`k2 drill`: break the platform on purpose, and see that nothing is lost."""

import signal
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from k2.config import Config
from k2.ops.bench.lab import Lab
from k2.ops.drill import Drill, drills
from k2.ops.drill.needs import missing
from k2.ops.drill.rounds import Options, rehearse
from k2.ops.drill.runbook import FOLDER
from k2.ops.drill.table import draw, progress, report_of
from k2.ops.drill.verdict import FAILED, NOT_RUN, Outcome
from k2.terminal import emit, note

PEERS = ("prometheus", "alertmanager")


@click.command("drill")
@click.argument("names", nargs=-1, metavar="[list | all | NAME...]")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often each failure is made.")
@click.option("--rate", default=400.0, show_default=True, type=click.FloatRange(20, 5000), help="Trades a second.")
@click.option("--allow-missing", is_flag=True, help="Exit with 0 although a drill lacked what it needs.")
@click.option(
    "--alerts/--no-alerts",
    default=None,
    help="Have Prometheus and Alertmanager watch, times divided, in the first round (default: if both are here).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Also write the JSON object here.")
@click.option(
    "--runbooks",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Where the runbooks are whose commands are executed (default: docs/runbooks of the source tree).",
)
@click.option(
    "--dir",
    "parent",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Folder to work in (default: the system's temporary folder).",
)
@click.option("--keep", is_flag=True, help="Leave the drills' data folders behind.")
@click.pass_obj
def drill(
    config: Config, names: tuple[str, ...], rounds: int, rate: float, allow_missing: bool, alerts: bool | None,
    as_json: bool, out: Path | None, runbooks: Path | None, parent: Path | None, keep: bool,
) -> None:  # fmt: skip
    """Break a running platform on purpose: time to detect, time to recover, and every trade counted by its id.

    Each drill starts a platform of its own (a simulator as the exchanges, `k2 up` with every service) in a data folder
    of its own, breaks one thing several times, and leaves nothing behind. A running platform is not touched.

    \b
    Exit status: 0 every drill passed, 1 one failed, 2 it could not be run, 3 one lacked what it needs.
    Examples:
      k2 drill list
      k2 drill store-killed
      k2 drill all --rounds 1
      k2 drill all --json --out docs/results/drill.json
    """
    known = drills()
    if not names or names == ("list",):
        _list(known, as_json)
        return
    wanted = list(known) if names == ("all",) else list(names)
    if strangers := [name for name in wanted if name not in known]:
        raise click.UsageError(f"no drill is called {', '.join(strangers)}; there are: {', '.join(known)}, all")
    folder = runbooks or (FOLDER if FOLDER.is_dir() else None)
    watch = not missing(PEERS) if alerts is None else alerts
    options = Options(rounds=rounds, rate=rate, runbooks=folder, watch=watch)
    found = _run(config, " ".join(names), [known[name] for name in wanted], options, parent, keep, out)
    if as_json:
        click.echo(_json(found))
    else:
        draw(found)
    sys.exit(_exit_code(found, allow_missing))


def _list(known: dict[str, Drill], as_json: bool) -> None:
    rows = [
        (one.name, one.summary, ", ".join(one.needs), ", ".join(one.alerts), "; ".join(missing(one.needs)))
        for one in known.values()
    ]
    emit(
        ("drill", "breaks", "needs", "alerts", "missing here"), rows, as_json, spare=("alerts", "missing here", "needs")
    )


def _run(
    config: Config, asked: str, wanted: list[Drill], options: Options, parent: Path | None, keep: bool, out: Path | None
) -> dict[str, Any]:
    """Run drills one after the other, and write `out` after each. SIGTERM ends it as Ctrl-C does, so it cleans up."""
    usual = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    outcomes: list[Outcome] = []
    found = report_of(asked, outcomes, options)
    try:
        for number, one in enumerate(wanted, 1):
            with progress(one.name, number, len(wanted)) as say, Lab(config, say, parent, keep) as lab:
                outcomes.append(rehearse(lab, one, options, say))
            found = report_of(asked, outcomes, options)
            if out is not None:
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_bytes(_json(found) + b"\n")
    finally:
        signal.signal(signal.SIGTERM, usual)
    return found


def _json(found: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(found))


def _exit_code(found: dict[str, Any], allow_missing: bool) -> int:
    verdicts = {one["verdict"] for one in found["results"]["drills"]}
    if FAILED in verdicts:
        return 1
    if NOT_RUN in verdicts and not allow_missing:
        note("k2 drill: some drills lacked what they need; --allow-missing lets that pass")
        return 3
    return 0
