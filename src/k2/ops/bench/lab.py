"""A bench's own place: a folder, free ports, and processes that end with it, however it ends."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec
import psutil

from k2.config import Config, settings, variable
from k2.metrics import read_status
from k2.ops import ports
from k2.ops.bench.samples import Memory, cpu_seconds, memory
from k2.ops.report import filesystem

READY_WITHIN = 30.0
STOP_WITHIN = 8.0
IN_MEMORY = ("tmpfs", "ramfs")

free_port = ports.free_port


class LabError(Exception):
    """The bench could not measure; the text says which part failed and where its words are."""


def environment(config: Config) -> dict[str, str]:
    """Environment variables that give a process this configuration whole, whatever the person's own says."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("K2_")}
    for setting in settings():
        value: Any = config
        for key in setting.path:
            value = getattr(value, key)
        clean[variable(setting.path)] = str(value).lower() if isinstance(value, bool) else str(value)
    return clean


class Process:
    """A child that ends when its standard input does; so it outlives its bench in no case."""

    def __init__(
        self, name: str, command: Sequence[str], environ: Mapping[str, str], words: Path, speaks: bool,
        under: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """`words`: where its standard error goes, and, unless it `speaks` to the bench, its standard output. `under` is
        put before the command, such as `ip netns exec NAME`."""
        self.name = name
        self.words = words
        words.parent.mkdir(parents=True, exist_ok=True)
        with words.open("ab") as errors:
            self.child = subprocess.Popen(
                [*under, sys.executable, *command],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE if speaks else errors, stderr=errors,
                env=environ, start_new_session=True,
            )  # fmt: skip
        self.process = psutil.Process(self.child.pid)
        self._unread = b""

    def alive(self) -> None:
        """Raises LabError, with its last words, if it has ended."""
        code = self.child.poll()
        if code is not None:
            raise LabError(f"{self.name} ended with exit code {code}: {self._last_words()}")

    def _last_words(self) -> str:
        lines = self.words.read_text(errors="replace").strip().splitlines()
        return lines[-1][-600:] if lines else f"it said nothing in {self.words}"

    def cpu(self) -> float:
        """Seconds of processor time used until now."""
        return cpu_seconds(self.process)

    def memory(self) -> Memory:
        return memory(self.process)

    def tell(self, command: Mapping[str, Any]) -> None:
        """Write one JSON line to its standard input."""
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(json.dumps(command).encode() + b"\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            self.alive()
            raise LabError(f"{self.name} no longer listens; see {self.words}") from None

    def hear(self, timeout: float) -> dict[str, Any]:
        """The next JSON line of its standard output. Raises LabError when none comes in time."""
        assert self.child.stdout is not None
        fd = self.child.stdout.fileno()
        deadline = time.monotonic() + timeout
        while b"\n" not in self._unread:
            if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise LabError(f"{self.name} said nothing for {timeout:.0f} s; see {self.words}")
            chunk = os.read(fd, 1 << 16)
            if not chunk:
                self.child.wait(STOP_WITHIN)
                self.alive()
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for what does not heed it. Idempotent."""
        with suppress(ProcessLookupError):
            self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


class Lab:
    """The place. Use it as a context manager: leaving it stops its processes and removes its folder."""

    def __init__(
        self, base: Config, say: Callable[[str], None], parent: Path | None = None, keep: bool = False
    ) -> None:
        """`say` takes lines of progress; the folder is made in `parent` and stays if `keep`."""
        self.base = base
        self.say = say
        self.keep = keep
        self.folder = Path(tempfile.mkdtemp(prefix="k2-bench-", dir=parent or _disk()))
        self.processes: list[Process] = []
        if filesystem(self.folder) in IN_MEMORY:
            say(f"{self.folder} is in memory: durable writes cost nothing there; name a disk with --dir")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()
        if self.keep:
            self.say(f"kept {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def place(self) -> dict[str, str]:
        """Facts of the folder that the figures depend on."""
        return {"filesystem": filesystem(self.folder)}

    def config(self, name: str, **sections: Mapping[str, Any]) -> Config:
        """The person's configuration with a fresh data folder `name` and free ports; `sections` change settings."""
        changes: dict[str, dict[str, Any]] = {
            "store": {"port": free_port()},
            "web": {"port": free_port()},
            "sim": {"ws_port": free_port(), "rest_port": free_port()},
            "metrics": {"port": 0},
        }
        for section, values in sections.items():
            changes.setdefault(section, {}).update(values)
        tree = {key: msgspec.structs.replace(getattr(self.base, key), **values) for key, values in changes.items()}
        return msgspec.structs.replace(self.base, data=str(self.folder / name), **tree)

    def k2(self, config: Config, name: str, arguments: Sequence[str], speaks: bool = False) -> Process:
        """Start `k2 <arguments>` as the process called `name`; what it prints is the bench's to read if it `speaks`."""
        return self._start(name, ["-m", "k2.child", *arguments], environment(config), config.run_dir, speaks)

    def partner(self, module: str, *arguments: str, config: Config | None = None) -> Process:
        """Start one of the benches' own processes: it hears and says JSON lines."""
        name = module.rpartition(".")[2]
        return self._start(name, ["-m", module, *arguments], environment(config or self.base), self.folder, speaks=True)

    def run(
        self, name: str, command: Sequence[str], environ: Mapping[str, str], folder: Path, under: Sequence[str] = ()
    ) -> Process:
        """Start Python with this command line; what it prints goes to `<name>.err` in the folder."""
        process = Process(name, command, environ, folder / f"{name}.err", speaks=False, under=under)
        self.processes.append(process)
        return process

    def _start(
        self, name: str, command: Sequence[str], environ: Mapping[str, str], folder: Path, speaks: bool
    ) -> Process:
        process = Process(name, command, environ, folder / f"{name}.err", speaks)
        self.processes.append(process)
        return process

    def ready(self, config: Config, *processes: Process) -> None:
        """Until each has left its status file in the run folder. Raises LabError."""
        for process in processes:
            self.until(partial(_left_word, config.run_dir, process), f"{process.name} to be ready")

    def until(self, done: Callable[[], bool], what: str, timeout: float = READY_WITHIN, every: float = 0.02) -> None:
        """Wait for something. Raises LabError if a process of the lab ends or the time is over."""
        deadline = time.monotonic() + timeout
        while not done():
            for process in self.processes:
                process.alive()
            if time.monotonic() > deadline:
                raise LabError(f"waited {timeout:.0f} s for {what} in vain; run again with --keep and read the logs")
            time.sleep(every)

    def stop(self, *processes: Process) -> None:
        """Stop these processes, or all, in the order given or started."""
        for process in processes or tuple(reversed(self.processes)):
            process.stop()
            if process in self.processes:
                self.processes.remove(process)


def _disk() -> Path:
    """The folder for temporary files; `/var/tmp` where that one is in memory."""
    usual, lasting = Path(tempfile.gettempdir()), Path("/var/tmp")
    return lasting if filesystem(usual) in IN_MEMORY and lasting.is_dir() else usual


def _left_word(run_dir: Path, process: Process) -> bool:
    word = read_status(run_dir).get(process.name)
    return word is not None and word["pid"] == process.child.pid
