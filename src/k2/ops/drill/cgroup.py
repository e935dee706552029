"""A group of processes with a memory limit, of the kernel's first or second kind of control groups."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from k2.ops.drill import DrillError
from k2.ops.drill.needs import memory_controller

GONE_WITHIN_S = 5.0


class MemoryGroup:
    """Made empty; what `take` puts in may use so much more memory than it has, and is killed by the kernel beyond that.

    A context manager: leaving it puts what lives still back to where it was, and removes the group. Needs root.
    """

    def __init__(self, label: str) -> None:
        """Raises DrillError."""
        parent = memory_controller()
        if parent is None:
            raise DrillError("the memory controller of control groups is not to be had")
        self.folder = parent / f"k2-drill-{label}-{os.getpid()}"
        self._second = not (parent / "memory.limit_in_bytes").exists()
        self._before: dict[int, str] = {}
        try:
            self.folder.mkdir()
        except OSError as error:
            raise DrillError(f"{self.folder} cannot be made: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def limit(self, mb: int) -> None:
        """Raises DrillError."""
        self._write("memory.max" if self._second else "memory.limit_in_bytes", str(mb << 20))

    def take(self, pid: int) -> None:
        """Put a process in. What it holds already counts for where it was. Raises DrillError."""
        with suppress(OSError):
            self._before[pid] = self._of(pid)
        self._write("cgroup.procs", str(pid))

    def kills(self) -> int:
        """How many processes of the group the kernel has killed because memory ran out."""
        file = self.folder / ("memory.events" if self._second else "memory.oom_control")
        words = dict(line.split() for line in file.read_text().splitlines())
        return int(words.get("oom_kill", 0))

    def close(self) -> None:
        """Idempotent."""
        root = self.folder.parent
        with suppress(OSError):
            for pid in (self.folder / "cgroup.procs").read_text().split():
                home = root / self._before.get(int(pid), "").lstrip("/")
                with suppress(OSError):
                    (home / "cgroup.procs").write_text(pid)
        deadline = time.monotonic() + GONE_WITHIN_S
        while self.folder.is_dir() and time.monotonic() < deadline:  # the dead are counted until they are buried
            with suppress(OSError):
                self.folder.rmdir()
            time.sleep(0.05)

    def _of(self, pid: int) -> str:
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if (not controllers) if self._second else "memory" in controllers.split(","):
                return path
        return ""

    def _write(self, file: str, text: str) -> None:
        try:
            (self.folder / file).write_text(text)
        except OSError as error:
            raise DrillError(f"{self.folder / file} does not take {text}: {error}") from None
