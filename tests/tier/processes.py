"""Archivers in processes of their own, which a test may kill: forked from one that has PyIceberg loaded already."""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table.update.snapshot import _FastAppendFiles

from k2.log.lmdb import LmdbLog
from k2.tier import TierError, files
from k2.tier.catalog import open_catalog
from k2.tier.offload import archiver
from k2.tier.offload.archiver import Archiver

SLICE_ROWS = 40
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload([__name__])

STEPS: dict[str, tuple[Any, str]] = {
    "the data files": (archiver, "write_files"),
    "a data file's bytes": (files.pq, "write_table"),
    "the manifests": (_FastAppendFiles, "_commit"),
    "the metadata file": (SqlCatalog, "_write_metadata"),
    "the commit": (SqlCatalog, "commit_table"),
    "the log's position": (LmdbLog, "commit"),
}


def start(target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    child = FORK.Process(target=target, args=arguments)
    child.start()
    return child


def archive(folder: Path, slice_rows: int = SLICE_ROWS) -> dict[str, Any]:
    """One run over the log and the catalog in `folder`."""
    log = LmdbLog(folder / "log", map_bytes=1 << 28)
    try:
        return dict(Archiver(log, open_catalog(folder / "cold"), ("kraken",), slice_rows).run())
    finally:
        log.close()


def die(folder: Path, step: str, when: str, call: int) -> None:
    """Archive, and be killed before, in or after the step when it is taken for the `call`th time."""
    owner, name = STEPS[step]
    real = getattr(owner, name)
    left = call

    def deadly(*args: Any, **more: Any) -> Any:
        nonlocal left
        left -= 1
        if not left and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if not left and when == "in":
            args[1].write(b"PAR1 half a fi")
            os.kill(os.getpid(), signal.SIGKILL)
        answer = real(*args, **more)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(owner, name, staticmethod(deadly) if name == "_write_metadata" else deadly)
    archive(folder)


def compete(folder: Path, both: Barrier, says: Any) -> None:
    """Archive at the same time as others; say how it ended."""
    both.wait(30)
    try:
        said = f"wrote {archive(folder)['trades'].rows}"
    except TierError as error:
        said = f"{type(error).__name__}: {error}"
    says.put(said)


def outgrow(folder: Path, limit: int, says: Any) -> None:
    """Archive where no file may grow beyond `limit` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        archive(folder, 10_000)
        said = "nothing"
    except TierError as error:
        said = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    says.put(said)


def weigh(folder: Path, slice_rows: int, says: Any) -> None:
    """Archive; say what it wrote and the most memory that it used, in bytes."""
    wrote = archive(folder, slice_rows)["trades"]
    says.put((wrote.rows, wrote.commits, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10))
