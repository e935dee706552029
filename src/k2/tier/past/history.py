"""The past of the cold tables: their snapshots, which of them a person means, and what changed between two.

A difference is one of rows, by identity and content: files that both snapshots have are not read, and a compaction,
which only puts the same rows into other files, is no difference.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from k2.store.as_of import moment_ms
from k2.tier import TierError
from k2.tier.catalog import tables_of
from k2.tier.names import OFFSETS
from k2.tier.prove.cold_side import ColdSide
from k2.tier.prove.compare import Shown, compare
from k2.tier.prove.contents import data_files
from k2.tier.prove.counting import Counting, Say
from k2.tier.prove.digests import Digester, Form
from k2.tier.prove.rowwise import DIFFERS, DOUBLED, EXCESS, MISSING
from k2.tier.prove.shapes import IDENTITIES

_KINDS = {EXCESS: "added", MISSING: "removed", DIFFERS: "changed", DOUBLED: "doubled"}


class SnapshotInfo(NamedTuple):
    """One snapshot. `rows`, `files` and `bytes` are the table's, `added_...` and `removed_...` the commit's.

    `time` is in ms since 1970. `offsets`: stream to the next offset that it lacks. `current`: the table shows it.
    """

    snapshot_id: int
    time: int
    operation: str
    rows: int
    files: int
    bytes: int
    added_rows: int
    removed_rows: int
    added_files: int
    removed_files: int
    offsets: Mapping[str, int]
    current: bool


class Moment(NamedTuple):
    """A snapshot of a table, and a time (ms since 1970) at which it was the current one."""

    snapshot_id: int
    timestamp_ms: int


class Change(NamedTuple):
    """Rows of one counter that were `added`, `removed`, `changed`, or are `doubled` in the later snapshot."""

    kind: str
    exchange: str
    symbol: str
    epoch: int
    total: int
    shown: tuple[Shown, ...]


class Diff(NamedTuple):
    """What differs from snapshot `before` to snapshot `after`; `files_read` of both were looked into."""

    table: str
    before: int
    after: int
    changes: list[Change]
    files_read: int
    unreadable: list[str]

    @property
    def totals(self) -> dict[str, int]:
        """Rows by kind of change."""
        found: dict[str, int] = {}
        for one in self.changes:
            found[one.kind] = found.get(one.kind, 0) + one.total
        return found


def snapshots(catalog: Catalog, table: str = "trades") -> list[SnapshotInfo]:
    """The snapshots that a cold table still has, oldest first. Raises TierError."""
    found = _table(catalog, table)
    current = found.metadata.current_snapshot_id
    listed = sorted(found.snapshots(), key=lambda one: one.sequence_number or 0)
    return [_info(one, one.snapshot_id == current) for one in listed]


def resolve(catalog: Catalog, text: str, table: str = "trades", now_ns: int | None = None) -> Moment:
    """The snapshot that a person means: by its id, or as the current one of a time.

    A time is RFC 3339 (UTC where it does not say), ns since 1970, or how long ago (`-15m`, `-2h`, `-1d`). Raises
    TierError, also for a time before the oldest snapshot that is kept.
    """
    found = _table(catalog, table)
    known = {str(one.snapshot_id): one.timestamp_ms for one in found.snapshots()}
    if text in known:
        return Moment(int(text), known[text])
    if not known:
        raise TierError(f"cold.{table} has no snapshot yet: run `k2 archive` first")
    asked = moment_ms(text, time.time_ns() if now_ns is None else now_ns)
    if asked is None:
        raise TierError(
            f"{text!r} is no snapshot of cold.{table} and no time: write an id of `k2 archive snapshots`, a time such"
            " as 2026-01-31T12:00:00Z, ns since 1970, or how long ago, such as -15m, -2h, -1d"
        )
    at = found.snapshot_as_of_timestamp(asked)
    if at is None:
        raise TierError(
            f"cold.{table} has no snapshot as old as {_utc(asked)}: the oldest that is kept is of"
            f" {_utc(min(known.values()))}"
        )
    return Moment(at.snapshot_id, asked)


def diff(catalog: Catalog, before: int, after: int, table: str = "trades", on_progress: Say | None = None) -> Diff:
    """What changed in a table between two of its snapshots (ids), row by row in effect. Raises TierError."""
    found = _table(catalog, table)
    schema = found.schema()
    for one in (before, after):
        if found.metadata.snapshot_by_id(one) is None:
            raise TierError(f"cold.{table} has no snapshot {one}: see `k2 archive snapshots`")
    old, new = data_files(found, before), data_files(found, after)
    with Digester() as digester:
        form = Form(schema, IDENTITIES[table])
        earlier = ColdSide(digester, found.io, form, [file for path, file in old.items() if path not in new])
        later = ColdSide(digester, found.io, form, [file for path, file in new.items() if path not in old])
        earlier.name, later.name = f"snapshot {before}", f"snapshot {after}"
        count = Counting(table, on_progress, earlier.rows + later.rows)
        result = compare(digester, form, later, earlier, on_rows=count, each_once=True)
    changes = sorted(Change(_KINDS[one.kind], *one[1:]) for one in result.found)
    faults = [f"{path} {fault}" for side in (earlier, later) for path, fault in side.faults.items()]
    return Diff(table, before, after, changes, len(earlier.files) + len(later.files), sorted(faults))


def _table(catalog: Catalog, name: str) -> Table:
    found = tables_of(catalog)
    if name not in found:
        known = f"there are {', '.join(sorted(found))}" if found else "run `k2 archive` first"
        raise TierError(f"there is no table cold.{name}: {known}")
    return found[name]


def _info(snapshot: Snapshot, current: bool) -> SnapshotInfo:
    words = snapshot.summary.additional_properties if snapshot.summary else {}

    def number(name: str) -> int:
        return int(words.get(name, 0))

    return SnapshotInfo(
        snapshot.snapshot_id,
        snapshot.timestamp_ms,
        snapshot.summary.operation.value if snapshot.summary else "",
        number("total-records"),
        number("total-data-files"),
        number("total-files-size"),
        number("added-records"),
        number("deleted-records"),
        number("added-data-files"),
        number("deleted-data-files"),
        msgspec.json.decode(words.get(OFFSETS, "{}"), type=dict[str, int]),
        current,
    )


def _utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
