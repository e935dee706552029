"""What cold.trades has of an exchange in a span of time: ids and times by symbol and epoch, and what they imply."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import StaticTable, Table

from k2.core.counter import CounterState
from k2.core.islands import Islands
from k2.core.sequence import Sequences
from k2.core.types import Gap
from k2.tier.faults import told
from k2.tier.identities import Identities
from k2.tier.past.scan import Span, trades
from k2.tier.watermark import read_identities

AT_ONCE = 1 << 18  # rows
_COLUMNS = ("symbol", "native_symbol", "epoch", "trade_id", "exchange_ts_ns")

Counter = tuple[str, int]  # symbol, epoch


class Known(NamedTuple):
    """`ids` and `times` (least and greatest exchange time, ns) by symbol and epoch; the venue's names by symbol."""

    ids: dict[Counter, Islands]
    times: dict[Counter, tuple[int, int]]
    natives: dict[str, str]


def known(table: Table, span: Span) -> Known:
    """Read them. Raises TierError."""
    identities = Identities()
    found = Known({}, {}, {})
    for rows in _merged(trades(table, span, _COLUMNS)):
        identities.add(span.exchange, rows)
        summed = rows.group_by(["symbol", "epoch"]).aggregate(
            [("exchange_ts_ns", "min"), ("exchange_ts_ns", "max"), ("native_symbol", "max")]
        )
        for row in summed.to_pylist():
            counter = row["symbol"], row["epoch"]
            first, last = row["exchange_ts_ns_min"], row["exchange_ts_ns_max"]
            before = found.times.get(counter, (first, last))
            found.times[counter] = min(before[0], first), max(before[1], last)
            found.natives[row["symbol"]] = row["native_symbol_max"]
    found.ids.update({(symbol, epoch): islands for (_, symbol, epoch), islands in identities.items()})
    return found


def identities_at(catalog: Catalog, metadata_location: str) -> Identities:
    """All trades that cold.trades has, as of one of its metadata files. Raises TierError."""
    with told(f"reading {metadata_location}"):
        return read_identities(StaticTable.from_metadata(metadata_location, catalog.properties))


def sequences(exchange: str, before: Known, ledger: Sequence[Gap]) -> Sequences:
    """What the feed knew of the trade ids when it had received `before` and no more, for judging what came next.

    Gaps that were open then are not among it: trades that fill them are new, and the ledger has told of them already.
    `ledger` is the whole gap ledger of the exchange.
    """
    began = {(gap.symbol, gap.epoch): gap for gap in ledger if gap.state in ("start", "epoch")}
    newest: dict[str, int] = {}
    for symbol, epoch in before.ids:
        newest[symbol] = max(epoch, newest.get(symbol, 0))
    states = [_state(symbol, epoch, before, began.get((symbol, epoch))) for symbol, epoch in newest.items()]
    return Sequences.load(exchange, msgspec.json.encode(states))


def _state(symbol: str, epoch: int, before: Known, start: Gap | None) -> CounterState:
    ids = before.ids[symbol, epoch]
    first_ts, newest_ts = before.times[symbol, epoch]
    began_id = start.first_id if start else ids.first or 0
    return CounterState(
        symbol,
        before.natives[symbol],
        epoch,
        ids.to_list(),
        ids.last or 0,
        newest_ts,
        newest_ts,
        first_ts,
        start.event_ts if start else first_ts,
        [],
        began_id,
        1 if epoch else began_id,
        before.times.get((symbol, epoch - 1), (0, 0))[1],
    )


def _merged(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    parts: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        parts.append(batch)
        count += batch.num_rows
        if count >= AT_ONCE:
            yield pa.Table.from_batches(parts)
            parts, count = [], 0
    if parts:
        yield pa.Table.from_batches(parts)
