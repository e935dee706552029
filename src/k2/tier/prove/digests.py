"""Order-free checksums of rows, by groups of identities: what tells two sides apart without comparing their rows.

A group is a block of ids of one counter on one UTC day. Its digest (count, a sum and an exclusive-or of two 64-bit
hashes over all columns) tells whether two sides hold the same rows, however they are split into files or records; only
groups that differ are looked into row by row. The engine is ClickHouse in this process, with a throw-away folder.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

import msgspec
from pyiceberg.schema import Schema

from k2.store import StoreError
from k2.store.embedded import Connection, Engine, quoted
from k2.store.rows import asking, decoded
from k2.tier import TierError
from k2.tier.prove.shapes import Identity, hashed, told

BLOCK_BITS = 14  # 16,384 ids: small enough to look into, large enough that there are few
MEMORY_MB = 448
_SETTINGS = {
    "max_threads": "1",  # so that rows are numbered in the order in which they come
    "prefer_column_name_to_alias": "1",
    "input_format_null_as_default": "0",
    "max_block_size": "16384",
    "input_format_skip_unknown_fields": "1",
    "min_insert_block_size_rows": "500000",
    "min_insert_block_size_bytes": "0",
}

_PIPE = "file('{data}'"  # quotes of a literal are escaped, so no value in a statement looks like this
_LINE, _LINES = msgspec.json.Encoder(), "JSONCompactEachRow"
Write = Callable[[BinaryIO], object]


class Key(NamedTuple):
    """A group. `must`: the other side must have its rows; of the others it may have dropped some."""

    exchange: str
    symbol: str
    epoch: int
    block: int
    day: int
    must: bool

    @property
    def of(self) -> "Block":
        return (self.exchange, self.symbol, self.epoch, self.block)


Block = tuple[str, str, int, int]  # exchange, symbol, epoch, id >> BLOCK_BITS
Named = tuple[str, str, int, int]  # exchange, symbol, epoch, id


class Group(NamedTuple):
    """A digest. `first` to `last` are positions (offsets in the log), `sources` numbers of files, `ids` the ranges."""

    rows: int
    total: int
    mixed: int
    first: int
    last: int
    sources: frozenset[int]
    ids: tuple[tuple[int, int], ...]

    def plus(self, other: "Group") -> "Group":
        """The digest of the rows of both. The ids stay lists: a range that stands twice was there twice."""
        return Group(
            self.rows + other.rows,
            (self.total + other.total) & (1 << 64) - 1,
            self.mixed ^ other.mixed,
            min(self.first, other.first),
            max(self.last, other.last),
            self.sources | other.sources,
            self.ids + other.ids,
        )

    def minus(self, other: "Group") -> "Group":
        """The digest of the rows that are not among the other's, all of which are here."""
        return self._replace(
            rows=self.rows - other.rows,
            total=(self.total - other.total) & (1 << 64) - 1,
            mixed=self.mixed ^ other.mixed,
        )

    def same(self, other: "Group") -> bool:
        return (self.rows, self.total, self.mixed) == (other.rows, other.total, other.mixed)


Groups = dict[Key, Group]


def gathered(into: Groups, groups: Mapping[Key, Group]) -> None:
    """Add digests of more rows to those of others."""
    for key, group in groups.items():
        known = into.get(key)
        into[key] = known.plus(group) if known else group


class Form(NamedTuple):
    """How one audit looks at a table: its columns, what names a row, which rows count, which the other side must have.

    `where` and `must` are ClickHouse conditions over the columns of cold.
    """

    schema: Schema
    identity: Identity
    where: str = "1"
    must: str = "1"

    def rows(self, columns: Mapping[str, str], source: str) -> str:
        """A SELECT of the rows in the one form and, as `row_...`, their identity, hashes and where they stand.

        `source` is a SELECT that gives `row_position` and `row_source` besides what `columns` needs.
        """
        named = ", ".join(f"{columns[one.name]} AS {one.name}" for one in self.schema.fields)
        content = ", ".join(hashed(one) for one in self.schema.fields)
        shown = ", ".join(told(one) for one in self.schema.fields)
        by = self.identity
        return (
            f"SELECT {shown}, row_position, row_source, {by.exchange} AS row_exchange, {by.symbol} AS row_symbol,"
            f" {by.epoch} AS row_epoch, {by.id} AS row_id, {by.day} AS row_day,"
            f" bitShiftRight({by.id}, {BLOCK_BITS}) AS row_block, toBool({self.must}) AS row_must,"
            f" cityHash64({content}) AS row_city, xxHash64({content}) AS row_xx"
            f" FROM (SELECT {named}, row_position, row_source FROM ({source})) WHERE {self.where}"
        )

    def groups(self, columns: Mapping[str, str], source: str, ids: bool = False) -> str:
        """A SELECT of the digests of those rows, with the ranges of their ids if asked."""
        return digests(self.rows(columns, source), ids)

    @property
    def own(self) -> dict[str, str]:
        """The columns where they have the form already."""
        return {one.name: one.name for one in self.schema.fields}


