"""The loader's commit points in the store, and how one loader takes over from another.

A generation is a set of rows that become final together: its trades, candles, frames and gap events all carry its
number, and its row in `commits`, written last, makes it count. A loader that takes over claims the next incarnation
first; from then on every statement of an earlier one fails by its fence, so whatever stands past the last commit is
refuse.
"""

import time
from typing import Any, NamedTuple

from k2.store import Store, StoreError
from k2.store.seen import Seen

GENERATIONS_APART = 1 << 40  # a new incarnation starts so far past the last commit: past all that was in flight
SETTLE_TIMEOUT = 60.0  # seconds that statements of an earlier loader are given to end
REFUSE_TABLES = ("silver_base", "bronze_base", "gaps_base")
SUPERSEDED = "another loader has taken over this store: only one may run"
THROWN = 395  # ClickHouse's FUNCTION_THROW_IF_VALUE_IS_NON_ZERO


class SupersededError(StoreError):
    """Another loader has taken over; this one must end."""


class Commit(NamedTuple):
    """A commit point: everything before `positions` (stream to offset) is in the store, once."""

    generation: int
    positions: dict[str, int]
    seen: Seen


def fence(incarnation: int) -> str:
    """A condition that is true, or fails the statement when another loader has taken over."""
    return f"NOT throwIf((SELECT max(incarnation) FROM k2.loaders) != {incarnation}, 'another loader has taken over')"


def check_fence(error: StoreError) -> StoreError:
    """The error to raise for a failed statement: SupersededError if its fence failed."""
    if error.code == THROWN and "another loader has taken over" in str(error):
        return SupersededError(SUPERSEDED, THROWN)
    return error


def last_commit(store: Store) -> Commit:
    """The newest commit point; of an empty store: generation 0, nothing seen."""
    rows = store.rows(
        "SELECT generation, mapKeys(positions), mapValues(positions), islands FROM k2.commits"
        " ORDER BY generation DESC LIMIT 1"
    )
    if not rows:
        return Commit(0, {}, Seen())
    generation, streams, offsets, islands = rows[0]
    positions = dict(zip(streams, map(int, offsets), strict=True))
    return Commit(int(generation), positions, Seen.from_json(islands))


def take_over(store: Store, owner: str, mine: int) -> tuple[int, Commit]:
    """Claim the store: returns the new incarnation and the commit to go on from, with no trace of anything past it.

    `owner` names this loader alone; `mine` is the incarnation it had, 0 for none. The tail of the loader before stays
    visible until the first commit here, which must hold all that it showed; so the answers never step back. Raises
    SupersededError if another loader has claimed the store since `mine`, StoreError.
    """
    newest = store.rows("SELECT incarnation, owner FROM k2.loaders ORDER BY incarnation DESC LIMIT 1")
    last, holder = newest[0] if newest else (0, "")
    if mine and int(last) > mine and holder != owner:
        raise SupersededError(SUPERSEDED)
    incarnation = 1 + int(last)
    store.execute(f"INSERT INTO k2.loaders SELECT {incarnation}, now64(6), '{owner}'")
    _wait_for_statements(store)
    commit = last_commit(store)
    for table in REFUSE_TABLES:
        condition = f"generation > {commit.generation}"
        if _number(store.rows(f"SELECT count() FROM k2.{table} WHERE {condition}")):
            store.execute(f"ALTER TABLE k2.{table} DELETE WHERE {condition} SETTINGS mutations_sync = 1")
    return incarnation, commit


def _wait_for_statements(store: Store) -> None:
    """Every writing statement of a loader names k2.loaders in its fence; wait until none of the others runs."""
    deadline = time.monotonic() + SETTLE_TIMEOUT
    running = (
        "SELECT count() FROM system.processes WHERE query LIKE '%throwIf((SELECT max(incarnation) FROM k2.loaders)%'"
        " AND query NOT LIKE '%system.processes%'"
    )
    while _number(store.rows(running)):
        if time.monotonic() > deadline:
            raise StoreError(
                f"statements of an earlier loader have been running for {SETTLE_TIMEOUT:.0f} s: see system.processes"
            )
        time.sleep(0.02)


def _number(rows: list[tuple[Any, ...]]) -> int:
    return int(rows[0][0])
