"""Every row of a cold table as four engines read it, in one form: numbers as text, times in us, lists as lists."""

import json
import subprocess
import sys
import warnings
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars
from pyiceberg.table import Table
from pyiceberg.types import BinaryType, DateType, DecimalType, IcebergType, ListType, TimestamptzType

Rows = list[list[Any]]
_1970 = datetime(1970, 1, 1, tzinfo=UTC)
_CHDB = """
import chdb, json, sys
connection = chdb.connect(sys.argv[1] + "/chdb")  # lets files be read below the folder it was started in only
for query in json.load(sys.stdin):
    print(json.dumps(json.loads(connection.query(query, "JSONCompact").bytes())["data"]))
"""


def with_pyiceberg(table: Table) -> Rows:
    return _form(table.scan().to_arrow().to_pylist(), table)


def with_polars(table: Table) -> Rows:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _form(polars.scan_iceberg(table).collect().to_dicts(), table)


def with_duckdb(table: Table) -> Rows:
    """Through Arrow; a time with a zone cannot be fetched without more packages, so it is asked for in us."""
    rows = duckdb.from_arrow(table.scan().to_arrow_batch_reader())
    columns = [
        f"epoch_us({field.name})" if isinstance(field.field_type, TimestamptzType) else field.name
        for field in table.schema().fields
    ]
    names = _names(table)
    found = rows.query("cold", f"SELECT {', '.join(columns)} FROM cold").fetchall()
    return _form([dict(zip(names, row, strict=True)) for row in found], table)


def with_clickhouse(folder: Path, tables: Iterable[Table]) -> list[Rows]:
    """With the Iceberg table function of ClickHouse (chDB), in a process of its own below `folder`."""
    listed = list(tables)
    queries = [
        f"SELECT {', '.join(_asked(field.name, field.field_type) for field in table.schema().fields)}"
        f" FROM icebergLocal('{table.location().removeprefix('file://')}')"
        " SETTINGS output_format_json_quote_64bit_integers = 0, output_format_json_named_tuples_as_objects = 0"
        for table in listed
    ]
    answer = subprocess.run(
        [sys.executable, "-c", _CHDB, str(folder)],
        check=False,
        cwd=folder,
        input=json.dumps(queries),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert answer.returncode == 0, answer.stderr
    return [sorted(json.loads(line), key=str) for line in answer.stdout.splitlines()]


def _asked(name: str, kind: IcebergType) -> str:
    if isinstance(kind, TimestamptzType):
        return f"toUnixTimestamp64Micro({name})"
    if isinstance(kind, DecimalType):
        return f"toDecimalString({name}, {kind.scale})"
    if isinstance(kind, DateType):
        return f"toInt32({name})"
    return f"lower(hex({name}))" if isinstance(kind, BinaryType) else name


def _names(table: Table) -> list[str]:
    return [field.name for field in table.schema().fields]


def _form(rows: Iterable[dict[str, Any]], table: Table) -> Rows:
    kinds = {field.name: field.field_type for field in table.schema().fields}
    return sorted(([_value(row[name], kind) for name, kind in kinds.items()] for row in rows), key=str)


def _value(value: Any, kind: IcebergType) -> Any:
    if value is None:
        return None
    if isinstance(kind, ListType):
        return [list(one.values()) for one in value]
    if isinstance(kind, DecimalType):
        return f"{Decimal(value):.{kind.scale}f}"
    if isinstance(value, datetime):
        return (value - _1970) // (_1970.resolution)
    if isinstance(value, date):
        return (value - _1970.date()).days
    return value.hex() if isinstance(value, bytes) else value
