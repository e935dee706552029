"""What a cold table contains of the log, kept in the commit that put it there.

A snapshot's summary holds `k2.offsets` (JSON: stream to the next offset to read), `k2.ends` (the digest of the last
record before each, so that another log is not taken for this one) and, for trades, `k2.identities`: the digest of the
ids that the table has. The ids themselves stand in the table property of the same name, set in the same commit: a
summary is kept with every snapshot and read with every load of the table, a property only once. If property and digest
differ (a snapshot was rolled back, say), or it is no list of ids, the ids are read from the table's rows.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.table import Table

from k2.tier import TierError
from k2.tier.faults import told
from k2.tier.identities import Identities, digest
from k2.tier.names import ENDS, IDENTITIES, OFFSETS

CARRIED = (OFFSETS, ENDS, IDENTITIES)


def carried(table: Table) -> dict[str, str]:
    """The summary properties that every commit which adds no records of the log has to carry on, unchanged."""
    snapshot = table.current_snapshot()
    if snapshot is None or snapshot.summary is None:
        return {}
    found = snapshot.summary.additional_properties
    return {name: found[name] for name in CARRIED if name in found}


def read_offsets(table: Table) -> dict[str, int]:
    """Stream to the next offset that the table lacks. Raises TierError."""
    if table.current_snapshot() is None:
        return {}
    text = carried(table).get(OFFSETS)
    if text is None:
        raise TierError(
            f"the current snapshot of {'.'.join(table.name())} does not say which log offsets it contains ({OFFSETS}):"
            " it was not made by K2; roll the table back to the snapshot before it"
        )
    try:
        return msgspec.json.decode(text, type=dict[str, Annotated[int, msgspec.Meta(ge=0)]])
    except msgspec.DecodeError as error:
        raise TierError(f"{OFFSETS} of the current snapshot of {'.'.join(table.name())}: {error}") from error


def read_ends(table: Table) -> dict[str, str]:
    """Stream to the digest of the last record that the table contains (`reach.ends`). Raises TierError."""
    try:
        return msgspec.json.decode(carried(table).get(ENDS, "{}"), type=dict[str, str])
    except msgspec.DecodeError as error:
        raise TierError(f"{ENDS} of the current snapshot of {'.'.join(table.name())}: {error}") from error


def write_offsets(offsets: Mapping[str, int], ends: Mapping[str, str]) -> dict[str, str]:
    """The summary properties for these offsets and digests."""
    return {
        OFFSETS: msgspec.json.encode(dict(sorted(offsets.items()))).decode(),
        ENDS: msgspec.json.encode(dict(sorted(ends.items()))).decode(),
    }


def read_identities(table: Table) -> Identities:
    """The trades that the current snapshot has."""
    if table.current_snapshot() is None:
        return Identities()
    text = table.properties.get(IDENTITIES, "")
    if text and digest(text) == carried(table).get(IDENTITIES):
        with suppress(msgspec.DecodeError, ValueError):
            return Identities.from_text(text)
    return identities_of_rows(table)


def identities_of_rows(table: Table) -> Identities:
    """The trades that the current snapshot has, from its rows: slow, and needs no one's word."""
    found = Identities()
    names = ["exchange", "symbol", "epoch", "trade_id"]
    for task in table.scan(selected_fields=tuple(names)).plan_files():
        path = task.file.file_path
        with told(f"the data file {path} cannot be read"), table.io.new_input(path).open() as source:
            for batch in pq.ParquetFile(source).iter_batches(columns=names):
                rows = pa.Table.from_batches([batch])
                for exchange in pc.unique(rows["exchange"]).to_pylist():
                    found.add(exchange, rows.filter(pc.equal(rows["exchange"], exchange)))
    return found
