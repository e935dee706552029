"""One form for a row wherever it stands (cold, log, hot store), so that the same row gives the same checksum.

Each column is a ClickHouse expression over what the source gives. The log's are written down here anew, on purpose: an
audit that shared the archiver's conversion would share its mistakes. Times are integers (`..._ts` in us, rounded down,
`..._ts_ns` in ns); numbers are Decimal(38, 18).
"""

from collections.abc import Mapping
from typing import NamedTuple

from pyiceberg.schema import Schema
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

from k2.core.codec import FRAME_STRUCTURE

NS_A_DAY = 86_400_000_000_000


class Identity(NamedTuple):
    """What names a row of a cold table: expressions over its columns. `id` is an integer, `day` counts from 1970."""

    exchange: str
    symbol: str
    epoch: str
    id: str
    day: str

    @property
    def is_place(self) -> bool:
        """Whether it is the record's own offset, which no two records of a log share."""
        return self.id == "log_offset"


class Source(NamedTuple):
    """How rows come from outside of cold: `format` and `structure` as ClickHouse reads them, `columns` by cold name.

    `hot_...` say the same of the hot store: a FROM clause, the DateTime64 in it that gives the day, the columns.
    """

    format: str
    structure: str
    columns: Mapping[str, str]
    hot_from: str
    hot_time: str
    hot_columns: Mapping[str, str]


_KINDS: dict[type[IcebergType], str] = {
    StringType: "String",
    BinaryType: "String",
    IntegerType: "Int32",
    LongType: "Int64",
    TimestamptzType: "Int64",
    DateType: "Int32",
    BooleanType: "Bool",
}


def _day(column: str) -> str:
    return f"toInt32(intDiv({column} - positiveModulo({column}, {NS_A_DAY}), {NS_A_DAY}))"


_DAY_US = NS_A_DAY // 1000

IDENTITIES = {
    "trades": Identity("exchange", "symbol", "epoch", "trade_id", _day("exchange_ts_ns")),
    "frames": Identity("exchange", "''", "toInt32(0)", "log_offset", _day("recv_ts_ns")),
    "gaps": Identity("exchange", "''", "toInt32(0)", "log_offset", _day("event_ts_ns")),
    "ohlcv_1m": Identity(
        "exchange",
        "symbol",
        "toInt32(0)",
        "intDiv(window_start, 60000000)",
        f"toInt32(intDiv(window_start - positiveModulo(window_start, {_DAY_US}), {_DAY_US}))",
    ),
    "proofs": Identity("exchange", "symbol", "epoch", "toInt64(day) * 1000000 + revision", "day"),
}


def kind(column: NestedField) -> str:
    """The ClickHouse type of a cold column, once times and dates are integers."""
    plain = _kind(column.field_type)
    return plain if column.required or plain.startswith("Array") else f"Nullable({plain})"


def _kind(found: IcebergType) -> str:
    if isinstance(found, DecimalType):
        return f"Decimal({found.precision}, {found.scale})"
    if isinstance(found, ListType):
        return f"Array({_kind(found.element_type)})"
    if isinstance(found, StructType):
        return f"Tuple({', '.join(f'{one.name} {_kind(one.field_type)}' for one in found.fields)})"
    return _KINDS[type(found)]


def structure(schema: Schema) -> str:
    """The columns of a cold table as ClickHouse reads them."""
    return ", ".join(f"{column.name} {kind(column)}" for column in schema.fields)


def hashed(column: NestedField) -> str:
    """What goes into the checksum for a column: a hash function answers NULL for NULL, so that is taken out."""
    if isinstance(column.field_type, ListType | StructType):
        return f"toString({column.name})"
    return column.name if column.required else f"ifNull(toString({column.name}), '\\0')"


def told(column: NestedField) -> str:
    """A column as it is shown: of bytes only the first, how many they are and their hash."""
    name = column.name
    if not isinstance(column.field_type, BinaryType):
        return name
    first = f"hex(substring({name}, 1, 12))"
    return (
        f"concat('0x', {first}, '.. (', toString(length({name})), ' bytes, ', hex(cityHash64({name})), ')') AS {name}"
    )


