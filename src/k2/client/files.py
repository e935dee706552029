"""Rows into files: Parquet, CSV or Arrow, exactly, batch by batch, and whole or not at all."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from k2.client.errors import InvalidQuestion

FORMATS = ("parquet", "csv", "arrow")
_GROUP = 250_000  # rows of a Parquet row group, and so of what is held in memory


class _Writer(Protocol):
    def write_batch(self, batch: pa.RecordBatch) -> None: ...
    def close(self) -> None: ...


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place when all went well, and else is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write(path: Path, form: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """All batches into a file; the number of rows. Replaces a file that is there. Raises OSError, K2Error."""
    rows = 0
    target = schema_for(form, schema)
    with whole(path) as part, ExitStack() as stack:
        writer = _open(part, form, target)
        stack.callback(writer.close)
        for batch in _grouped(batches, schema) if form == "parquet" else batches:
            writer.write_batch(fitted(batch, target))
            rows += batch.num_rows
    return rows


def schema_for(form: str, schema: pa.Schema) -> pa.Schema:
    """The columns as they stand in a file: Arrow has them as they are; Parquet has decimals of 38 digits, which its
    readers end at; CSV has text."""
    if form == "arrow":
        return schema
    return pa.schema(
        [(field.name, _in_parquet(field.type) if form == "parquet" else _in_csv(field.type)) for field in schema]
    )


def _in_parquet(kind: pa.DataType) -> pa.DataType:
    return pa.decimal128(38, 18) if pa.types.is_decimal256(kind) else kind


def _in_csv(kind: pa.DataType) -> pa.DataType:
    texts = (pa.types.is_decimal, pa.types.is_timestamp, pa.types.is_nested, pa.types.is_binary)
    return pa.string() if any(is_one(kind) for is_one in texts) else kind


def fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with these types, nothing rounded. Raises InvalidQuestion where a value has no place in them."""
    columns = []
    for column, field in zip(batch.columns, schema, strict=True):
        try:
            columns.append(_as_text(column) if pa.types.is_string(field.type) else column.cast(field.type))
        except pa.ArrowInvalid as error:
            raise InvalidQuestion(
                "A value does not fit", f"{field.name}: {error}", "write Arrow, which holds every value"
            ) from None
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _as_text(column: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(column.type):
        return _rfc3339(column)
    if pa.types.is_decimal(column.type):
        return _plain_numbers(column)
    if pa.types.is_nested(column.type):
        import msgspec

        return pa.array([msgspec.json.encode(value).decode() for value in column.to_pylist()], pa.string())
    return column.cast(pa.string())


def _rfc3339(column: pa.Array) -> pa.Array:
    """UTC times. Without its zone a time is written sixteen times as fast as with it (measured, also by strftime)."""
    text = column.cast(pa.int64()).cast(pa.timestamp(column.type.unit)).cast(pa.string())
    return pc.binary_join_element_wise(pc.utf8_replace_slice(text, 10, 11, "T"), "Z", "")


def _plain_numbers(column: pa.Array) -> pa.Array:
    """Without exponents and trailing zeros. All of K2's decimals have decimals."""
    text = column.cast(pa.string())
    tiny = pc.match_substring(text, "E")
    if pc.any(tiny).as_py():
        written_out = [format(value, "f") for value in column.filter(tiny).to_pylist() if value is not None]
        text = pc.replace_with_mask(text, pc.fill_null(tiny, False), pa.array(written_out, pa.string()))
    return pc.utf8_rtrim(pc.utf8_rtrim(text, characters="0"), characters=".")


def _open(part: Path, form: str, schema: pa.Schema) -> _Writer:
    if form == "parquet":
        import pyarrow.parquet as pq

        writer: Any = pq.ParquetWriter(part, schema, compression="zstd")
        return writer  # type: ignore[no-any-return]
    if form == "csv":
        from pyarrow import csv

        return csv.CSVWriter(part, schema)  # type: ignore[no-any-return]
    return _ArrowFile(part, schema)


class _ArrowFile:
    """An Arrow IPC file."""

    def __init__(self, part: Path, schema: pa.Schema) -> None:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._file = pa.OSFile(str(part), "wb")
        self._writer = pa.ipc.new_file(self._file, schema, options=options)

    def write_batch(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()
        self._file.close()


def _grouped(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Batches joined to the size of a row group."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        if rows >= _GROUP:
            yield pa.concat_batches(held)
            held, rows = [], 0
    if held:
        yield pa.concat_batches(held)
