"""Rows as sorted Parquet data files, one for each partition they fall in.

PyIceberg's own writer takes no encodings by column and wants a compiled helper for the day of a time; so the bytes are
written here, and PyIceberg reads from the finished file's footer what the manifest needs.
"""

import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table

from k2.tier.schema import ColdTable, arrow_schema

ROW_GROUP = 1 << 18  # rows


def write_files(table: Table, cold: ColdTable, rows: pa.Table) -> list[DataFile]:
    """Write one exchange's rows (or several exchanges'), in `cold.sort` order, and return the files, not committed.

    What fails leaves no file behind: a truncated one would go on filling a disk that is full.
    """
    files: list[DataFile] = []
    try:
        for part in _partitions(cold, rows):
            files.append(_write(table, cold, part))
    except BaseException:
        remove_files(table, files)
        raise
    return files


def remove_files(table: Table, files: Sequence[DataFile]) -> None:
    """Remove data files that no snapshot refers to; such as cannot be removed stay as orphans."""
    for file in files:
        with suppress(OSError):
            table.io.delete(file.file_path)


def parquet_options(table: Table, cold: ColdTable, schema: pa.Schema) -> dict[str, Any]:
    """How `cold`'s files are compressed and encoded, as PyArrow's Parquet writers take it."""
    return {
        "compression": table.properties.get("write.parquet.compression-codec", "zstd"),
        "compression_level": int(table.properties.get("write.parquet.compression-level", "3")),
        "use_dictionary": [name for name in _leaves(schema) if name not in cold.encodings],
        "column_encoding": cold.encodings or None,
        "store_schema": False,
        "write_page_index": True,
    }


def data_file(table: Table, path: str, footer: pq.FileMetaData) -> DataFile:
    """What a manifest says of a file that is written and closed."""
    schema, properties = table.schema(), table.properties
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=footer,
        stats_columns=compute_statistics_plan(schema, properties),
        parquet_column_mapping=parquet_path_to_id_mapping(schema),
    )
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=statistics.partition(table.spec(), schema),
        file_size_in_bytes=len(table.io.new_input(path)),
        sort_order_id=None,  # ClickHouse (26.9) takes sorted files that overlap for one sorted stream: wrong answers
        spec_id=table.spec().spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )


def _partitions(cold: ColdTable, rows: pa.Table) -> list[pa.Table]:
    exchanges = [rows.filter(pc.equal(rows["exchange"], name)) for name in _others(rows["exchange"])] or [rows]
    found = []
    for part in exchanges:
        bounds = pc.min_max(part[cold.day]).as_py()
        if bounds["min"].date() == bounds["max"].date():
            found.append(part)
        else:
            days = part[cold.day].cast(pa.timestamp("us")).cast(pa.date32())  # floor_temporal is 50 times as slow
            found += [part.filter(pc.equal(days, day)) for day in sorted(pc.unique(days).to_pylist())]
    return found


def _others(names: pa.ChunkedArray) -> list[str]:
    distinct: list[str] = sorted(set(pc.unique(names.unify_dictionaries()).to_pylist()))
    return distinct if len(distinct) > 1 else []


def _write(table: Table, cold: ColdTable, rows: pa.Table) -> DataFile:
    schema = arrow_schema(table.schema())
    day = rows[cold.day][0].as_py().date()
    exchange = rows["exchange"][0].as_py()
    path = f"{table.location()}/data/{cold.day}_day={day}/exchange={exchange}/{uuid.uuid4()}.parquet"
    for field in schema:
        if field.name not in rows.column_names:  # a column newer than this code
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    rows = rows.select(schema.names)
    try:
        with table.io.new_output(path).create(overwrite=False) as sink:
            pq.write_table(
                _as_in_file(rows, schema),
                sink,
                row_group_size=ROW_GROUP,
                **parquet_options(table, cold, schema),
            )
        with table.io.new_input(path).open() as source:
            return data_file(table, path, pq.read_metadata(source))
    except BaseException:
        with suppress(OSError):
            table.io.delete(path)
        raise


def _as_in_file(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows under the table's schema; dictionary columns stay so, for they are written without being unpacked."""
    fields = [
        field.with_type(column.type) if pa.types.is_dictionary(column.type) else field
        for field, column in zip(schema, rows.columns, strict=True)
    ]
    return rows.cast(pa.schema(fields))


def _leaves(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if not pa.types.is_nested(field.type)]
