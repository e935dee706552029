"""A burn-in on disk: what was asked for, when it ran, and every sample, each written as soon as it is taken.

    <dir>/burnin-state.json   parameters, sessions, what the check in the end found
    <dir>/samples.csv         a row a process a look (`ProcessRow`)
    <dir>/platform.csv        a row a look (`PlatformRow`)
    <dir>/data  <dir>/sim     the platform's data folder, and the simulator's with the truth
    <dir>/burnin.json .md .svg   the report

A session is one life of the command. An interruption leaves no rows, and none are made up for it.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import msgspec

from k2.ops.burnin import BurninError

STATE = "burnin-state.json"


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was asked for: hours to run, trades a second, the simulator's seed, seconds between two looks."""

    hours: float
    rate: float
    seed: int
    every_s: float

    @property
    def seconds(self) -> float:
        return self.hours * 3600


class Session(msgspec.Struct):
    """One life of the command, in epoch seconds. `how` is empty while it runs, and stays so when it was killed."""

    began: float
    commit: str
    ended: float = 0.0
    how: str = ""
    ends: list[str] = []  # processes of the stage that ended by themselves: the supervisor, the simulator


class State(msgspec.Struct):
    """What `burnin-state.json` holds. `proof`: see `proof.py`; None until the run has come to its end."""

    parameters: Parameters
    machine: dict[str, Any]
    sessions: list[Session] = []
    proof: dict[str, Any] | None = None


class ProcessRow(NamedTuple):
    """One process at one look. Memory in bytes; -1: not measured at this look.

    `service`: its name; `job` for what the archiver starts, `sim` and `burnin` for what is no part of the platform.
    `cpu_s`: user and system time since its start, with that of its children but for the supervisor's.
    `rss`: resident; `peak`: the most that was ever resident; `own`: resident and of no file (what a leak grows); `pss`,
    `uss`: as the kernel says them.
    """

    at: float
    session: int
    service: str
    pid: int
    cpu_s: float
    rss: int
    peak: int
    own: int
    pss: int
    uss: int
    threads: int
    files: int
    queue: int


class PlatformRow(NamedTuple):
    """The platform at one look. Counts are since the processes' start; lags in records; latencies (p99 since the look
    before) in seconds, disk use in bytes; -1: not known. `machine_cpu`: of all that runs on the machine since the look
    before, in percent of one core."""

    at: float
    session: int
    made: int
    trades: int
    lag_loader: int
    lag_archiver: int
    gaps_open: int
    gaps_healed: int
    duplicates: int
    faults: int
    reconnects: int
    offloads: int
    offloads_failed: int
    visible_p99: float
    candle_p99: float
    disk_log: int
    disk_store: int
    disk_cold: int
    disk_run: int
    disk_free: int
    machine_cpu: float


class Folder:
    """A burn-in's folder. `create` begins one, `open` finds one."""

    def __init__(self, path: Path, state: State) -> None:
        self.path = path
        self.state = state

    @classmethod
    def create(cls, path: Path, parameters: Parameters, machine: dict[str, Any]) -> "Folder":
        """Raises BurninError if the folder holds something."""
        if (path / STATE).exists():
            raise BurninError(f"{path} holds a burn-in: go on with `k2 burnin --resume {path}`, or name another --dir")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise BurninError(f"{path} is not an empty folder: name another with --dir")
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path.absolute(), State(parameters, machine))
        folder.save()
        return folder

    @classmethod
    def open(cls, path: Path) -> "Folder":
        """Raises BurninError if there is none."""
        try:
            state = msgspec.json.decode((path / STATE).read_bytes(), type=State)
        except FileNotFoundError:
            raise BurninError(f"{path} holds no burn-in: begin one with `k2 burnin --dir {path}`") from None
        except msgspec.DecodeError as error:
            raise BurninError(f"{path / STATE} cannot be read: {error}") from None
        return cls(path.absolute(), state)

    def save(self) -> None:
        part = self.path / f"{STATE}.part"
        part.write_bytes(msgspec.json.format(msgspec.json.encode(self.state)))
        part.replace(self.path / STATE)

    @property
    def samples(self) -> Path:
        return self.path / "samples.csv"

    @property
    def platform(self) -> Path:
        return self.path / "platform.csv"

    def processes(self) -> list[ProcessRow]:
        """Every process at every look, in the order of time."""
        return [ProcessRow(*fields) for fields in _rows(self.samples, ProcessRow)]

    def looks(self) -> list[PlatformRow]:
        """The platform at every look, in the order of time."""
        return [PlatformRow(*fields) for fields in _rows(self.platform, PlatformRow)]

    def seconds_run(self) -> float:
        """How long the platform was watched so far: within sessions, from the first look to the last."""
        first: dict[int, float] = {}
        last: dict[int, float] = {}
        for row in self.looks():
            first.setdefault(row.session, row.at)
            last[row.session] = row.at
        return sum(last[session] - first[session] for session in first)


class Sheet:
    """A CSV file that rows are added to. A line that a kill tore is cut off first. Raises BurninError if the file has
    other columns: another version of K2 wrote it."""

    def __init__(self, file: Path, row: type[tuple[Any, ...]]) -> None:
        names = ",".join(get_type_hints(row)) + "\n"
        if file.exists():
            _same_columns(file, row)
            whole = file.read_bytes()
            end = whole.rfind(b"\n") + 1
            if end < len(whole):
                with file.open("r+b") as torn:
                    torn.truncate(end)
        self._file = file.open("a", buffering=1 << 16, newline="")
        if not self._file.tell():
            self._file.write(names)

    def add(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write the rows in one piece, so that a kill tears at most one line."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue())
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _rows(file: Path, row: type[tuple[Any, ...]]) -> Iterator[list[Any]]:
    """The whole lines; one that is being written, or that a kill tore, has no end yet."""
    kinds = list(get_type_hints(row).values())
    if not file.exists():
        return
    _same_columns(file, row)
    with file.open(newline="") as lines:
        next(lines, None)
        for fields in csv.reader(line for line in lines if line.endswith("\n")):
            yield [kind(field) for kind, field in zip(kinds, fields, strict=True)]


def _same_columns(file: Path, row: type[tuple[Any, ...]]) -> None:
    with file.open() as lines:
        found = lines.readline()
    if found.endswith("\n") and found != ",".join(get_type_hints(row)) + "\n":
        raise BurninError(
            f"{file} has other columns than this version of K2 writes: use the version that began the run"
        )
