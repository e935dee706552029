"""Times of snapshots, which a clock that was set back must not put out of order.

Iceberg wants the snapshots of a table in the order of their times: time travel by time searches them so, and some
engines refuse to open a table where a snapshot is a minute older than the one before it.
"""

from pyiceberg.table import Table, Transaction
from pyiceberg.table.update import AddSnapshotUpdate


def keep_order(transaction: Transaction, table: Table) -> None:
    """Call it last in a transaction on `table`: a new snapshot is then at least a millisecond after the one before."""
    least = table.metadata.last_updated_ms + 1
    transaction._updates = tuple(
        update.model_copy(update={"snapshot": update.snapshot.model_copy(update={"timestamp_ms": least})})
        if isinstance(update, AddSnapshotUpdate) and update.snapshot.timestamp_ms < least
        else update
        for update in transaction._updates
    )
