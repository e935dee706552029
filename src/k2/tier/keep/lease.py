"""Who maintains the cold tier: one at a time, as a courtesy.

The lease is a property of `cold.proofs`, changed by an Iceberg commit that is refused if another one came first; so it
works with any catalog. Nothing rests on it: every other commit would be refused as well, and files are removed by age.
"""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from k2.tier import TierError
from k2.tier.catalog import open_table
from k2.tier.faults import told
from k2.tier.keep.commits import require_no_retries
from k2.tier.schema import PROOFS
from k2.tier.snapshot_time import keep_order

LEASE = "k2.lease"
LASTS_S = 600
TRIES = 5


class LeaseHeld(TierError):
    """Another maintenance is under way; the text says whose, and until when it may last."""


class Held(NamedTuple):
    """`owner` has it until `until_ns`; 0: it was given back."""

    owner: str
    until_ns: int


def this_process() -> str:
    """A name for the process that others on this machine can see the end of: host, process id, start."""
    return f"{socket.gethostname()}/{os.getpid()}/{_started(os.getpid())}"


class Lease:
    """Taken, renewed and given back by one owner. `clock` is in ns since 1970. Everything raises TierError."""

    def __init__(self, catalog: Catalog, clock: Callable[[], int], owner: str) -> None:
        self._catalog = catalog
        self._clock = clock
        self._owner = owner
        self._until_ns = 0

    def take(self) -> None:
        """Take it, from another owner only when its time is up or its process is gone. Raises LeaseHeld."""
        for _ in range(TRIES):
            table = open_table(self._catalog, PROOFS)
            held = read_lease(table)
            now = self._clock()
            if held.owner != self._owner and is_valid(held, now):
                raise LeaseHeld(
                    f"{held.owner} maintains this cold tier, until {_when(held.until_ns)} at most: wait for its end,"
                    " or run again after that"
                )
            if self._write(table, now + LASTS_S * 10**9):
                return
        raise TierError(f"{PROOFS.identifier}: others kept committing for {TRIES} tries: run again later")

    def renew(self) -> None:
        """Keep it, which costs nothing until a third of its time is over. Raises LeaseHeld if another has it now."""
        if self._until_ns - self._clock() < LASTS_S * 10**9 * 2 // 3:
            self.take()

    def give_back(self) -> None:
        """Let the next one begin at once. If that fails its time runs out by itself."""
        with suppress(TierError):
            table = open_table(self._catalog, PROOFS)
            if read_lease(table).owner == self._owner:
                self._write(table, 0)

    def _write(self, table: Table, until_ns: int) -> bool:
        """False: another commit came first."""
        require_no_retries(table)
        text = msgspec.json.encode(Held(self._owner, until_ns)._asdict()).decode()
        with told(f"{PROOFS.identifier} cannot be committed to"):
            try:
                # The empty append makes the commit depend on the head; a property alone would depend on nothing.
                with table.transaction() as change:
                    change.set_properties({LEASE: text})
                    change.update_snapshot().fast_append().commit()
                    keep_order(change, table)
            except CommitFailedException:
                return False
        self._until_ns = until_ns
        return True


def read_lease(table: Table) -> Held:
    """What `cold.proofs` says; an unreadable text is no lease."""
    try:
        return Held(**msgspec.json.decode(table.properties.get(LEASE, ""), type=dict))
    except (msgspec.DecodeError, TypeError):
        return Held("", 0)


def is_valid(held: Held, now_ns: int) -> bool:
    """Whether the owner may still be at work. One that lasts longer than any lease was written by a wrong clock."""
    return now_ns < held.until_ns <= now_ns + 2 * LASTS_S * 10**9 and not _gone(held.owner)


def _gone(owner: str) -> bool:
    """Whether the owner was a process of this machine that has ended."""
    host, _, process = owner.partition("/")
    pid, _, started = process.partition("/")
    return host == socket.gethostname() and pid.isdigit() and bool(started) and _started(int(pid)) != started


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks; "" if there is none, or none that can be seen."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _when(ns: int) -> str:
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
