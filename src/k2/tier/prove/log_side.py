"""The log's side of an audit: stretches of its streams."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import BinaryIO, NamedTuple

from k2.log import Log
from k2.store.embedded import quoted
from k2.tier import TierError
from k2.tier.prove.digests import Block, Digester, Form, Groups, as_groups, gathered, piped
from k2.tier.prove.repeats import Piece, Seen
from k2.tier.prove.rowwise import Place, into_sides, into_whole
from k2.tier.prove.shapes import Source
from k2.tier.prove.sides import PIECE_ROWS, Count, in_turn, together

READ_BYTES = 1 << 20


class Stretch(NamedTuple):
    """Records of a stream from `start` to `end` (exclusive). `exchange` is "" where a stream holds several."""

    stream: str
    exchange: str
    start: int
    end: int


class LogSide:
    """Stretches of the log. Raises LogError as well.

    A log may have a record twice, for it is delivered at least once; cold has the first. So later ones of an identity
    do not count in the digests, and `repeats` says how many there were.
    """

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
        self.repeats = 0

    def groups(self, on_rows: Count) -> Groups:
        pieces = [
            (number, one._replace(start=at, end=min(at + PIECE_ROWS, one.end)))
            for number, one in enumerate(self.stretches)
            for at in range(one.start, one.end, PIECE_ROWS)
        ]
        if self._form.identity.is_place:
            return together(self._digested(number, piece, on_rows) for number, piece in pieces)
        found: Groups = {}
        seen = Seen()
        for piece in in_turn(self._gathered(number, piece, on_rows) for number, piece in pieces):
            groups = piece.first_ones(seen)
            gathered(found, groups if self._ids else {key: one._replace(ids=()) for key, one in groups.items()})
        self.repeats = seen.repeats
        return found

    def _digested(self, number: int, piece: Stretch, on_rows: Count) -> Callable[[], Groups]:
        def digest() -> Groups:
            found: Groups = {}
            for run in self._runs(piece, on_rows):
                sql = self._form.groups(*self._reading(number, run.base), ids=self._ids)
                gathered(found, as_groups(run.fed(self._digester, sql)))
            return found

        return digest

    def _gathered(self, number: int, piece: Stretch, on_rows: Count) -> Callable[[], Piece]:
        def gather() -> Piece:
            found = Piece(self._digester, f"piece_{number}_{piece.start}")
            for run in self._runs(piece, on_rows):
                run.fed(self._digester, found.into(self._form.rows(*self._reading(number, run.base))))
            return found.digested()

        return gather

    def look_into(self, side: str, blocks: AbstractSet[Block], groups: Groups) -> None:
        there = [group for key, group in groups.items() if key.of in blocks]
        pieces = []
        for number, one in enumerate(self.stretches):
            spans = [(group.first, group.last + 1) for group in there if number in group.sources]
            for first, end in _merged(spans):
                stop = min(end, one.end)
                for at in range(max(first, one.start), stop, PIECE_ROWS):
                    pieces.append((number, one._replace(start=at, end=min(at + PIECE_ROWS, stop))))
        self._put(side, pieces)

    def put(self, side: str) -> None:
        """The same from all that there is to read, without a pass before."""
        self._put(side, list(enumerate(self.stretches)))

    def _put(self, side: str, pieces: Sequence[tuple[int, Stretch]]) -> None:
        def putting(number: int, piece: Stretch) -> Callable[[], None]:
            def put() -> None:
                for run in self._runs(piece, None):
                    rows = self._form.rows(*self._reading(number, run.base))
                    run.fed(self._digester, into_sides(side, rows))

            return put

        for _ in in_turn(putting(number, piece) for number, piece in pieces):
            pass

    def show(self, side: str, places: Sequence[Place]) -> None:
        for number, one in enumerate(self.stretches):
            wanted = sorted({place.position for place in places if place.source == number})
            records = [record for at in wanted for record in self._record(one.stream, at)]
            if records:
                lines = self._separator.join([value for _, value in records]) + self._separator
                columns, rows = self._reading(number, 0, [at for at, _ in records])
                sql = into_whole(side, self._form.rows(columns, rows))
                self._digester.fed(sql, lambda pipe, lines=lines: pipe.write(lines))  # type: ignore[misc]

    def _record(self, stream: str, offset: int) -> list[tuple[int, bytes]]:
        """The record there; none if retention has dropped it since."""
        start, end = self._log.bounds(stream)
        batches = self._log.read(stream, offset, 1) if start <= offset < end else []
        return [(offset, batches[0].values[0])] if batches and batches[0].offset == offset else []

    def _reading(self, number: int, base: int, offsets: Sequence[int] = ()) -> tuple[dict[str, str], str]:
        """Columns and a SELECT of the records that come; they are numbered from `base`, or have these offsets."""
        exchange = quoted(self.stretches[number].exchange)
        columns = {name: sql.replace("{exchange}", exchange) for name, sql in self._source.columns.items()}
        at = f"arrayElement({list(offsets)}, rowNumberInAllBlocks() + 1)" if offsets else "rowNumberInAllBlocks()"
        numbered = f"toInt64({at}) + {base} AS row_position, toInt32({number}) AS row_source"
        return columns, f"SELECT *, {numbered} FROM {piped(self._source.format, self._source.structure)}"

    @property
    def _separator(self) -> bytes:
        return b"" if self._source.format == "RowBinary" else b"\n"

    def _runs(self, piece: Stretch, on_rows: Count | None) -> Iterator["_Run"]:
        while piece.start < piece.end:
            run = _Run(self._log, piece, self._separator, on_rows)
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
