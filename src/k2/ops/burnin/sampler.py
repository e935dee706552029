"""One look at a running stage: every process by the kernel's figures, the platform by its own metrics, the disk."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from k2.metrics import read_status
from k2.ops.burnin.folder import PlatformRow, ProcessRow
from k2.ops.burnin.stage import Stage
from k2.ops.vitals import Observer, Vitals

SLOWLY = 60.0  # s between two looks at what is dear: shared pages, disk use
UNKNOWN = -1
JOB, SIM, SELF = "job", "sim", "burnin"
OUTSIDE = (SIM, SELF)  # watched, but no part of the platform


class Look(NamedTuple):
    """What one look saw; `vitals` as `k2 status` has it."""

    processes: list[ProcessRow]
    platform: PlatformRow
    vitals: Vitals


class Sampler:
    """Looks at one stage within one session."""

    def __init__(self, stage: Stage, session: int) -> None:
        self.stage = stage
        self.session = session
        self._observer = Observer(stage.config.run_dir)
        self._slow_at = 0.0
        self._disk = dict.fromkeys(("log", "store", "cold", "run"), UNKNOWN)

    def look(self) -> Look:
        """Never raises for a process that ends meanwhile: it is not in the look."""
        at = time.time()
        slow = at - self._slow_at >= SLOWLY
        if slow:
            self._slow_at = at
            data = self.stage.config.data_dir
            self._disk = {part: disk_use(data / part) for part in self._disk}
        vitals = self._observer.look()
        queues = {process.pid: process.queue for process in vitals.processes}
        rows = [
            row
            for service, process in self._processes()
            if (row := self._row(round(at, 2), service, process, queues.get(process.pid, 0), slow))
        ]
        return Look(rows, self._platform(round(at, 2), vitals), vitals)

    def _processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """The supervisor, its services, what they started; the simulator, and ourselves."""
        names = {int(word["pid"]): name for name, word in read_status(self.stage.config.run_dir).items()}
        if self.stage.supervisor is not None:
            root = self.stage.supervisor.process
            names[root.pid] = "supervisor"
            with suppress(psutil.Error):
                for process in (root, *root.children(recursive=True)):
                    yield names.get(process.pid, JOB), process
        if self.stage.sim is not None:
            yield SIM, self.stage.sim.process
        yield SELF, psutil.Process()

    def _row(self, at: float, service: str, process: psutil.Process, queue: int, slow: bool) -> ProcessRow | None:
        try:
            with process.oneshot():
                if process.status() == psutil.STATUS_ZOMBIE:
                    return None
                rss, files, threads = process.memory_info().rss, process.num_fds(), process.num_threads()
            pss, uss = shared(process) if slow else (UNKNOWN, UNKNOWN)
            own, peak = own_and_peak(process)
            cpu = round(_cpu(process, service), 2)
            return ProcessRow(
                at, self.session, service, process.pid, cpu, rss, peak, own, pss, uss, threads, files, queue
            )
        except psutil.Error:
            return None

    def _platform(self, at: float, vitals: Vitals) -> PlatformRow:
        venues = vitals.venues
        offload = vitals.jobs.get("offload")
        none = (UNKNOWN, UNKNOWN)
        data = self.stage.config.data_dir
        return PlatformRow(
            at=at,
            session=self.session,
            made=int(self.stage.status().get("made", UNKNOWN)),
            trades=sum(venue.trades for venue in venues),
            lag_loader=sum(vitals.lags.get("loader", {}).values()),
            lag_archiver=sum(vitals.lags.get("archiver", {}).values()),
            gaps_open=sum(venue.gaps_open for venue in venues),
            gaps_healed=sum(venue.gaps_healed for venue in venues),
            duplicates=sum(venue.duplicates for venue in venues),
            faults=sum(venue.faults for venue in venues),
            reconnects=sum(venue.reconnects for venue in venues),
            offloads=offload.ok if offload else 0,
            offloads_failed=offload.failed if offload else 0,
            visible_p99=round(vitals.stages.get("receive_to_visible", none)[1], 5),
            candle_p99=round(vitals.stages.get("candle_visible", none)[1], 5),
            disk_log=self._disk["log"],
            disk_store=self._disk["store"],
            disk_cold=self._disk["cold"],
            disk_run=self._disk["run"],
            disk_free=shutil.disk_usage(data).free,
            machine_cpu=round(psutil.cpu_percent() * (psutil.cpu_count() or 1), 1),
        )


def _cpu(process: psutil.Process, service: str) -> float:
    """Processor seconds of a process and its children, whether they have ended or not; the supervisor's are services,
    which are counted by themselves."""
    times = process.cpu_times()
    used = float(times.user + times.system)
    if service in ("supervisor", *OUTSIDE):
        return used
    used += float(times.children_user + times.children_system)
    for child in process.children():
        with suppress(psutil.Error):
            used += _cpu(child, JOB)
    return used


def own_and_peak(process: psutil.Process) -> tuple[int, int]:
    """Resident bytes that belong to no file, and the most bytes that ever were resident.

    Pages of mapped files are the kernel's to take back, the others are not. Where the system does not tell them apart:
    what is the process's alone, and no peak.
    """
    try:
        lines = dict(
            line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if ":" in line
        )
        own = sum(int(lines[name].split()[0]) << 10 for name in ("RssAnon", "RssShmem"))
        return own, int(lines["VmHWM"].split()[0]) << 10
    except (OSError, ValueError, KeyError):
        return int(process.memory_full_info().uss), UNKNOWN


def shared(process: psutil.Process) -> tuple[int, int]:
    """Bytes: resident with shared pages divided among those who share them, and those shared with nobody."""
    pss = uss = 0
    try:
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "Pss":
                pss = int(rest.split()[0]) << 10
            elif name in ("Private_Clean", "Private_Dirty"):
                uss += int(rest.split()[0]) << 10
    except (OSError, ValueError):
        return UNKNOWN, UNKNOWN
    return pss, uss


def disk_use(folder: Path) -> int:
    """Bytes that a folder's files take on the disk; holes in files take none. What vanishes meanwhile is left out."""
    total = 0
    waiting = [str(folder)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total
