"""`k2 burnin`: hours under load, every process watched, judged against budgets."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.live import Live
from rich.text import Text

from k2.config import Config, ConfigError
from k2.feed.lock import only_one
from k2.log import LogError
from k2.ops.burnin import BurninError
from k2.ops.burnin.folder import Folder, Parameters
from k2.ops.burnin.outcome import outcome, write
from k2.ops.burnin.watch import Progress, Watch
from k2.ops.report import machine, passed
from k2.terminal import console, emit, note

COULD_NOT, INTERRUPTED = 2, 130
EVERY_S, LEAST_LOOKS = 10.0, 60
LINE_EVERY_S = 60.0


@click.command()
@click.option(
    "--hours",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="How long to run; interruptions do not count.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=500.0,
    show_default=True,
    help="Trades a second over all venues.",
)
@click.option(
    "--every", type=click.FloatRange(min=0.2), help="Seconds between two looks (default: 10, less in a short run)."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the simulated market.")
@click.option(
    "--dir",
    "place",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("k2-burnin"),
    show_default=True,
    help="A new folder for data and samples: the disk that is used.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Go on with the burn-in in this folder.",
)
@click.option(
    "--report",
    "again",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Run nothing: make the report anew from this folder's samples.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Also write the JSON object here.")
@click.pass_obj
def burnin(
    config: Config, hours: float, rate: float, every: float | None, seed: int, place: Path, resume: Path | None,
    again: Path | None, as_json: bool, out: Path | None,
) -> None:  # fmt: skip
    """Run the whole platform under load for hours, watch every process, and judge it against the budgets in [budget].

    The platform and the simulated exchanges are its own, in its own folder; it touches nothing that runs. Each look
    goes into samples.csv at once. An interruption (Ctrl-C, a crash, kill -9) leaves a gap there and nothing running;
    --resume goes on. In the end all data is held to the simulator's truth, and `burnin.md` and `burnin.json` tell all.

    \b
    Exit status: 0 every check is ok, 1 one is not, 2 it could not be run, 130 interrupted.
    Examples:
      k2 burnin --hours 2 --rate 500
      k2 burnin --hours 24 --dir /srv/burnin
      k2 burnin --resume /srv/burnin
      k2 burnin --report /srv/burnin --json --out burnin.json
    """
    try:
        folder = _folder(resume or again, place, Parameters(hours, rate, seed, every or _every(hours)))
        with only_one(folder.path, "burnin"):
            if not again:
                _run(config, folder)
            found = outcome(folder, config.budget)
            write(found, folder.path)
    except (BurninError, ConfigError, LogError, OSError) as error:
        note(f"k2 burnin: {error}")
        sys.exit(COULD_NOT)
    note(f"the report: {folder.path / 'burnin.md'}")
    _tell(found, as_json, out)
    sys.exit(0 if passed(found) else 1)


def _every(hours: float) -> float:
    return round(max(0.5, min(EVERY_S, hours * 3600 / LEAST_LOOKS)), 1)


def _folder(known: Path | None, place: Path, parameters: Parameters) -> Folder:
    return Folder.open(known) if known else Folder.create(place, parameters, machine())


def _run(config: Config, folder: Folder) -> None:
    """One session, to the run's end; otherwise the command ends here."""
    stop = threading.Event()
    with _told_to_stop(stop), _screen() as (say, show):
        say(f"samples and data in {folder.path}; Ctrl-C interrupts, `k2 burnin --resume {folder.path}` goes on")
        finished = Watch(config, folder, stop, say, show).run()
    if not finished:
        note(f"interrupted; nothing runs any more. Go on with: k2 burnin --resume {folder.path}")
        sys.exit(INTERRUPTED)


@contextmanager
def _told_to_stop(stop: threading.Event) -> Iterator[None]:
    usual = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


@contextmanager
def _screen() -> Iterator[tuple[Callable[[str], None], Callable[[Progress], None]]]:
    """What tells a person of lines and of progress: one line that renews itself in a terminal, else one a minute."""
    stderr = console(stderr=True)
    if not stderr.is_terminal:
        yield note, _lines()
        return
    with Live(console=stderr, auto_refresh=False, transient=True) as live:
        yield (
            lambda line: stderr.print(Text(line)),
            lambda progress: live.update(Text(f"burn-in {progress.line()}"), refresh=True),
        )


def _lines() -> Callable[[Progress], None]:
    told = [-LINE_EVERY_S]

    def show(progress: Progress) -> None:
        if progress.done - told[0] >= min(LINE_EVERY_S, progress.wanted / 10) or not progress.left:
            told[0] = progress.done
            note(progress.line())

    return show


def _tell(found: dict[str, Any], as_json: bool, out: Path | None) -> None:
    text = msgspec.json.format(msgspec.json.encode(found), indent=1)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(text + b"\n")
    if as_json:
        click.echo(text)
        return
    columns = ("process", "cpu_percent", "rss_mb_max", "rss_mb_median", "pss_mb_max", "threads_max", "files_max")
    rows = [[one[column] for column in columns] for one in found["results"]["processes"]]
    together = found["results"]["all"]
    rows.append(["all that stay", *(together.get(column) for column in columns[1:])])
    emit(columns, rows)
    click.echo()
    emit(
        ("check", "value", "unit", "target", "ok"),
        [[*list(check.values())[:4], "ok" if check["ok"] else "NOT OK"] for check in found["checks"]],
    )
    failed = sum(not check["ok"] for check in found["checks"])
    click.echo(f"\nnot passed: {failed} of {len(found['checks'])} checks" if failed else "\npassed")
