"""The commands of runbooks, as drills execute them, so that they cannot rot.

A fenced block of a runbook is for drills if its first line is `# drill: diagnosis` (run while the failure lasts) or
`# drill: resolution` (run once it is over). Names of drills may follow; then only those run it. The block is run by
`sh -eu`, with every K2_* setting of the platform in its environment and `k2` on its PATH, and must exit with 0.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

DIAGNOSIS, RESOLUTION = "diagnosis", "resolution"
WITHIN_S = 60.0
FOLDER = Path(__file__).parents[4] / "docs/runbooks"
_BLOCK = re.compile(r"^```sh\n# drill: (diagnosis|resolution)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One block of a runbook. `drills` empty: any."""

    runbook: str
    moment: str
    drills: tuple[str, ...]
    script: str


class Ran(NamedTuple):
    """What came of a block. `ok`: it exited with 0 in time."""

    runbook: str
    moment: str
    script: str
    ok: bool
    seconds: float
    said: str


def blocks(file: Path) -> list[Block]:
    """The blocks for drills in a runbook. Raises OSError."""
    text = file.read_text()
    return [
        Block(file.name, moment, tuple(re.findall(r"[\w-]+", names)), script)
        for moment, names, script in _BLOCK.findall(text)
    ]


def run(folder: Path, runbooks: tuple[str, ...], drill: str, moment: str, environ: Mapping[str, str]) -> Iterator[Ran]:
    """Execute what these runbooks mark for this drill and moment. Runbooks that are not written yet have nothing."""
    for name in runbooks:
        file = folder / name
        for block in blocks(file) if file.exists() else ():
            if block.moment == moment and (not block.drills or drill in block.drills):
                yield _run(block, environ)


def _run(block: Block, environ: Mapping[str, str]) -> Ran:
    began = time.monotonic()
    paths = f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', os.defpath)}"
    try:
        done = subprocess.run(
            ["sh", "-euc", block.script], env={**environ, "PATH": paths}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=WITHIN_S, check=False,
        )  # fmt: skip
        code, said = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        code, said = -1, (late.stdout or b"") + b"\nstill running after %d s" % WITHIN_S
    text = said.decode(errors="replace").strip()
    return Ran(block.runbook, block.moment, block.script, code == 0, time.monotonic() - began, text[-2000:])
