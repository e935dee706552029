"""The one form in which figures leave a command: what ran, on what, with which parameters, and whether it is enough."""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from k2 import __version__

LIBRARIES = ("chdb-core", "lmdb", "msgspec", "picows", "uvloop", "aiohttp")


class Check(NamedTuple):
    """One demand on a figure. `target` says the demand as a person reads it, e.g. `<= 12`."""

    name: str
    value: float | int | str | None
    unit: str
    target: str
    ok: bool


def at_most(name: str, value: float | None, bound: float, unit: str) -> Check:
    """Ok when there is a value and it is `bound` or less."""
    return Check(name, _short(value), unit, f"<= {bound:g}", value is not None and value <= bound)


def below(name: str, value: float | None, bound: float, unit: str) -> Check:
    """Ok when there is a value and it is less than `bound`."""
    return Check(name, _short(value), unit, f"< {bound:g}", value is not None and value < bound)


def at_least(name: str, value: float | None, bound: float, unit: str) -> Check:
    """Ok when there is a value and it is `bound` or more."""
    return Check(name, _short(value), unit, f">= {bound:g}", value is not None and value >= bound)


def equal(name: str, value: int | str | None, wanted: int | str, unit: str = "") -> Check:
    """Ok when the value is the wanted one."""
    return Check(name, value, unit, f"= {wanted}", value == wanted)


def report(parameters: Mapping[str, Any], results: Mapping[str, Any], checks: Sequence[Check]) -> dict[str, Any]:
    """The object that `--json` prints."""
    return {
        "commit": commit(),
        "machine": machine(),
        "parameters": dict(parameters),
        "results": dict(results),
        "checks": [check._asdict() for check in checks],
    }


def passed(found: Mapping[str, Any]) -> bool:
    """Whether every check of a report is ok."""
    return all(check["ok"] for check in found["checks"])


@cache
def commit() -> str:
    """The commit that runs, `-dirty` if tracked files differ from it; the package's version where there is no git."""
    root = Path(__file__).parents[3]
    if (root / ".git").exists():
        try:
            words = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
            done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
            return done.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass
    return f"version {__version__}"


@cache
def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_mb": psutil.virtual_memory().total >> 20,
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "k2": __version__,
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def filesystem(folder: Path) -> str:
    """The type of the file system that holds a folder, e.g. `ext4`; empty if unknown."""
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    path = folder.resolve()
    return next((mounts[place] for place in (path, *path.parents) if place in mounts), "")


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _short(value: float | None) -> float | int | None:
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.4g}") if abs(value) < 1e4 else round(value)
