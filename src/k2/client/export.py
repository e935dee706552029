"""What to write into which file: answers in parts, one for each exchange, symbol and UTC day."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from k2.ask import AskError, Query
from k2.ask.question import Where
from k2.ask.times import parse_time
from k2.ask.trades import moment
from k2.client import files
from k2.client.direct import Direct
from k2.client.errors import InvalidQuestion
from k2.client.result import Batches

_TIMES = {"trades": "exchange_ts", "candles": "window_start", "gaps": "detected_ts", "frames": "recv_ts"}
_DAY = 86_400_000_000_000
_EPOCH = date(1970, 1, 1)
_SORTED = 1_000_000  # rows that the store is asked to sort at once
# Frames that have left the hot store are in the cold tier; of each exchange, those before the first hot one.
_FRAMES = (
    "SELECT exchange, position, recv_ts, kind, connection, request, payload FROM ("
    "SELECT toString(exchange) AS exchange, toInt64(position) AS position, recv_ts, toString(kind) AS kind,"
    " toString(connection) AS connection, request, payload FROM k2.bronze_frames"
    " UNION ALL SELECT c.exchange, c.log_offset, toDateTime64('1970-01-01 00:00:00', 9, 'UTC')"
    " + toIntervalNanosecond(c.recv_ts_ns), c.kind, c.connection, c.request, c.payload FROM cold.frames AS c"
    " LEFT JOIN (SELECT toString(exchange) AS exchange, toInt64(min(position)) AS first FROM k2.bronze_frames"
    " GROUP BY exchange) AS h ON c.exchange = h.exchange WHERE h.exchange = '' OR c.log_offset < h.first)"
)


class Filters(NamedTuple):
    """As the API's parameters; a time is text, as a person writes it."""

    exchanges: Sequence[str] = ()
    symbols: Sequence[str] = ()
    start: str | None = None
    end: str | None = None
    first_id: int | None = None
    last_id: int | None = None
    as_of: str | None = None
    interval: str = "1m"


class Part(NamedTuple):
    """Rows of an exchange, a symbol ("" for frames) and a UTC day."""

    exchange: str
    symbol: str
    day: date
    rows: int

    @property
    def folders(self) -> Path:
        names = [f"exchange={self.exchange}", *([f"symbol={self.symbol}"] if self.symbol else []), f"date={self.day}"]
        return Path(*names)


class Export:
    """One table, filtered. Every method raises K2Error."""

    def __init__(self, source: Direct, what: str, filters: Filters, form: str) -> None:
        self._source = source
        self._what = what
        self._form = form
        self._path = f"/v1/candles/{filters.interval}" if what == "candles" else f"/v1/{what}"
        _refuse_foreign(what, filters)
        now = time.time_ns()  # what is relative means the same for all parts
        self._from, self._to = _time("from", filters.start, now), _time("to", filters.end, now)
        self._who = {"exchange": list(filters.exchanges), "symbol": list(filters.symbols)}
        as_of = source.moment(filters.as_of, now) * 1_000_000 if filters.as_of else None
        self._more = {"first_id": filters.first_id, "last_id": filters.last_id, "as_of": as_of}

    def parts(self) -> list[Part]:
        """What there is, in the order in which it is written."""
        query = self._question(self._who, self._from, self._to)
        symbol = "''" if self._what == "frames" else "symbol"
        found = self._source.grouped(query, f"exchange, {symbol} AS symbol, toDate({_TIMES[self._what]}) AS day")
        return [Part(*row) for row in found]

    def files(self, parts: Sequence[Part], target: Path, one: bool) -> dict[Path, list[Part]]:
        """Which parts stand in which file."""
        if one and parts:
            return {target: list(parts)}
        return {target / part.folders / f"{self._what}.{self._form}": [part] for part in parts}

    def write(self, path: Path, parts: Sequence[Part], wrote: Callable[[int], None]) -> int:
        """One file; the number of its rows. `wrote` is told of rows as they come. Raises OSError, too."""
        answers = (answer for part in parts for answer in self._answers(part))
        first = next(answers)

        def batches() -> Iterator[pa.RecordBatch]:
            for answer in chain([first], answers):
                for batch in answer:
                    yield _typed(batch, first.schema)
                    wrote(batch.num_rows)

        return files.write(path, self._form, _typed_schema(first.schema), batches())

    def _answers(self, part: Part) -> Iterator[Batches]:
        """The rows of a part in order, some hours at a time if there are many: the store sorts each in memory."""
        start = (part.day - _EPOCH).days * _DAY
        first, end = max(start, self._from or 0), min(start + _DAY, self._to or start + _DAY)
        slices = -(-part.rows // _SORTED)
        who = {"exchange": [part.exchange], "symbol": [part.symbol] if part.symbol else []}
        edges = [first + (end - first) * number // slices for number in range(slices + 1)]
        for low, high in pairwise(edges):
            yield self._source.answer(self._question(who, low, high))

    def _question(self, who: Mapping[str, list[str]], first: int | None, end: int | None) -> Query:
        if self._what == "frames":
            return _frames(who["exchange"], first, end)
        given = {**who, "from": first, "to": end, **self._more, "limit": 0}
        return self._source.query(self._path, {name: value for name, value in given.items() if value is not None})


def _frames(exchanges: Sequence[str], first: int | None, end: int | None) -> Query:
    where = Where()
    where.instruments(exchanges, ())
    for sign, name, value in ((">=", "low", first), ("<", "high", end)):
        if value is not None:
            where.add(f"recv_ts {sign} {moment(name)}", **{name: value})
    sql = f"{_FRAMES} WHERE {where} ORDER BY exchange, position"
    settings = {"output_format_arrow_string_as_string": "0"}  # a payload is bytes
    return Query(sql, where.params, (), (), lambda _: "", 0, settings)


def _typed_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema(
        [
            (field.name, pa.string() if pa.types.is_binary(field.type) and field.name != "payload" else field.type)
            for field in schema
        ]
    )


def _typed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Text as text, where the answer came as bytes."""
    target = _typed_schema(schema)
    return batch if target == batch.schema else batch.cast(target)


def _time(parameter: str, text: str | None, now_ns: int) -> int | None:
    try:
        return parse_time(text, now_ns, parameter) if text else None
    except AskError as error:
        raise InvalidQuestion("Invalid time", f"--{parameter} {text}: {error.problem}", error.remedy) from None


def _refuse_foreign(what: str, filters: Filters) -> None:
    ids = filters.first_id is not None or filters.last_id is not None
    for option, given, good in (
        ("--first-id and --last-id", ids, ("trades", "gaps")),
        ("--as-of", bool(filters.as_of), ("trades", "candles")),
        ("--symbol", bool(filters.symbols), ("trades", "candles", "gaps")),
    ):
        if given and what not in good:
            raise InvalidQuestion("Not a filter of this table", f"{option} does not filter {what}", "leave it out")