def digests(rows: str, ids: bool = False) -> str:
    """A SELECT of the digests of rows, which is a SELECT such as `Form.rows` gives."""
    by = "row_exchange, row_symbol, row_epoch, row_block, row_day, row_must"
    ranges = (
        "if(last_id - first_id + 1 = length(ids), [(first_id, last_id)],"
        " arrayMap(run -> (run[1], run[-1]), arraySplit((one, step) -> step > 1, ids, arrayDifference(ids))))"
    )
    low = f"toUInt32(bitAnd(row_id, {(1 << BLOCK_BITS) - 1}))"
    array = (
        f", arrayMap(one -> toInt64(one) + bitShiftLeft(row_block, {BLOCK_BITS}),"
        f" arraySort(bitmapToArray(groupBitmapState({low})))) AS ids"
    )
    return (
        f"SELECT {by}, rows, toString(total), toString(mixed), first, last, sources, {ranges if ids else '[]'}"
        f" FROM (SELECT {by}, count() AS rows, sum(row_city) AS total, groupBitXor(row_xx) AS mixed,"
        " min(row_position) AS first, max(row_position) AS last, groupUniqArray(row_source) AS sources,"
        f" min(row_id) AS first_id, max(row_id) AS last_id{array if ids else ''}"
        f" FROM ({rows}) GROUP BY {by})"
    )


def as_groups(rows: Iterable[tuple[Any, ...]]) -> Groups:
    """What a query of `Form.groups` answered."""
    return {
        Key(exchange, symbol, int(epoch), int(block), int(day), bool(must)): Group(
            count, int(total), int(mixed), int(first), int(last), frozenset(sources), tuple(map(tuple, ids))
        )
        for exchange, symbol, epoch, block, day, must, count, total, mixed, first, last, sources, ids in rows
    }


class Digester:
    """The engine. Thread-safe: every statement has a connection of its own. Raises TierError."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="k2-audit-")
        try:
            with _said("the audit's engine cannot start"):
                self._engine = Engine(Path(self._folder.name), MEMORY_MB, keep_free_mb=1)
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._engine.close()
        self._folder.cleanup()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self._connection() as connection:
            return decoded(connection.run(asking(sql)).body)

    def execute(self, sql: str) -> None:
        with self._connection() as connection:
            connection.run(sql)

    def listed(self, table: str, columns: str, rows: Iterable[Sequence[object]]) -> None:
        """Make a table in memory of these rows."""
        self.execute(f"CREATE OR REPLACE TABLE {table} ({columns}) ENGINE = Memory")
        lines = b"\n".join(map(_LINE.encode, rows))
        if lines:
            self.fed(f"INSERT INTO {table} SELECT * FROM {piped(_LINES, columns)}", lambda pipe: pipe.write(lines))

    def fed(self, sql: str, write: Write) -> list[tuple[Any, ...]]:
        """Run a statement that reads from `piped(...)`, a pipe that `write` fills; the answer's rows, if any.

        What `write` raises comes out here, after the statement.
        """
        with _piped(write) as path, self._connection() as connection:
            asked = sql.replace(_PIPE, f"file({quoted(path)}")
            return decoded(connection.run(asking(asked) if asked.startswith("SELECT") else asked).body)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with _said("the audit's engine refused"):
            connection = self._engine.connect(_SETTINGS)
            try:
                yield connection
            finally:
                connection.close()


@contextmanager
def _said(what: str) -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise TierError(f"{what}: {error}") from error


@contextmanager
def _piped(write: Write) -> Iterator[str]:
    reader, writer = os.pipe()
    failed: list[BaseException] = []

    def feed() -> None:
        try:
            with open(writer, "wb", buffering=1 << 20) as pipe:
                write(pipe)
        except BrokenPipeError:
            return  # the statement is over: its own error says why
        except BaseException as error:  # noqa: BLE001  raised again in the thread that asked
            failed.append(error)

    feeder = threading.Thread(target=feed, name="audit-feed")
    feeder.start()
    try:
        yield f"/dev/fd/{reader}"
    finally:
        os.close(reader)
        feeder.join()
        if failed:
            raise failed[0]


def piped(form: str, columns: str, packed: str = "none") -> str:
    """The table function that reads the pipe of `Digester.fed`, in a ClickHouse format, `packed` by a method of its."""
    return f"{_PIPE}, {form}, {quoted(columns)}, {quoted(packed)})"
