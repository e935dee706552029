"""`k2 archive`: the cold tier, filled, kept and proven."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
import msgspec

from k2.config import EXCHANGES, Config, ConfigError
from k2.log import Log, LogError
from k2.ops import journal
from k2.store import StoreError
from k2.terminal import console, emit, note
from k2.tier import Progress, TierError, Written
from k2.tier.heads import behind
from k2.wire import open_archive, open_log, read_heads

Say = Callable[[Progress], object]


@click.group(invoke_without_command=True)
@click.option("--every", is_flag=True, help="Stay, offload every tier.every_s and maintain daily at tier.maintain_at.")
@click.option("--json", "as_json", is_flag=True, help="What was done as one JSON object.")
@click.pass_context
def archive(ctx: click.Context, every: bool, as_json: bool) -> None:
    """Move what the log has and the cold tier lacks into its Iceberg tables, each record exactly once.

    Safe to interrupt anywhere, and to run beside everything else; two at once: one wins, the other says so.

    \b
    Exit status: 0 all is archived, 1 it is not (the text says why, and what to do).
    Examples:
      k2 archive                       now
      k2 archive --every               as a service, as `k2 up` runs it
      k2 archive maintain --dry-run    what a maintenance would do
      k2 archive audit                 log against cold, record by record
    """
    if ctx.invoked_subcommand:
        return
    config: Config = ctx.obj
    with _said("archive"):
        if every:
            _stay(config)
        else:
            journal.setup(config, "archive")
            _offload(config, as_json)


@contextmanager
def _said(command: str) -> Iterator[None]:
    """What goes wrong is told in a line, and ends the command with 1."""
    try:
        yield
    except (TierError, LogError, StoreError, ConfigError) as error:
        note(f"k2 {command}: {error}")
        sys.exit(1)


@contextmanager
def _log_of(config: Config) -> Iterator[Log]:
    log = open_log(config)
    try:
        yield log
    finally:
        log.close()


def _told_to_stop() -> threading.Event:
    """Set by the first SIGINT or SIGTERM; the second ends the process as usual."""
    stop = threading.Event()

    def handle(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stop


def _stay(config: Config) -> None:
    from k2.metrics import serve
    from k2.ops.archiver import Resident

    journal.setup(config, "archiver")
    stop = _told_to_stop()
    with _log_of(config) as log:
        serve(config, "archiver")
        Resident(config, log, stop).run()


# -- offload -----------------------------------------------------------------------------------------------------------


def _offload(config: Config, as_json: bool) -> None:
    begun = time.monotonic()
    stop = _told_to_stop()
    with _log_of(config) as log:
        if not behind(log, read_heads(config), EXCHANGES):
            written: Mapping[str, Written] = {}
        else:
            with _progress() as on_progress:
                written = open_archive(config, log).run(on_progress, stop.is_set)
        left = sum(behind(log, read_heads(config), EXCHANGES).values()) if stop.is_set() else 0
    _show_offload(written, left, time.monotonic() - begun, as_json)


@contextmanager
def _progress() -> Iterator[Say]:
    """A bar for each table in a terminal; a line every few seconds elsewhere."""
    if sys.stderr.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Bars(*columns, console=console(stderr=True)) as bars:
            tasks: dict[str, Any] = {}

            def draw(at: Progress) -> None:
                if at.table not in tasks:
                    tasks[at.table] = bars.add_task(at.table, total=at.total)
                bars.update(tasks[at.table], completed=at.done)

            yield draw
        return
    said = time.monotonic()

    def say(at: Progress) -> None:
        nonlocal said
        if time.monotonic() - said >= 5.0 or at.done >= at.total:
            said = time.monotonic()
            note(f"{at.table}: {at.done:,} of {at.total:,} records")

    yield say


def _show_offload(written: Mapping[str, Written], left: int, seconds: float, as_json: bool) -> None:
    if as_json:
        tables = {name: one._asdict() for name, one in written.items()}
        click.echo(msgspec.json.encode({"tables": tables, "left": left, "seconds": round(seconds, 3)}))
        return
    if not any(one.commits for one in written.values()):
        note("nothing new: the cold tier has all that the log holds")
        return
    emit(
        ("table", "rows", "duplicates", "files", "bytes", "commits"),
        [(name, w.rows, w.duplicates, w.files, w.bytes, w.commits) for name, w in written.items()],
    )
    note(f"in {seconds:.1f} s" + (f"; interrupted, {left:,} records are left: run again" if left else ""))
