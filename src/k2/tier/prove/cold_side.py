"""Cold's side of an audit: the data files of one snapshot."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import BinaryIO

import pyarrow as pa
from pyiceberg.io import FileIO

from k2.tier.prove.contents import Content, Unreadable, batches
from k2.tier.prove.digests import Block, Digester, Form, Groups, as_groups, piped
from k2.tier.prove.rowwise import Place, into_sides, into_whole
from k2.tier.prove.shapes import structure
from k2.tier.prove.sides import PIECE_ROWS, Count, in_turn, together
from k2.tier.schema import arrow_schema

PACKED = "lz4"


class ColdSide:
    """Data files of one snapshot. `faults` fills with what is wrong with a file: path to reason."""

    name = "cold"
    repeats = 0  # cold must not have any

    def __init__(self, digester: Digester, io: FileIO, form: Form, files: Iterable[Content], ids: bool = True) -> None:
        self._digester = digester
        self._io = io
        self._form = form
        self._ids = ids
        self.files = sorted(files, key=lambda file: file.path)
        self.faults: dict[str, str] = {}
        arrow = [_integers(field) for field in arrow_schema(form.schema)]
        self._arrow = pa.schema([*arrow, pa.field("row_source", pa.int32())])
        # The engine seeks in an Arrow stream to pass over padding, which a pipe cannot; in a packed one it reads on.
        stream = piped("ArrowStream", f"{structure(form.schema)}, row_source Int32", packed=PACKED)
        self._source = f"SELECT *, toInt64(0) AS row_position FROM {stream}"

    @property
    def rows(self) -> int:
        """How many rows the manifests promise."""
        return sum(file.rows for file in self.files)

    def groups(self, on_rows: Count) -> Groups:
        return together(self._task(part, on_rows) for part in self._parts(range(len(self.files))))

    def _task(self, part: Sequence[int], on_rows: Count) -> Callable[[], Groups]:
        sql = self._form.groups(self._form.own, self._source, ids=self._ids)
        return lambda: as_groups(self._digester.fed(sql, lambda pipe: self._write(pipe, part, on_rows)))

    def look_into(self, side: str, blocks: AbstractSet[Block], groups: Groups) -> None:
        numbers = {number for key, group in groups.items() if key.of in blocks for number in group.sources}
        self._read(into_sides(side, self._form.rows(self._form.own, self._source)), numbers)

    def show(self, side: str, places: Sequence[Place]) -> None:
        self._read(into_whole(side, self._form.rows(self._form.own, self._source)), {one.source for one in places})

    def _read(self, sql: str, numbers: Iterable[int]) -> None:
        def reading(part: Sequence[int]) -> Callable[[], object]:
            return lambda: self._digester.fed(sql, lambda pipe: self._write(pipe, part, None))

        for _ in in_turn(reading(part) for part in self._parts(sorted(numbers))):
            pass

    def _parts(self, numbers: Iterable[int]) -> Iterator[list[int]]:
        part: list[int] = []
        rows = 0
        for number in numbers:
            part.append(number)
            rows += self.files[number].rows
            if rows >= PIECE_ROWS:
                yield part
                part, rows = [], 0
        if part:
            yield part

    def _write(self, pipe: BinaryIO, part: Sequence[int], on_rows: Count | None) -> None:
        with pa.CompressedOutputStream(pipe, PACKED) as packed, pa.ipc.new_stream(packed, self._arrow) as out:
            for number in part:
                file = self.files[number]
                rows = 0
                try:
                    for batch in batches(self._io, file.path, self._form.schema.fields):
                        columns = [
                            column if column.type == field.type else column.cast(field.type)
                            for column, field in zip(batch.columns, self._arrow, strict=False)
                        ]
                        columns.append(pa.repeat(pa.scalar(number, pa.int32()), batch.num_rows))
                        out.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._arrow))
                        rows += batch.num_rows
                        if on_rows:
                            on_rows(batch.num_rows)
                except Unreadable as error:
                    self.faults[file.path] = f"cannot be read: {error.reason}"
                else:
                    if rows != file.rows:
                        self.faults[file.path] = f"holds {rows} rows, its manifest says {file.rows}"


def _integers(field: pa.Field) -> pa.Field:
    if pa.types.is_timestamp(field.type):
        return field.with_type(pa.int64())
    return field.with_type(pa.int32()) if pa.types.is_date32(field.type) else field
