"""Expiry of snapshots, and merging of the manifests that appends leave behind."""

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table, Transaction
from pyiceberg.table.snapshots import Snapshot

from k2.tier import TierError
from k2.tier.catalog import open_table
from k2.tier.faults import told
from k2.tier.keep.commits import TRIES, commit
from k2.tier.schema import ColdTable
from k2.tier.watermark import carried

MANIFESTS = 16  # more than these are merged: each costs every commit and every plan a millisecond or two
DAY_MS = 86_400_000


def expirable(table: Table, now_ns: int, days: float, kept: int) -> list[Snapshot]:
    """Snapshots older than `days`, but for the newest `kept` and those that a branch or a tag names."""
    newest_last = sorted(table.snapshots(), key=lambda snapshot: snapshot.sequence_number or 0)
    named = {ref.snapshot_id for ref in table.refs().values()}
    limit_ms = now_ns // 10**6 - days * DAY_MS
    old = newest_last[: -max(1, kept)]
    return [one for one in old if one.timestamp_ms < limit_ms and one.snapshot_id not in named]


def expire(catalog: Catalog, cold: ColdTable, now_ns: int, days: float, kept: int) -> int:
    """Forget those snapshots; returns how many. Their files become orphans. Raises TierError."""
    for _ in range(TRIES):
        table = open_table(catalog, cold)
        ids = [snapshot.snapshot_id for snapshot in expirable(table, now_ns, days, kept)]
        if not ids:
            return 0
        with told(f"snapshots of {cold.identifier} cannot be expired"):
            try:
                table.maintenance.expire_snapshots().by_ids(ids).commit()
                return len(ids)
            except CommitFailedException:
                continue
    raise TierError(f"{cold.identifier}: others kept committing for {TRIES} tries: run again later")


def manifests(table: Table) -> int:
    """How many manifests the current snapshot has."""
    snapshot = table.current_snapshot()
    with told(f"the manifests of {'.'.join(table.name())} cannot be listed"):
        return len(snapshot.manifests(table.io)) if snapshot else 0


def merge_manifests(catalog: Catalog, cold: ColdTable) -> Table:
    """Write the manifests anew as few larger ones, in a commit that changes no row. Raises TierError."""

    def merge(table: Table, change: Transaction) -> None:
        change.set_properties({name: text for name, text in cold.properties.items() if "manifest" in name})
        change.update_snapshot(snapshot_properties=carried(table)).merge_append().commit()

    with told(f"the manifests of {cold.identifier} cannot be merged"):
        return commit(catalog, cold, merge)
