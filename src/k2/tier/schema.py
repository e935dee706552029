"""The cold tables: columns, partitions, order and how their files are encoded.

PyIceberg writes no format version 3, so no nanosecond types: a time is a `timestamptz` of microseconds, for partitions
and for people, and beside it the exact nanoseconds since 1970 as a long (`..._ns`). Field ids are given here, in
the order in which a catalog would number them, and never reused; a new column is optional and stands last.
"""

from typing import Any, NamedTuple

import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestamptzType,
)

from k2.tier.names import NAMESPACE

RETRIES = "commit.retry.num-retries"
EXACT = DecimalType(38, 18)

_PROPERTIES = {
    "format-version": "2",
    RETRIES: "0",  # a retry would append the same rows after whatever another archiver has just committed
    "write.parquet.compression-codec": "zstd",
    "write.parquet.compression-level": "3",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "commit.manifest-merge.enabled": "true",  # appends of the archiver never merge; maintenance does, with these
    "commit.manifest.min-count-to-merge": "2",
    "commit.manifest.target-size-bytes": "1048576",
}


class ColdTable(NamedTuple):
    """One table. `day` names the column whose UTC day partitions it, "" if it has no partitions; rows of a file are in
    the order of `sort`.

    `encodings` are Parquet encodings by column; the others are dictionary encoded.
    """

    name: str
    schema: Schema
    day: str
    sort: tuple[str, ...]
    encodings: dict[str, str]
    properties: dict[str, str]

    @property
    def names(self) -> list[str]:
        return [field.name for field in self.schema.fields]

    @property
    def identifier(self) -> str:
        return f"{NAMESPACE}.{self.name}"

    @property
    def partitions(self) -> PartitionSpec:
        """By day, then by exchange."""
        if not self.day:
            return PartitionSpec()
        day, exchange = self.schema.find_field(self.day), self.schema.find_field("exchange")
        return PartitionSpec(
            PartitionField(day.field_id, 1000, DayTransform(), f"{self.day}_day"),
            PartitionField(exchange.field_id, 1001, IdentityTransform(), "exchange"),
        )

    @property
    def order(self) -> SortOrder:
        return SortOrder(*(SortField(self.schema.find_field(name).field_id, IdentityTransform()) for name in self.sort))

    @property
    def arrow(self) -> pa.Schema:
        """The columns as files hold them, with their field ids."""
        return arrow_schema(self.schema)


def arrow_schema(schema: Schema) -> pa.Schema:
    """An Iceberg schema as Parquet files hold it: field ids, and 32-bit offsets in strings."""
    return pa.schema([field.with_type(_short(field.type)) for field in schema_to_pyarrow(schema)])


def _short(kind: pa.DataType) -> pa.DataType:
    short: dict[Any, pa.DataType] = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}
    return short.get(kind, kind)


def _fields(*columns: tuple[str, IcebergType]) -> Schema:
    return Schema(*(NestedField(i, name, kind, required=True) for i, (name, kind) in enumerate(columns, 1)))


_TEXT, _LONG, _TIME = StringType(), LongType(), TimestamptzType()

TRADES = ColdTable(
    "trades",
    _fields(
        ("exchange", _TEXT),
        ("symbol", _TEXT),
        ("native_symbol", _TEXT),
        ("epoch", IntegerType()),
        ("trade_id", _LONG),
        ("price", EXACT),
        ("quantity", EXACT),
        ("side", _TEXT),
        ("exchange_ts", _TIME),
        ("exchange_ts_ns", _LONG),
        ("recv_ts_ns", _LONG),
        ("source", _TEXT),
    ),
    "exchange_ts",
    ("symbol", "epoch", "trade_id"),
    # Prices and quantities repeat: a dictionary, which gives way to plain values where there are too many of them.
    # BYTE_STREAM_SPLIT would suit those better, but Polars cannot read a decimal written so.
    dict.fromkeys(("trade_id", "exchange_ts", "exchange_ts_ns", "recv_ts_ns"), "DELTA_BINARY_PACKED"),
    _PROPERTIES,
)

FRAMES = ColdTable(
    "frames",
    _fields(
        ("exchange", _TEXT),
        ("log_offset", _LONG),
        ("recv_ts", _TIME),
        ("recv_ts_ns", _LONG),
        ("kind", _TEXT),
        ("connection", _TEXT),
        ("request", _TEXT),
        ("payload", BinaryType()),
    ),
    "recv_ts",
    ("log_offset",),
    {
        "log_offset": "DELTA_BINARY_PACKED",
        "recv_ts": "DELTA_BINARY_PACKED",
        "recv_ts_ns": "DELTA_BINARY_PACKED",
        "payload": "PLAIN",
    },
    {**_PROPERTIES, "write.metadata.metrics.column.payload": "counts"},
)

_RANGE = StructType(NestedField(14, "first_id", _LONG, required=True), NestedField(15, "last_id", _LONG, required=True))

GAPS = ColdTable(
    "gaps",
    _fields(
        ("exchange", _TEXT),
        ("symbol", _TEXT),
        ("epoch", IntegerType()),
        ("first_id", _LONG),
        ("last_id", _LONG),
        ("state", _TEXT),
        ("reason", _TEXT),
        ("missing", ListType(13, _RANGE, element_required=True)),
        ("event_ts", _TIME),
        ("event_ts_ns", _LONG),
        ("detected_ts_ns", _LONG),
        ("log_offset", _LONG),
    ),
    "event_ts",
    ("log_offset",),
    {},
    _PROPERTIES,
)

OHLCV_1M = ColdTable(
    "ohlcv_1m",
    _fields(
        ("exchange", _TEXT),
        ("symbol", _TEXT),
        ("window_start", _TIME),
        ("open", EXACT),
        ("high", EXACT),
        ("low", EXACT),
        ("close", EXACT),
        ("volume", EXACT),
        ("quote_volume", EXACT),  # cut to 18 decimals; what is cut off, nearly always 0, stands in the next column
        ("quote_volume_rest", DecimalType(38, 36)),
        ("buy_volume", EXACT),
        ("vwap", EXACT),
        ("trade_count", _LONG),
        ("first_epoch", IntegerType()),
        ("first_trade_id", _LONG),
        ("last_epoch", IntegerType()),
        ("last_trade_id", _LONG),
        ("apart", BooleanType()),  # the trade before the first one is missing
        ("complete", BooleanType()),
    ),
    "window_start",
    ("symbol", "window_start"),
    {},
    _PROPERTIES,
)

_MISSING = StructType(
    NestedField(15, "first_id", _LONG, required=True), NestedField(16, "last_id", _LONG, required=True)
)

PROOFS = ColdTable(
    "proofs",
    _fields(
        ("exchange", _TEXT),
        ("symbol", _TEXT),
        ("epoch", IntegerType()),
        ("day", DateType()),
        ("revision", IntegerType()),
        ("trade_count", _LONG),
        ("first_id", _LONG),
        ("last_id", _LONG),
        ("missing", ListType(14, _MISSING, element_required=True)),
        ("preceded", BooleanType()),
        ("content_hash", _TEXT),
        ("sealed_at", _TIME),
        ("snapshot_id", _LONG),
    ),
    "",
    ("exchange", "day", "symbol", "epoch", "revision"),
    {},
    _PROPERTIES,
)

TABLES = {table.name: table for table in (TRADES, FRAMES, GAPS)}  # filled from the log
DERIVED = {table.name: table for table in (OHLCV_1M, PROOFS)}  # made from those by maintenance
