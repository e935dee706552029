"""Disks that are full, and a disk that is slow."""

import resource
import signal
import subprocess
from contextlib import ExitStack

import psutil

from k2.config import EXCHANGES
from k2.ops.drill import Drill, DrillError
from k2.ops.drill.rehearsal import Setup
from k2.ops.drill.stage import Stage
from k2.ops.drill.volume import Volume

FEEDS = tuple(f"feed-handler-{name}" for name in EXCHANGES)
FULL_S = 8.0
SLOW_S = 10.0
SYNC_MS = 200
DURABLE = ("k2_stage_seconds_sum", "k2_stage_seconds_count")
ON_DISKS = ("root", "linux", "namespaces", "ext4")
OFFLOADING = ("metric:k2_archive_runs_total*",)


class Full:
    """A folder of the platform (`log`, `store`, `cold`; "" is the whole data folder) on a disk that gets full."""

    def __init__(self, part: str, mb: int, fails: tuple[str, ...] = ()) -> None:
        """`fails`: signals that must come before the space is given back."""
        self._part, self._mb, self._fails = part, mb, fails
        self.volume: Volume | None = None

    def prepare(self, setup: Setup) -> None:
        folder, image = setup.config.data_dir / self._part, setup.folder / f"{self._part or 'data'}.ext4"
        self.volume = setup.cleanup.enter_context(Volume(folder, image, self._mb))
        setup.change(tier={"every_s": 2.0})

    def act(self, stage: Stage) -> None:
        volume = self.volume
        assert volume is not None
        with stage.failing():
            took = volume.fill()
            try:
                stage.hold(FULL_S)
                if self._fails:
                    stage.wait_seen(*self._fails, within=60.0)
            finally:
                volume.give_back()
        stage.note(f"{took >> 20} MB of {self._mb} were taken away, {volume.free() >> 20} MB are free again")


def _refuse_writing(stage: Stage) -> None:
    """No file that the feed handlers write may grow (RLIMIT_FSIZE): to them the disk is full, and no root is needed."""
    with stage.failing(), ExitStack() as restored:
        for name in FEEDS:
            process = psutil.Process(stage.platform.pid(name))
            before = process.rlimit(resource.RLIMIT_FSIZE)
            process.rlimit(resource.RLIMIT_FSIZE, (1, before[1]))
            restored.callback(_give_back, process, before)
        stage.hold(FULL_S)


def _give_back(process: psutil.Process, limits: tuple[int, int]) -> None:
    if process.is_running():
        process.rlimit(resource.RLIMIT_FSIZE, limits)


class Tracer:
    """strace on a running process, which has every sync wait; leaving detaches it."""

    def __init__(self, pid: int, ms: int) -> None:
        calls = "fsync,fdatasync,msync,sync_file_range"
        self._child = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-p", str(pid),
             "-e", f"inject={calls}:delay_enter={ms * 1000}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> "Tracer":
        return self

    def __exit__(self, *failure: object) -> None:
        self._child.send_signal(signal.SIGINT)
        try:
            self._child.wait(10.0)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def alive(self) -> None:
        """Raises DrillError, with strace's words, if it could not attach or has ended."""
        if self._child.poll() is not None:
            assert self._child.stderr is not None
            words = self._child.stderr.read().decode(errors="replace").strip()
            raise DrillError(
                f"strace: {words or 'it ended'}; does the kernel let you trace (kernel.yama.ptrace_scope)?"
            )


def _slow(stage: Stage) -> None:
    """Every sync of the feed handlers takes 200 ms longer."""
    usual = _durable_ms(stage, 3.0)
    with stage.failing(), ExitStack() as tracers:
        held = [tracers.enter_context(Tracer(stage.platform.pid(name), SYNC_MS)) for name in FEEDS]
        slow = _durable_ms(stage, SLOW_S)
        for one in held:
            one.alive()
        if slow > 2 * usual:
            stage.signals.tell("metric:k2_stage_seconds", f"decoded to durable: {usual:.0f} ms, now {slow:.0f} ms")
    stage.hold(1.0)  # what was under way
    again = _durable_ms(stage, 3.0)
    stage.note(f"decoded to durable, mean: {usual:.1f} ms before, {slow:.1f} ms meanwhile, {again:.1f} ms after")
    if again > usual + (slow - usual) / 4:
        stage.fault(f"latency did not come back: {usual:.1f} ms before, {again:.1f} ms after")


def _durable_ms(stage: Stage, seconds: float) -> float:
    """The mean time from receipt to the durable log over so many seconds, of all feeds, in ms."""
    before = _sums(stage)
    stage.hold(seconds)
    total, count = (new - old for new, old in zip(_sums(stage), before, strict=True))
    return 1000 * total / count if count else float("inf")


def _sums(stage: Stage) -> tuple[float, float]:
    total, count = (sum(stage.metric(name, metric, stage="decoded_to_durable") for name in FEEDS) for metric in DURABLE)
    return total, count


_all = Full("", 4096)
_log, _store, _cold = Full("log", 512), Full("store", 1024), Full("cold", 64, OFFLOADING)

DRILLS = (
    Drill(
        name="disk-full",
        summary=f"the disk of the whole data folder is full for {FULL_S:.0f} s (an ext4 of its own)",
        expectation="nothing is written and nothing published that is not written; every part says so and tries again;"
        " with space all goes on, and what an exchange gave up on is healed",
        prepare=_all.prepare,
        act=_all.act,
        seen_by=("metric:*", "readyz:*"),
        needs=ON_DISKS,
        cold=True,
    ),
    Drill(
        name="log-disk-full",
        summary=f"the log's disk is full for {FULL_S:.0f} s (an ext4 of its own)",
        expectation="feeds write nothing and publish nothing; what the exchanges send waits in bounded queues, then in"
        " the exchanges' sockets; with space it is written, and what an exchange gave up on is healed",
        prepare=_log.prepare,
        act=_log.act,
        seen_by=("metric:*", "readyz:*"),
        needs=ON_DISKS,
    ),
    Drill(
        name="log-write-refused",
        summary=f"no file of the feed handlers may grow for {FULL_S:.0f} s (a limit of the kernel; needs no root)",
        expectation="the same: nothing written, nothing published, nothing lost",
        act=_refuse_writing,
        seen_by=("metric:*", "readyz:*"),
    ),
    Drill(
        name="store-disk-full",
        summary=f"the store's disk is full for {FULL_S:.0f} s (an ext4 of its own)",
        expectation="the store keeps its last space free and says so; the loader tries again, the log keeps all that is"
        " not loaded; with space the loader catches up, none twice",
        prepare=_store.prepare,
        act=_store.act,
        seen_by=("metric:k2_store_errors_total*", "metric:k2_insert_failures_total*", "metric:k2_consumer_lag*"),
        needs=ON_DISKS,
    ),
    Drill(
        name="cold-disk-full",
        summary="the cold tier's disk is full until an offload has failed (an ext4 of its own)",
        expectation="the offload fails with the reason and leaves no half-written file in the way; live data are not"
        " concerned; with space the next offload goes on, each record once",
        prepare=_cold.prepare,
        act=_cold.act,
        seen_by=OFFLOADING,
        needs=ON_DISKS,
        spares=EXCHANGES,
        cold=True,
    ),
    Drill(
        name="log-disk-slow",
        summary=f"every sync of the feed handlers takes {SYNC_MS} ms longer for {SLOW_S:.0f} s (strace injects it)",
        expectation="trades are durable later, in larger batches, none is lost; latency is back as soon as the disk is",
        act=_slow,
        seen_by=("metric:k2_stage_seconds",),
        needs=("linux", "strace"),
    ),
)
