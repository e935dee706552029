"""The log's side of an audit: stretches of its streams."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

from k2.log import Log
from k2.store.embedded import quoted
from k2.tier import TierError
from k2.tier.prove.digests import Block, Digester, Form, Groups, as_groups, gathered, into_sides, piped
from k2.tier.prove.shapes import Source
from k2.tier.prove.sides import PIECE_ROWS, Count, together

READ_BYTES = 1 << 20


class Stretch(NamedTuple):
    """Records of a stream from `start` to `end` (exclusive). `exchange` is "" where a stream holds several."""

    stream: str
    exchange: str
    start: int
    end: int


class LogSide:
    """Stretches of the log. Raises LogError as well."""

    name = "the log"

    def __init__(
        self,
        digester: Digester,
        log: Log,
        form: Form,
        source: Source,
        stretches: Iterable[Stretch],
        ids: bool = False,
    ) -> None:
        self._digester = digester
        self._log = log
        self._form = form
        self._source = source
        self._ids = ids
        self.stretches = list(stretches)

    @property
    def rows(self) -> int:
        """How many records there are to read, at most."""
        return sum(one.end - one.start for one in self.stretches)

    def groups(self, on_rows: Count) -> Groups:
        return together(
            self._task(number, one._replace(start=at, end=min(at + PIECE_ROWS, one.end)), on_rows)
            for number, one in enumerate(self.stretches)
            for at in range(one.start, one.end, PIECE_ROWS)
        )

    def _task(self, number: int, piece: Stretch, on_rows: Count) -> Callable[[], Groups]:
        def digest() -> Groups:
            found: Groups = {}
            for run in self._runs(piece, on_rows):
                sql = self._form.groups(*self._reading(number, run.base), ids=self._ids)
                gathered(found, as_groups(run.fed(self._digester, sql)))
            return found

        return digest

    def look_into(self, side: str, blocks: Sequence[Block], groups: Groups) -> None:
        wanted = set(blocks)
        there = [group for key, group in groups.items() if key.of in wanted]
        for number, one in enumerate(self.stretches):
            spans = [(group.first, group.last + 1) for group in there if number in group.sources]
            for first, end in _merged(spans):
                self._put(side, blocks, number, one._replace(start=max(first, one.start), end=min(end, one.end)))

    def put(self, side: str, blocks: Sequence[Block]) -> None:
        """The same from all that there is to read, without a pass before."""
        for number, one in enumerate(self.stretches):
            self._put(side, blocks, number, one)

    def _put(self, side: str, blocks: Sequence[Block], number: int, piece: Stretch) -> None:
        for run in self._runs(piece, None):
            run.fed(self._digester, into_sides(side, self._form.rows(*self._reading(number, run.base)), blocks))

    def _reading(self, number: int, base: int) -> tuple[dict[str, str], str]:
        exchange = quoted(self.stretches[number].exchange)
        columns = {name: sql.replace("{exchange}", exchange) for name, sql in self._source.columns.items()}
        numbered = f"toInt64(rowNumberInAllBlocks()) + {base} AS row_position, toInt32({number}) AS row_source"
        return columns, f"SELECT *, {numbered} FROM {piped(self._source.format, self._source.structure)}"

    def _runs(self, piece: Stretch, on_rows: Count | None) -> Iterator["_Run"]:
        separator = b"" if self._source.format == "RowBinary" else b"\n"
        while piece.start < piece.end:
            run = _Run(self._log, piece, separator, on_rows)
            if not run.first:
                return
            yield run
            piece = piece._replace(start=run.at)


class _Run:
    """Consecutive records: a repair may have cut some out, and rows are numbered from the first one of a statement."""

    def __init__(self, log: Log, piece: Stretch, separator: bytes, on_rows: Count | None) -> None:
        self._log = log
        self._piece = piece
        self._separator = separator
        self._on_rows = on_rows
        self.first = [batch for batch in log.read(piece.stream, piece.start, READ_BYTES) if batch.offset < piece.end]
        self.base = self.at = self.first[0].offset if self.first else piece.end

    def fed(self, digester: Digester, sql: str) -> list[tuple[object, ...]]:
        """Run the statement over these records; `at` is then where they ended."""
        self.at = self.base
        try:
            return digester.fed(sql, self._write)
        except TierError as error:
            raise TierError(
                f"records from offset {self._piece.start} of {self._piece.stream} cannot be compared: {error};"
                " look at them with `k2 log`"
            ) from error

    def _write(self, pipe: BinaryIO) -> None:
        read = self.first
        while read:
            for batch in read:
                if batch.offset != self.at or batch.offset >= self._piece.end:
                    return
                values = batch.values[: self._piece.end - batch.offset]
                pipe.write(self._separator.join(values) + self._separator)
                self.at = batch.offset + len(values)
                if self._on_rows:
                    self._on_rows(len(values))
            if self.at >= self._piece.end:
                return
            read = self._log.read(self._piece.stream, self.at, READ_BYTES)


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, end in sorted(spans):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((first, end))
    return merged
