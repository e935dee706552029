"""Runs of `k2` in children of their own: measured, and killed where a bench wants it, with a verdict on what was cut.

What a kill has interrupted is told by what it left: files that no table names yet, and tables that moved on.
"""

import os
import select
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from k2.config import Config
from k2.ops.bench.lab import Lab, LabError, Process
from k2.tier.heads import Head
from k2.wire import read_heads

LOOK_EVERY = 0.01
GIVE_UP_AFTER = 3600.0
LAST_WORDS = 600


class Moment(NamedTuple):
    """When to kill: so many seconds after the start or, `at_work`, after the first new file in the cold folder."""

    after: float
    at_work: bool


class Run(NamedTuple):
    """A child from its start to its end. Bytes: `peak` resident, `own` without the files that are mapped.

    `step`: where it was killed; empty if it was not. `said`: its JSON; None if it printed none. `words`: its last line.
    """

    code: int
    seconds: float
    peak: int
    own: int
    step: str
    said: Any
    words: str

    @property
    def ok(self) -> bool:
        return self.code == 0


class Trace(NamedTuple):
    """The cold folder at one time."""

    files: frozenset[str]
    heads: Mapping[str, Head]


def trace(config: Config) -> Trace:
    """What stands in the cold folder now. Raises TierError."""
    return Trace(_files(config.cold_dir), read_heads(config))


def run(lab: Lab, config: Config, arguments: list[str], moment: Moment | None = None) -> Run:
    """Run `k2 <arguments>` to its end, or until killed with SIGKILL at `moment`. Raises LabError if it never ends."""
    before = trace(config) if moment else None
    name = "-".join(word for word in arguments if not word.startswith("-"))
    process = lab.k2(config, name, arguments, speaks=True)
    spoken, at_work, killed = bytearray(), 0.0, False
    peak = own = 0
    began = time.monotonic()
    while process.child.poll() is None:
        spoken += _read(process)
        peak, own = map(max, _memory(process), (peak, own))
        now = time.monotonic()
        if moment and before and not killed:
            if moment.at_work and not at_work and _files(config.cold_dir) - before.files:
                at_work = now
            if now - ((at_work or now) if moment.at_work else began) >= moment.after and (
                at_work or not moment.at_work
            ):
                process.child.kill()
                killed = True
        if now - began > GIVE_UP_AFTER:
            raise LabError(f"`k2 {' '.join(arguments)}` did not end within {GIVE_UP_AFTER:.0f} s; see {process.words}")
    seconds = time.monotonic() - began
    while more := _read(process):
        spoken += more
    lab.stop(process)
    code = process.child.returncode
    killed = killed and code < 0
    step = _step(before, trace(config)) if killed and before else ""
    return Run(code, seconds, peak, own, step, _json(bytes(spoken)), _last_line(process.words))


def _read(process: Process) -> bytes:
    """What it has said since; waits a little for it. Empty at the end, too."""
    assert process.child.stdout is not None
    fd = process.child.stdout.fileno()
    return os.read(fd, 1 << 16) if select.select([fd], [], [], LOOK_EVERY)[0] else b""


def _memory(process: Process) -> tuple[int, int]:
    """Most bytes that it has had resident, and how many are its own now."""
    found = {}
    try:
        for line in Path(f"/proc/{process.child.pid}/status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in ("VmHWM", "RssAnon"):
                found[name] = int(rest.split()[0]) << 10
    except OSError:
        pass
    return found.get("VmHWM", 0), found.get("RssAnon", 0)


def _files(folder: Path) -> frozenset[str]:
    return frozenset(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)


def _step(before: Trace, after: Trace) -> str:
    """What the child was doing when it was killed."""
    moved = {name for name, head in after.heads.items() if head.snapshot_id != _snapshot(before, name)}
    still = {_folder(head) for name, head in after.heads.items() if name not in moved}
    new = after.files - before.files
    left = [file for file in new if any(file.startswith(folder) for folder in still)]
    if any(file.endswith("-journal") for file in new):
        return "in the catalog's commit"
    if any(file.endswith(".metadata.json") for file in left):
        return "metadata written, not committed"
    if any(file.endswith(".avro") for file in left):
        return "manifests written, not committed"
    if any(file.endswith(".parquet") for file in left):
        return "data files written, not committed"
    if moved:
        return "after a commit"
    return "files of its own written" if new else "before the first file"


def _snapshot(trace_: Trace, name: str) -> int | None:
    head = trace_.heads.get(name)
    return head.snapshot_id if head else None


def _folder(head: Head) -> str:
    """Where a table's files lie."""
    return head.metadata_location.removeprefix("file://").rpartition("/metadata/")[0] + "/"


def _json(spoken: bytes) -> Any:
    try:
        return msgspec.json.decode(spoken)
    except msgspec.DecodeError:
        return None


def _last_line(words: Path) -> str:
    lines = words.read_text(errors="replace").strip().splitlines()
    return lines[-1][-LAST_WORDS:] if lines else ""
