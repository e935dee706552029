"""Processes that die, freeze, and come back."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import psutil

from k2.config import EXCHANGES
from k2.ops.drill import Drill, DrillError
from k2.ops.drill.rehearsal import SUPERVISOR, Setup
from k2.ops.drill.stage import Stage

FEEDS = tuple(f"feed-handler-{name}" for name in EXCHANGES)
VICTIM, *SPARED = EXCHANGES
FROZEN_S = 8.0
CRASHING_S = 8.0
DOWN_S = 6.0
KILLS = 10
OFTEN = 3  # so often at least one service is among them


def killed(*names: str) -> Callable[[Stage], None]:
    """An act: kill -9 these, once."""

    def act(stage: Stage) -> None:
        with stage.failing():
            stage.platform.kill(*names)

    return act


def frozen(*names: str) -> Callable[[Stage], None]:
    """An act: SIGSTOP these for a while, then SIGCONT."""

    def act(stage: Stage) -> None:
        with stage.failing():
            stage.platform.freeze(*names)
            try:
                stage.hold(FROZEN_S)
            finally:
                stage.platform.thaw(*names)

    return act


def crashing(name: str) -> Callable[[Stage], None]:
    """An act: kill -9 it again whenever it has come back, for a while."""

    def act(stage: Stage) -> None:
        times = 0

        def again() -> None:
            nonlocal times
            with suppress(DrillError, ProcessLookupError):
                stage.platform.kill(name)
                times += 1

        with stage.failing():
            again()
            stage.hold(CRASHING_S, again)
        stage.note(f"killed {name} {times} times")

    return act


def _kill_supervisor(stage: Stage) -> None:
    with stage.failing():
        stage.platform.kill(SUPERVISOR)
        stage.wait_seen()
        stage.platform.up()


def _kill_platform(stage: Stage) -> None:
    with stage.failing():
        stage.platform.kill_all()
        stage.hold(DOWN_S)
        stage.platform.up()


def _kill_at_random(stage: Stage) -> None:
    services = list(stage.platform.services)
    victims = [stage.rng.choice(services)] * OFTEN + [stage.rng.choice(services) for _ in range(KILLS - OFTEN)]
    stage.rng.shuffle(victims)
    with stage.failing():
        for victim in victims:
            stage.wait(f"{victim} to run", partial(_runs, stage, victim), 30.0)
            stage.platform.kill(victim)
            time.sleep(stage.rng.uniform(0.2, 1.2))
    stage.note("killed " + ", ".join(victims))


def _runs(stage: Stage, name: str) -> bool:
    return name in stage.platform.pids()


def _offload_often(setup: Setup) -> None:
    setup.change(tier={"every_s": 2.0})


def _kill_archiver(stage: Stage) -> None:
    """Kill the archiver and the offload that it has started, some moments after it started it."""
    platform = stage.platform
    archiver = platform.pid("archiver")
    begun = {child.pid for child in psutil.Process(archiver).children()}
    stage.wait("an offload to begin", lambda: _children(archiver) - begun, 60.0)
    time.sleep(stage.rng.uniform(0.3, 2.0))
    with stage.failing():
        offloads = psutil.Process(archiver).children()
        platform.kill("archiver")
        for offload in offloads:
            with suppress(psutil.NoSuchProcess):
                offload.kill()
    stage.note(f"killed the archiver and {len(offloads)} offload in its midst")


def _children(pid: int) -> set[int]:
    return {child.pid for child in psutil.Process(pid).children()}


def _gone(*names: str) -> tuple[str, ...]:
    return tuple(f"{how}:{name}" for name in names for how in ("supervisor", "down", "silent"))


DRILLS = (
    Drill(
        name="feed-killed",
        summary="kill -9 of one feed handler",
        expectation=f"the supervisor starts another, which heals what {VICTIM} traded meanwhile over REST, from the"
        " last ids in the log; the other exchanges notice nothing",
        act=killed(f"feed-handler-{VICTIM}"),
        seen_by=_gone(f"feed-handler-{VICTIM}"),
        spares=tuple(SPARED),
    ),
    Drill(
        name="feed-crashing",
        summary=f"a feed handler dies whenever it is started, for {CRASHING_S:.0f} s",
        expectation="the supervisor tries again and again at growing intervals; once it lives, all that was missed is"
        " healed; the other exchanges notice nothing",
        act=crashing(f"feed-handler-{VICTIM}"),
        seen_by=_gone(f"feed-handler-{VICTIM}"),
        spares=tuple(SPARED),
    ),
    Drill(
        name="log-frozen",
        summary=f"every writer of the log (the feed handlers) stopped by SIGSTOP for {FROZEN_S:.0f} s, then continued",
        expectation="nothing is appended; what the exchanges sent waits in the sockets; then it flows, and what an"
        " exchange gave up on is healed",
        act=frozen(*FEEDS),
        seen_by=("silent:*", "metric:*", "readyz:*"),
    ),
    Drill(
        name="log-killed",
        summary="kill -9 of all that has the embedded log open, writers and readers, at once",
        expectation="the log is whole up to its last commit: whoever comes back goes on from there; what was not yet"
        " committed is healed over REST",
        act=killed(*FEEDS, "loader", "web", "archiver"),
        seen_by=_gone(*FEEDS, "loader", "web", "archiver"),
        cold=True,
    ),
    Drill(
        name="store-killed",
        summary="kill -9 of the store",
        expectation="the supervisor starts it again, it opens its folder as it was, the loader fills the live tail anew"
        " from the log; feeds go on writing to the log",
        act=killed("store"),
        seen_by=(*_gone("store"), "readyz:store"),
    ),
    Drill(
        name="store-down",
        summary=f"the store dies whenever it is started, for {CRASHING_S:.0f} s",
        expectation="trades are safe in the log meanwhile; once the store lives the loader catches up, none twice",
        act=crashing("store"),
        seen_by=(*_gone("store"), "readyz:store"),
    ),
    Drill(
        name="store-frozen",
        summary=f"SIGSTOP of the store for {FROZEN_S:.0f} s, then SIGCONT",
        expectation="the loader waits, the feeds go on; then what the log took in becomes visible, none twice",
        act=frozen("store"),
        seen_by=("silent:store", "readyz:store", "metric:k2_consumer_lag_records*"),
    ),
    Drill(
        name="loader-killed",
        summary="kill -9 of the loader",
        expectation="the supervisor starts another, which goes on from the last commit; what the log took in meanwhile"
        " becomes visible, none twice; feeds and readers go on",
        act=killed("loader"),
        seen_by=_gone("loader"),
    ),
    Drill(
        name="web-killed",
        summary="kill -9 of the web process",
        expectation="the API is away until the supervisor has started another; trades flow as if nothing were",
        act=killed("web"),
        seen_by=(*_gone("web"), "readyz:web"),
        spares=EXCHANGES,
    ),
    Drill(
        name="process-frozen",
        summary=f"SIGSTOP of the web process for {FROZEN_S:.0f} s, then SIGCONT",
        expectation="a process that lives and does nothing shows by its silent metrics; trades flow as if nothing were",
        act=frozen("web"),
        seen_by=("silent:web", "readyz:web"),
        spares=EXCHANGES,
    ),
    Drill(
        name="service-down",
        summary=f"the web process dies whenever it is started, for {CRASHING_S:.0f} s",
        expectation="the supervisor tries again and again; trades flow as if nothing were; once it lives it serves",
        act=crashing("web"),
        seen_by=(*_gone("web"), "readyz:web"),
        spares=EXCHANGES,
    ),
    Drill(
        name="archiver-killed",
        summary="kill -9 of the archiver and of its offload, in the midst of it",
        expectation="a commit of the cold tier holds data and offsets, or neither: the next offload goes on after the"
        " last one; what was half written belongs to no table; trades flow as if nothing were",
        act=_kill_archiver,
        prepare=_offload_often,
        seen_by=_gone("archiver"),
        spares=EXCHANGES,
        cold=True,
    ),
    Drill(
        name="supervisor-killed",
        summary="kill -9 of the supervisor, then `k2 up` again",
        expectation="its processes notice, write down what they have, and leave; `k2 up` waits for that, starts them"
        " again, and what was missed meanwhile is healed",
        act=_kill_supervisor,
        seen_by=("down:*", "silent:*", "readyz:*"),
    ),
    Drill(
        name="platform-killed",
        summary=f"kill -9 of every process at once, `k2 up` after {DOWN_S:.0f} s, as when a machine goes down",
        expectation="log and store open as they were; what the exchanges traded meanwhile is healed over REST",
        act=_kill_platform,
        seen_by=("down:*", "readyz:web"),
        cold=True,
    ),
    Drill(
        name="random-kills",
        summary=f"{KILLS} times kill -9 of a service chosen at random, a second or less apart",
        expectation="whoever dies is started again, whatever state the others are in; in the end every trade is there",
        act=_kill_at_random,
        seen_by=("supervisor:*", "down:*", "silent:*", "readyz:*"),
        cold=True,
    ),
)
