"""How much of the disk the data folder takes, part by part, and how much is free."""

import os
import shutil
import time
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

REMEMBERED_S = 10.0  # a walk over many files is not made for every request


class Disk(msgspec.Struct):
    """Disk use, in bytes."""

    folder: Annotated[str, Meta(description="The data folder.")]
    used: Annotated[int, Meta(description="What the data folder takes.")]
    parts: Annotated[
        dict[str, int], Meta(description="The same by part: `log`, `store`, `cold`, `run` and whatever else is there.")
    ]
    free: Annotated[int, Meta(description="Free space on its file system.")]
    total: Annotated[int, Meta(description="Size of that file system.")]


_seen: dict[Path, tuple[float, Disk]] = {}


def disk(folder: Path) -> Disk:
    """The disk use of a data folder, at most some seconds old. Blocks. What vanishes meanwhile does not count."""
    at, known = _seen.get(folder, (0.0, None))
    if known is None or time.monotonic() - at > REMEMBERED_S:
        known = _measured(folder)
        _seen[folder] = time.monotonic(), known
    return known


def _measured(folder: Path) -> Disk:
    parts: dict[str, int] = {}
    try:
        for entry in os.scandir(folder):
            name = entry.name if entry.is_dir(follow_symlinks=False) else "files"
            parts[name] = parts.get(name, 0) + _taken(entry)
    except FileNotFoundError:
        pass
    usage = shutil.disk_usage(_existing(folder))
    return Disk(str(folder), sum(parts.values()), dict(sorted(parts.items())), usage.free, usage.total)


def _taken(entry: os.DirEntry[str]) -> int:
    """Bytes on disk, which may be fewer than a sparse file is long."""
    try:
        if not entry.is_dir(follow_symlinks=False):
            return entry.stat(follow_symlinks=False).st_blocks * 512
        return sum(_taken(inner) for inner in os.scandir(entry.path))
    except OSError:
        return 0


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
