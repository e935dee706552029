"""What K2's users install, read from `requirements.lock`."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
_LINE = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[^ ;\\]+)(?: ; (?P<marker>.*?))? \\?$", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class Locked(NamedTuple):
    """One version of a package; `marker` says where it is installed, empty: everywhere."""

    name: str
    version: str
    marker: str
    hashes: frozenset[str]


def locked() -> list[Locked]:
    """All of them, in the lock's order."""
    text = LOCK.read_text()
    starts = list(_LINE.finditer(text))
    ends = [match.start() for match in starts[1:]] + [len(text)]
    return [
        Locked(m["name"], m["version"], m["marker"] or "", frozenset(_HASH.findall(text[m.end() : end])))
        for m, end in zip(starts, ends, strict=True)
    ]