def _micros(nanoseconds: str) -> str:
    return f"intDiv({nanoseconds} - positiveModulo({nanoseconds}, 1000), 1000)"


def _exact(text: str) -> str:
    """A number's text as Decimal(38, 18); what has no exact place there becomes -1 and so is never equal."""
    too_fine = f"position({text}, '.') > 0 AND length({text}) - position({text}, '.') > 18"
    return f"if({too_fine}, toDecimal128(-1, 18), toDecimal128OrDefault({text}, 18, toDecimal128(-1, 18)))"


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def _text(*names: str) -> dict[str, str]:
    return {name: f"toString({name})" for name in names}


_RANGES = "CAST(missing, 'Array(Tuple(first_id Int64, last_id Int64))')"
_TRADE = ("exchange", "symbol", "native_symbol", "side", "source")
_FRAME = ("kind", "connection", "request", "payload")
_GAP = ("exchange", "symbol", "state", "reason")

SOURCES = {
    "trades": Source(
        "JSONEachRow",
        "exchange String, symbol String, native_symbol String, trade_id Int64, price String, quantity String,"
        " side String, exchange_ts Int64, recv_ts Int64, source String, epoch Int32",
        {
            **_same(*_TRADE, "epoch", "trade_id"),
            "price": _exact("price"),
            "quantity": _exact("quantity"),
            "exchange_ts": _micros("exchange_ts"),
            "exchange_ts_ns": "exchange_ts",
            "recv_ts_ns": "recv_ts",
        },
        "(SELECT *, toInt64(0) AS row_position FROM k2.silver_trades)",
        "exchange_ts",
        {
            **_text(*_TRADE),
            **_same("trade_id", "price", "quantity"),
            "epoch": "toInt32(epoch)",
            "exchange_ts": _micros("toUnixTimestamp64Nano(exchange_ts)"),
            "exchange_ts_ns": "toUnixTimestamp64Nano(exchange_ts)",
            "recv_ts_ns": "toUnixTimestamp64Nano(recv_ts)",
        },
    ),
    "frames": Source(
        "RowBinary",
        FRAME_STRUCTURE,
        {
            **_same(*_FRAME),
            "exchange": "{exchange}",
            "log_offset": "toInt64(row_position)",
            "recv_ts": _micros("recv_ts"),
            "recv_ts_ns": "recv_ts",
        },
        "(SELECT *, toInt64(position) AS row_position FROM k2.bronze_frames)",
        "recv_ts",
        {
            **_text("exchange", *_FRAME),
            "log_offset": "toInt64(row_position)",
            "recv_ts": _micros("toUnixTimestamp64Nano(recv_ts)"),
            "recv_ts_ns": "toUnixTimestamp64Nano(recv_ts)",
        },
    ),
    "gaps": Source(
        "JSONEachRow",
        "exchange String, symbol String, first_id Int64, last_id Int64, state String, reason String, event_ts Int64,"
        " detected_ts Int64, missing Array(Tuple(Int64, Int64)), epoch Int32",
        {
            **_same(*_GAP, "epoch", "first_id", "last_id"),
            "missing": _RANGES,
            "event_ts": _micros("event_ts"),
            "event_ts_ns": "event_ts",
            "detected_ts_ns": "detected_ts",
            "log_offset": "toInt64(row_position)",
        },
        "(SELECT *, toInt64(position) AS row_position, fromUnixTimestamp64Nano(event_ts, 'UTC') AS event_time"
        " FROM k2.gaps_base WHERE generation <= (SELECT max(generation) FROM k2.commits))",
        "event_time",
        {
            **_text(*_GAP),
            "epoch": "toInt32(epoch)",
            **_same("first_id", "last_id"),
            "missing": _RANGES,
            "event_ts": _micros("event_ts"),
            "event_ts_ns": "event_ts",
            "detected_ts_ns": "detected_ts",
            "log_offset": "toInt64(row_position)",
        },
    ),
}


def audited(table: str, schema: Schema) -> Schema:
    """The columns of a table that the log determines: those that are known here."""
    return Schema(*(column for column in schema.fields if column.name in SOURCES[table].columns))
