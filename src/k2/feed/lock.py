"""One handler an exchange: a second one would write the same streams."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from k2.config import ConfigError


@contextmanager
def only_one(run_dir: Path, service: str) -> Iterator[None]:
    """Hold `<service>.lock` in the run folder, which names this process. Raises ConfigError if another one holds it."""
    run_dir.mkdir(parents=True, exist_ok=True)
    file = run_dir / f"{service}.lock"
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            raise ConfigError(
                f"another {service} runs on this data folder (pid {holder}): stop it, or name another with --data"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
