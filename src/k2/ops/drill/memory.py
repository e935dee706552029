"""Memory runs out in one service."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from k2.config import EXCHANGES
from k2.ops.drill import Drill, DrillError
from k2.ops.drill.cgroup import MemoryGroup
from k2.ops.drill.stage import Stage
from k2.store import StoreError
from k2.wire import open_store

VICTIM, *SPARED = EXCHANGES
FEED = f"feed-handler-{VICTIM}"
STORE_MB, FEED_MB = 128, 2
HEAVY = "SELECT uniqExact(number, toString(number)) FROM numbers(300000000)"
KILLED_WITHIN_S = 40.0
COUNTED_WITHIN_S = 10.0
RESTARTS = "k2_service_restarts_total"
NEEDS = ("root", "linux", "cgroup")


def _store(stage: Stage) -> None:
    """A heavy question meets a limit that is lower than what one statement may use."""

    def ask() -> None:
        store = open_store(stage.platform.config)
        with suppress(StoreError):
            store.rows(HEAVY)
        store.close()

    asking = threading.Thread(target=ask, name="heavy", daemon=True)
    _run_out(stage, "store", STORE_MB, asking.start)
    asking.join(5.0)


def _feed(stage: Stage) -> None:
    """A back-fill meets a limit: frames are dropped, trades come faster."""

    def hurry() -> None:
        stage.platform.order("drop", VICTIM, probability=0.5, seconds=KILLED_WITHIN_S)
        stage.platform.rate(4_000)

    usual = float(stage.platform.exchange.sim.rate)
    try:
        _run_out(stage, FEED, FEED_MB, hurry)
    finally:
        stage.platform.rate(usual)
        stage.platform.clear("drop")


def _run_out(stage: Stage, service: str, mb: int, begin: Callable[[], object]) -> None:
    """Limit a service, have it want more, wait until the kernel has killed it, and lift the limit."""
    before = stage.metric("supervisor", RESTARTS, service=service, reason="out-of-memory")
    with MemoryGroup(service) as group, stage.failing():
        group.limit(mb)
        group.take(stage.platform.pid(service))
        begin()
        took = stage.wait(f"{service} to run out of memory", group.kills, KILLED_WITHIN_S)
    stage.note(f"the kernel killed {service} {took:.1f} s after it was given {mb} MB more and no byte beyond")
    deadline = time.monotonic() + COUNTED_WITHIN_S
    while time.monotonic() < deadline:
        with suppress(DrillError):
            if stage.metric("supervisor", RESTARTS, service=service, reason="out-of-memory") > before:
                return
        time.sleep(0.1)
    stage.fault(f"{RESTARTS} does not say that {service} ran out of memory")


DRILLS = (
    Drill(
        name="memory-limit",
        summary=f"a heavy question of the store meets a limit ({STORE_MB} MB more than it has): killed by the kernel",
        expectation="the supervisor tells that it ran out of memory and starts it again; feeds write on to the log; the"
        " loader fills the live tail anew, none twice",
        act=_store,
        seen_by=("supervisor:store", "down:store", "silent:store", "readyz:store"),
        needs=NEEDS,
    ),
    Drill(
        name="memory-limit-feed",
        summary=f"a feed handler that heals a torrent meets a limit ({FEED_MB} MB more): killed by the kernel",
        expectation=f"the supervisor tells that it ran out of memory and starts it again; what {VICTIM} traded is"
        " healed over REST; the other exchanges notice nothing",
        act=_feed,
        seen_by=(f"supervisor:{FEED}", f"down:{FEED}", f"silent:{FEED}"),
        needs=NEEDS,
        spares=tuple(SPARED),
        recovered_within_s=15.0,
    ),
)
