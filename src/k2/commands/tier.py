"""What the commands of the cold tier have in common: progress, interruption, errors in a line."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from k2.config import Config, ConfigError
from k2.log import Log, LogError
from k2.store import StoreError
from k2.terminal import console, note
from k2.tier import Progress, TierError
from k2.wire import open_log

SAY_EVERY = 5.0

Say = Callable[[Progress], object]


@contextmanager
def said(command: str, code: int = 1) -> Iterator[None]:
    """What goes wrong is told in a line, and ends the command with `code`."""
    try:
        yield
    except (TierError, LogError, StoreError, ConfigError) as error:
        note(f"k2 {command}: {error}")
        sys.exit(code)


@contextmanager
def log_of(config: Config) -> Iterator[Log]:
    """The log, closed in the end."""
    log = open_log(config)
    try:
        yield log
    finally:
        log.close()


def told_to_stop() -> threading.Event:
    """Set by the first SIGINT or SIGTERM; the second ends the process as usual."""
    stop = threading.Event()

    def handle(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stop


@contextmanager
def progress() -> Iterator[Say]:
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
                bars.update(tasks[at.table], completed=at.done, total=at.total)

            yield draw
        return
    told = time.monotonic()

    def say(at: Progress) -> None:
        nonlocal told
        if time.monotonic() - told >= SAY_EVERY:
            told = time.monotonic()
            note(f"{at.table}: {at.done:,} of {at.total:,}")

    yield say
