"""Rows of single data files, a bounded piece at a time, under their table's present schema."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from k2.tier import TierError
from k2.tier.faults import told
from k2.tier.schema import ColdTable, arrow_schema

PIECE_ROWS = 1 << 18
PIECE_BYTES = 32 << 20

_NAME = pa.dictionary(pa.int32(), pa.string())  # names repeat: cheap to hold, to sort and to write


def held_schema(table: Table, cold: ColdTable) -> pa.Schema:
    """The columns as they are held in memory: as in files, but for names, which are dictionary arrays."""
    return pa.schema(
        [
            field.with_type(_NAME) if pa.types.is_string(field.type) and field.name not in cold.encodings else field
            for field in arrow_schema(table.schema())
        ]
    )


def files_by_partition(table: Table) -> dict[Record, list[DataFile]]:
    """The live data files of the table's current snapshot. Raises TierError."""
    found: dict[Record, list[DataFile]] = {}
    with told(f"the files of {'.'.join(table.name())} cannot be listed"):
        for task in table.scan().plan_files():
            if task.delete_files:
                raise TierError(
                    f"{task.file.file_path} of {'.'.join(table.name())} has delete files, which K2 does not write and"
                    " does not read: rewrite them with the engine that wrote them, then run again"
                )
            found.setdefault(task.file.partition, []).append(task.file)
    return found


def read(table: Table, cold: ColdTable, file: DataFile) -> Iterator[pa.Table]:
    """The file's rows as they stand in it, in pieces of at most PIECE_ROWS and about PIECE_BYTES. Raises TierError."""
    schema = held_schema(table, cold)
    count = 0
    with told(f"{file.file_path} of {cold.identifier} cannot be read"):
        with table.io.new_input(file.file_path).open() as source:
            footer = pq.read_metadata(source)
            present = footer.schema.to_arrow_schema().names
            names = [field.name for field in schema if field.type == _NAME and field.name in present]
            parquet = pq.ParquetFile(source, metadata=footer, read_dictionary=names, pre_buffer=False)
            for batch in parquet.iter_batches(_piece_rows(footer)):
                count += batch.num_rows
                yield _under(schema, pa.Table.from_batches([batch]))
        if count != file.record_count:
            raise TierError(
                f"{file.file_path} of {cold.identifier} has {count} rows, its manifest says {file.record_count}: it is"
                " damaged or was exchanged; restore it from a backup, then run again"
            )


def ends(table: Table, cold: ColdTable, file: DataFile) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """The values of the sort columns in the file's first and in its last row. Raises TierError."""
    with (
        told(f"{file.file_path} of {cold.identifier} cannot be read"),
        table.io.new_input(file.file_path).open() as source,
        pq.ParquetFile(source, pre_buffer=False) as parquet,
    ):
        names = list(cold.sort)
        first = parquet.read_row_group(0, names)
        last = parquet.read_row_group(parquet.num_row_groups - 1, names)
        return _row(first, 0, names), _row(last, last.num_rows - 1, names)


def _row(rows: pa.Table, i: int, names: Sequence[str]) -> tuple[object, ...]:
    return tuple(rows[name][i].as_py() for name in names)


def _piece_rows(metadata: pq.FileMetaData) -> int:
    size: int = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    rows: int = metadata.num_rows
    return max(1, min(PIECE_ROWS, PIECE_BYTES * rows // max(1, size)))


def _under(schema: pa.Schema, rows: pa.Table) -> pa.Table:
    present = set(rows.column_names)
    columns = [
        rows[field.name] if field.name in present else pa.nulls(rows.num_rows, field.type)  # a file from before it
        for field in schema
    ]
    return pa.table(columns, names=schema.names).cast(schema)
