"""When each batch of trades passed each stage of its way: files that `k2 bench latency` joins. Off unless started.

A stage is noted a batch at a time, as four native int64: first, number, and two times, in ns of CLOCK_REALTIME. They go
into `<folder>/<stage>/<name>.<process id>`, one system call a batch, so that what was noted outlives any kill.

    stage     name                  first .. first + number   times
    sent      exchange/symbol/epoch trade ids                 the simulator begins, and has, written them to its sockets
    logged    stream                offsets                   decoded; durable in the log
    loaded    stream                offsets                   read by the loader; visible in `silver_trades`
    received  stream                offsets                   in a subscriber's hands, twice the same
"""

import logging
import os
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import quote, unquote

Stage = Literal["sent", "logged", "loaded", "received"]

_log = logging.getLogger("k2.trace")
_FIELDS = 4
_SIZE = 8 * _FIELDS


class Noted(NamedTuple):
    """A batch as noted: records `first` and the `number - 1` after it, between two times (ns)."""

    first: int
    number: int
    begun: int
    ended: int


class _Files:
    """This process's trace. `folder` None: off."""

    folder: Path | None = None
    open: dict[tuple[Stage, str], int] = {}


def start(folder: str) -> None:
    """Trace this process into a folder; empty: don't. Raises OSError."""
    stop()
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _Files.folder = Path(folder)


def stop() -> None:
    """Trace no more. Idempotent."""
    _Files.folder = None
    for file in _Files.open.values():
        os.close(file)
    _Files.open.clear()


def on() -> bool:
    """Whether this process is traced."""
    return _Files.folder is not None


def note(stage: Stage, name: str, first: int, number: int, begun: int, ended: int) -> None:
    """A batch has passed a stage. Does nothing unless the trace is on. A file that cannot be written ends the trace."""
    if _Files.folder is None or not number:
        return
    try:
        file = _Files.open.get((stage, name))
        if file is None:
            file = _Files.open[stage, name] = _opened(_Files.folder / stage, name)
        os.write(file, array("q", (first, number, begun, ended)).tobytes())
    except OSError as error:
        _log.error("the trace ends here, its file cannot be written: %s", error)
        stop()


def _opened(folder: Path, name: str) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{quote(name, safe='')}.{os.getpid()}"
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def read(folder: Path, stage: Stage) -> Mapping[str, list[Noted]]:
    """What all processes noted of a stage, by name, each process's in its order. Torn ends are left out."""
    found: dict[str, list[Noted]] = {}
    for path in sorted((folder / stage).glob("*")):
        numbers = array("q")
        content = path.read_bytes()
        numbers.frombytes(content[: len(content) // _SIZE * _SIZE])
        noted = found.setdefault(unquote(path.name.rpartition(".")[0]), [])
        noted += [Noted(*numbers[at : at + _FIELDS]) for at in range(0, len(numbers), _FIELDS)]
    return found
