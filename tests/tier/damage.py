"""Breaking cold on purpose: its rows rewritten, the watermark carried on as if nothing had happened."""

from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog

from k2.tier.files import write_files
from k2.tier.prove.contents import batches, data_files
from k2.tier.schema import TABLES
from k2.tier.watermark import carried

Row = dict[str, Any]


def edit(catalog: Catalog, change: Callable[[list[Row]], Iterable[Row]], table: str = "trades") -> None:
    """Replace all rows of a cold table, in one commit, by what `change` makes of each exchange's."""
    cold = TABLES[table]
    handle = catalog.load_table(cold.identifier)
    rows = [
        row
        for path in data_files(handle)
        for batch in batches(handle.io, path, cold.schema.fields)
        for row in batch.to_pylist()
    ]
    new: list[Any] = []
    for exchange in sorted({row["exchange"] for row in rows}):
        mine = list(change([row for row in rows if row["exchange"] == exchange]))
        if mine:
            new += write_files(handle, cold, pa.Table.from_pylist(mine, cold.arrow))
    with (
        handle.transaction() as transaction,
        transaction.update_snapshot(snapshot_properties=carried(handle)).overwrite() as files,
    ):
        for task in handle.scan().plan_files():
            files.delete_data_file(task.file)
        for file in new:
            files.append_data_file(file)
