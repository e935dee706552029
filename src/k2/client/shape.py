"""The Arrow types that answers have: the same from the API and from the store."""

from collections.abc import Iterable
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

TIME = pa.timestamp("ns", tz="UTC")
EXACT = pa.decimal128(38, 18)  # prices and quantities
SUM = pa.decimal256(76, 18)  # sums of quantities
PRODUCT = pa.decimal256(76, 36)  # sums of price x quantity

TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("price", "quantity", "open", "high", "low", "close", "vwap"), EXACT),
    **dict.fromkeys(("volume", "buy_volume"), SUM),
    "quote_volume": PRODUCT,
    **dict.fromkeys(("exchange_ts", "recv_ts", "event_ts", "detected_ts", "window_start"), TIME),
    **dict.fromkeys(("first_trade_ts", "last_trade_ts"), TIME),
    **dict.fromkeys(("trade_id", "first_trade_id", "last_trade_id", "first_id", "last_id", "trade_count"), pa.int64()),
    "epoch": pa.uint32(),
    "complete": pa.bool_(),
}


def schema_of(schema: pa.Schema, named: bool) -> pa.Schema:
    """The types that a batch of this schema is cast to. `named`: columns are K2's own, so their names say more."""
    return pa.schema([(field.name, _plain(field, named)) for field in schema])


def _plain(field: pa.Field, named: bool) -> pa.DataType:
    if named and field.name in TYPES:
        return TYPES[field.name]
    kind = field.type
    if TYPES.get(field.name) == TIME and pa.types.is_uint32(kind):
        return TIME  # Arrow has no name for ClickHouse's DateTime
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_binary(kind):
        return pa.binary()
    if pa.types.is_timestamp(kind):
        return TIME
    return kind


def cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with these types. Raises pyarrow.ArrowInvalid where a value has no place in them."""
    columns = [_cast(column, field.type) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    if pa.types.is_timestamp(kind) and pa.types.is_integer(column.type):
        return column.cast(pa.int64()).cast(pa.timestamp("s", tz="UTC")).cast(kind)  # seconds
    return column.cast(kind)


def narrowed(table: pa.Table) -> pa.Table:
    """With decimals of 38 digits, which most readers end at: the fewest decimals, of 18 or more, that lose nothing.
    A column whose numbers need more digits becomes text."""
    for index, field in enumerate(table.schema):
        if pa.types.is_decimal256(field.type):
            table = table.set_column(index, field.name, _narrow(table.column(index), field.type))
    return table


def _narrow(column: pa.ChunkedArray, kind: pa.Decimal256Type) -> pa.ChunkedArray:
    for scale in sorted({min(18, kind.scale), *range(18, kind.scale + 1, 6)}):
        try:
            return column.cast(pa.decimal128(38, scale))
        except pa.ArrowInvalid:
            continue
    return column.cast(pa.string())


def floats(table: pa.Table) -> pa.Table:
    """With decimals as float64: for plots and statistics, no longer exact."""
    for index, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type):
            table = table.set_column(index, field.name, pc.cast(table.column(index), pa.float64()))
    return table


def texts(batches: Iterable[pa.RecordBatch], rows: int) -> list[list[str]]:
    """The first rows as a person reads them."""
    found: list[list[str]] = []
    for batch in batches:
        head = batch.slice(0, rows - len(found))
        found += [list(row) for row in zip(*(_words(column) for column in head.columns), strict=True)]
        if len(found) == rows:
            break
    return found


def _words(column: pa.Array) -> list[str]:
    if pa.types.is_timestamp(column.type):
        return [_moment(value) for value in column.cast(pa.int64()).to_pylist()]
    if pa.types.is_decimal(column.type):
        return [_number(value) for value in column.cast(pa.string()).to_pylist()]
    return ["" if value is None else str(value) for value in column.to_pylist()]


def _moment(ns: int | None) -> str:
    if ns is None:
        return ""
    seconds, rest = divmod(ns, 1_000_000_000)
    text = str(pa.scalar(seconds, pa.timestamp("s")))
    return f"{text}.{rest:09d}".rstrip("0").rstrip(".") if rest else text


def _number(text: str | None) -> str:
    if text is None:
        return ""
    plain = format(Decimal(text), "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
