"""What a question gives: rows as Arrow, all at once or as a stream of batches."""

from collections.abc import Callable, Iterator
from html import escape
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from k2.client import shape

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_SHOWN = 10  # rows of a preview


class Batches(Protocol):
    """An answer that is being read. `close` gives up the rest; idempotent."""

    schema: pa.Schema

    def __iter__(self) -> Iterator[pa.RecordBatch]: ...
    def close(self) -> None: ...


class Result:
    """The rows of one answer.

    The question is put, and checked, when the Result is made; rows are read when they are wanted. Prices and
    quantities are decimal128(38, 18), sums of them decimal256, times timestamp[ns, UTC]; nothing is rounded.

    `len`, `to_arrow`, `to_polars` and `to_pandas` read all rows and keep them. `batches` keeps none: a result of any
    size takes little memory. A `with` block (or `close`) gives up what has not been read.
    """

    def __init__(self, name: str, ask: Callable[[], Batches]) -> None:
        self.name = name
        self._ask = ask
        self._stream: Batches | None = ask()
        self._early: list[pa.RecordBatch] = []  # read for a preview
        self._table: pa.Table | None = None
        self.schema: pa.Schema = self._stream.schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, some thousands at a time. Once they are gone, the next call puts the question again."""
        if self._table is not None:
            yield from self._table.to_batches()
            return
        stream, self._stream = self._stream or self._ask(), None
        early, self._early = self._early, []
        try:
            yield from chain(early, stream)
        finally:
            stream.close()

    def to_arrow(self) -> pa.Table:
        """All rows as a pyarrow Table."""
        if self._table is None:
            self._table = pa.Table.from_batches(self.batches(), self.schema)
        return self._table

    def to_polars(self) -> "pl.DataFrame":
        """All rows as a Polars DataFrame. Sums become Decimal of 38 digits, or text where those are not enough."""
        import polars as pl

        frame = pl.from_arrow(shape.narrowed(self.to_arrow()))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def to_pandas(self, *, floats: bool = False) -> "pd.DataFrame":
        """All rows as a pandas DataFrame. Exact numbers are `decimal.Decimal` objects; with `floats` they become
        float64, for plots and statistics."""
        table = self.to_arrow()
        return (shape.floats(table) if floats else table).to_pandas()

    def to_pylist(self) -> list[dict[str, Any]]:
        """All rows as dictionaries. Times with nanoseconds become pandas.Timestamp, for which pandas must be there."""
        rows: list[dict[str, Any]] = self.to_arrow().to_pylist()
        return rows

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self.schema.names)

    def close(self) -> None:
        """Give up what has not been read. Idempotent."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            self._early = []

    def __enter__(self) -> "Result":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self.to_arrow().num_rows)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """For every library that takes Arrow (Polars, DuckDB, pandas, ...): `duckdb.sql("FROM result")`."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        rows, about = self._preview()
        widths = [max([len(name), *(len(row[i]) for row in rows)]) for i, name in enumerate(self.columns)]
        right = [_is_number(field.type) for field in self.schema]
        lines = [_line(self.columns, widths, right), *(_line(row, widths, right) for row in rows)]
        return "\n".join([about, *lines])

    def _repr_html_(self) -> str:
        rows, about = self._preview()
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        align = [' style="text-align: right"' if _is_number(field.type) else "" for field in self.schema]
        body = "".join(
            "<tr>"
            + "".join(f"<td{style}>{escape(cell)}</td>" for cell, style in zip(row, align, strict=True))
            + "</tr>"
            for row in rows
        )
        return f"<p>{escape(about)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _preview(self) -> tuple[list[list[str]], str]:
        """The first rows, and a line about all of them; reads no more than it needs."""
        if self._table is None:
            self._look_ahead()
        if self._table is not None:
            count = f"{self._table.num_rows:,} rows"
            rows = shape.texts(self._table.to_batches(), _SHOWN)
            more = f", the first {len(rows)}" if len(rows) < self._table.num_rows else ""
            return rows, f"{self.name}: {count} x {len(self.columns)} columns{more}"
        rows = shape.texts(self._early, _SHOWN)
        return rows, f"{self.name}: the first {len(rows)} of many rows x {len(self.columns)} columns"

    def _look_ahead(self) -> None:
        """Read a batch past a full preview; where there was none, keep what came as the table."""
        if len(self._early) > 1:
            return
        stream = self._stream = self._stream or self._ask()
        seen = sum(batch.num_rows for batch in self._early)
        for batch in stream:
            self._early.append(batch)
            if seen > _SHOWN:
                return
            seen += batch.num_rows
        self._table = pa.Table.from_batches(self._early, self.schema)
        self._stream, self._early = None, []


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _line(cells: tuple[str, ...] | list[str], widths: list[int], right: list[bool]) -> str:
    padded = (
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    )
    return "  ".join(padded).rstrip()
