"""Times of snapshots, which a clock that was set back must not put out of order.

Iceberg wants the snapshots of a table in the order of their times: time travel by time searches them so, and some
engines refuse to open a table where a snapshot is a minute older than the one before it.
"""

from pyiceberg.table import Table, Transaction
from pyiceberg.table.update import AddSnapshotUpdate


def keep_order(transaction: Transaction, table: Table) -> None:
    """Call it last in a transaction on `table`: a new snapshot is then at least a millisecond after the one before."""
    last = table.metadata.last_updated_ms
    for update in transaction._updates:
        if isinstance(update, AddSnapshotUpdate) and update.snapshot.timestamp_ms <= last:
            update.snapshot = update.snapshot.model_copy(update={"timestamp_ms": last + 1})
