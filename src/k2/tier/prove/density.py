"""Dense ids prove what is missing without asking anyone: every hole in cold must be one that the gap ledger admits."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from k2.core.islands import Islands

Counter = tuple[str, str, int]  # exchange, symbol, epoch


class Hole(NamedTuple):
    """Ids of one counter that cold lacks, though the ledger does not say that they cannot be had.

    `state` is the ledger's latest word on the gap that covers `first_id`: `open`, `healed`, or "" for no word at all.
    """

    exchange: str
    symbol: str
    epoch: int
    first_id: int
    last_id: int
    state: str


class Event(NamedTuple):
    """The latest event of one gap."""

    first_id: int
    last_id: int
    state: str
    missing: tuple[tuple[int, int], ...]


def ledger(rows: Iterable[Mapping[str, Any]]) -> dict[Counter, list[Event]]:
    """The gap ledger from the rows of cold.gaps: of each gap the event with the highest log offset."""
    latest: dict[tuple[Counter, int], tuple[int, Event]] = {}
    for row in rows:
        key = ((row["exchange"], row["symbol"], row["epoch"]), row["first_id"])
        if key not in latest or row["log_offset"] > latest[key][0]:
            missing = tuple((one["first_id"], one["last_id"]) for one in row["missing"])
            latest[key] = (row["log_offset"], Event(row["first_id"], row["last_id"], row["state"], missing))
    found: dict[Counter, list[Event]] = {}
    for (counter, _), (_, event) in latest.items():
        found.setdefault(counter, []).append(event)
    return found


def holes(
    ids: Mapping[Counter, Islands],
    events: Mapping[Counter, list[Event]],
    whole: bool,
    coming: Mapping[Counter, Islands],
) -> list[Hole]:
    """The holes of every counter. `coming`: ids known to be elsewhere, such as in the log past the snapshot.

    `whole`: `ids` are all that cold has, so that whatever id the ledger speaks of must be there or be excused.
    """
    found = []
    for counter in sorted(ids.keys() | (events.keys() if whole else ())):
        present = ids.get(counter, Islands())
        known = events.get(counter, [])
        claimed = known if whole else []
        numbers = [present.first, present.last, *(number for event in claimed for number in event[:2])]
        within = [number for number in numbers if number is not None]
        if not within:
            continue
        first, last = min(within), max(within)
        excused = Islands(pair for event in known if event.state == "unavailable" for pair in event.missing)
        later = coming.get(counter, Islands())
        for hole in present.holes(first, last):
            for part in excused.holes(*hole):
                found += [Hole(*counter, *left, _state(known, left[0])) for left in later.holes(*part)]
    return found


def _state(events: Iterable[Event], number: int) -> str:
    return next((one.state for one in events if one.first_id <= number <= one.last_id and one.state != "start"), "")
