"""What a closed day is proven by: for each symbol how many trades, which ids, what is missing, and a hash of it all.

The hash is SHA-256, as lower-case hex, over one line for each trade of one (exchange, symbol, epoch, UTC day), in order
of trade_id; every line ends with a line feed (10), and its eight values are separated by commas:

    native_symbol,trade_id,price,quantity,side,exchange_ts_ns,recv_ts_ns,source
    BTC/USD,7,61000.100000000000000000,0.000276250000000000,buy,1767225607000861000,1767225607000861777,live

Numbers are decimal without leading zeros or signs (but a minus), prices and quantities always with 18 decimals. In
DuckDB a line is `concat_ws(',', native_symbol, trade_id, price, quantity, side, exchange_ts_ns, recv_ts_ns, source)`.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from k2.core.islands import Islands
from k2.tier.catalog import tables_of
from k2.tier.faults import told
from k2.tier.schema import PROOFS

ProofKey = tuple[str, str, int, date]  # exchange, symbol, epoch, UTC day

LINE = ("native_symbol", "trade_id", "price", "quantity", "side", "exchange_ts_ns", "recv_ts_ns", "source")
_BATCH_ROWS = 1 << 16


class Proof(NamedTuple):
    """A row of `cold.proofs`: the trades of one symbol and epoch on one UTC day, as `snapshot_id` had them.

    `missing`: ranges of ids within first_id..last_id that cold has on no day. `preceded`: cold has the id before
    `first_id`, or nothing before it at all. `revision` counts from 1: if late trades came after the day was sealed it
    was sealed anew, and the highest one counts.
    """

    exchange: str
    symbol: str
    epoch: int
    day: date
    revision: int
    trade_count: int
    first_id: int
    last_id: int
    missing: tuple[tuple[int, int], ...]
    preceded: bool
    content_hash: str
    sealed_at: datetime
    snapshot_id: int

    @property
    def key(self) -> ProofKey:
        return self.exchange, self.symbol, self.epoch, self.day

    def says_the_same(self, other: "Proof") -> bool:
        """Whether both prove the same, whenever and as the how-many-eth they were made."""
        return self._replace(revision=0, sealed_at=other.sealed_at, snapshot_id=0) == other._replace(
            revision=0, snapshot_id=0
        )


def read_proofs(catalog: Catalog) -> dict[ProofKey, Proof]:
    """The newest proof of every sealed day, symbol and epoch. Raises TierError."""
    table = tables_of(catalog).get(PROOFS.name)
    return newest(table) if table else {}


def newest(table: Table) -> dict[ProofKey, Proof]:
    """The same, of one state of `cold.proofs`."""
    found: dict[ProofKey, Proof] = {}
    with told(f"{PROOFS.identifier} cannot be read"):
        rows = table.scan(selected_fields=Proof._fields).to_arrow()
    for row in rows.select(list(Proof._fields)).to_pylist():
        row["missing"] = tuple((part["first_id"], part["last_id"]) for part in row["missing"])
        proof = Proof(**row)
        if proof.key not in found or found[proof.key].revision < proof.revision:
            found[proof.key] = proof
    return found


def gaps_of(present: Islands, first_id: int, last_id: int) -> tuple[tuple[tuple[int, int], ...], bool]:
    """`missing` and `preceded` of a proof, `present` being all ids that cold has of its symbol and epoch."""
    return tuple(present.holes(first_id, last_id)), first_id == present.first or first_id - 1 in present


class ContentHash:
    """The content hash of trades that come in pieces, in order of trade_id."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, rows: pa.Table, pool: ThreadPoolExecutor) -> None:
        for text in pool.map(lines, rows.to_batches(max_chunksize=_BATCH_ROWS)):
            self._hash.update(_bytes(text))

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def lines(rows: pa.RecordBatch | pa.Table) -> pa.Array:
    """The canonical line of each trade, line feed included."""
    columns = [_text(rows[name]) for name in LINE]
    columns[-1] = pc.binary_join_element_wise(columns[-1], "\n", "")
    return pc.binary_join_element_wise(*columns, ",")


def _text(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    text = column.cast(pa.string())
    if not pa.types.is_decimal(column.type):
        return text
    short = pc.match_substring(text, "E")  # numbers below 10^-6 come as 1E-7
    if not pc.any(short).as_py():
        return text
    plain = [format(number, "f") for number in column.filter(short).to_pylist()]
    return pc.replace_with_mask(text, short, pa.array(plain, pa.string()))


def _bytes(text: pa.Array) -> memoryview:
    _, offsets, values = text.buffers()
    at = memoryview(offsets).cast("i")
    return memoryview(values)[at[text.offset] : at[text.offset + len(text)]]


def counts(proofs: Mapping[ProofKey, Proof]) -> dict[tuple[date, str], int]:
    """Trades that the proofs speak for, by day and exchange."""
    found: dict[tuple[date, str], int] = {}
    for proof in proofs.values():
        found[proof.day, proof.exchange] = found.get((proof.day, proof.exchange), 0) + proof.trade_count
    return found
