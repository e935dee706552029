"""A store as a source, without the HTTP API between: the same questions, put in SQL."""

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, Protocol

import msgspec

from k2.ask import AskError, Query
from k2.ask.candles import Candles
from k2.ask.completeness import Completeness
from k2.ask.ledger import Gaps
from k2.ask.question import Question
from k2.ask.symbols import Symbols
from k2.ask.trades import Trades
from k2.client.arrow import ArrowBatches
from k2.client.errors import AccessDenied, InvalidQuestion, K2Error, TooManyRequests, Unavailable
from k2.client.result import Batches
from k2.client.source import Params
from k2.config import EXCHANGES
from k2.store import StoreError, StoreUnavailable, as_of

_KINDS: dict[int, tuple[type[K2Error], str, str]] = {
    159: (InvalidQuestion, "The question takes too long", "ask for less at once"),
    164: (AccessDenied, "Only reading is allowed", "write a SELECT"),
    202: (TooManyRequests, "Too many questions at once", "ask again when the others are answered"),
    241: (InvalidQuestion, "The question takes too much memory", "ask for less at once"),
    497: (AccessDenied, "Not allowed", "ask K2's own tables and views"),
    516: (AccessDenied, "The store refuses the account", "check store.readonly_user and store.readonly_password"),
}


_QUESTIONS: Mapping[str, type[Question]] = {
    "/v1/trades": Trades,
    "/v1/candles": Candles,
    "/v1/gaps": Gaps,
    "/v1/completeness": Completeness,
    "/v1/symbols": Symbols,
}


class Reading(Protocol):
    """A connection to a store, for one answer."""

    def rows(self, sql: str, params: Params | None = None) -> list[tuple[Any, ...]]: ...
    def stream(self, sql: str, fmt: str, params: Params | None = None) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class Direct:
    """`open_reading` connects; with True it looks anew for who answers, since the one before has gone."""

    def __init__(self, name: str, open_reading: Callable[[bool], Reading], close: Callable[[], None]) -> None:
        self.name = name
        self._open = open_reading
        self._close = close

    def __repr__(self) -> str:
        return f"Direct({self.name})"

    def table(self, path: str, params: Params) -> Batches:
        return self.answer(self.query(path, params))

    def answer(self, query: Query) -> Batches:
        """The rows of a question's SELECT."""
        return self._batches(_with_settings(query), query.params, named=True)

    def grouped(self, query: Query, by: str) -> list[tuple[Any, ...]]:
        """The values of `by`, and how many of the query's rows have them, in their order."""
        sql = f"SELECT {by}, count() AS rows FROM ({query.sql}) GROUP BY ALL ORDER BY ALL"
        settings = {name: value for name, value in query.settings.items() if not name.startswith("output_format_")}
        counted = _with_settings(query._replace(sql=sql, settings=settings))
        answer = self._batches(counted, query.params, named=False)
        return [tuple(row.values()) for batch in answer for row in batch.to_pylist()]

    def query(self, path: str, params: Params) -> Query:
        """The SELECT that answers `GET path`, as the API would make it. Raises K2Error."""
        head, _, interval = path.partition("/candles/")
        kind = _QUESTIONS[f"{head}/candles" if interval else path]
        given = {name: tuple(value) if isinstance(value, list) else str(value) for name, value in params.items()}
        now = time.time_ns()
        try:
            question = msgspec.convert({**given, **({"interval": interval} if interval else {})}, kind, strict=False)
            if unknown := sorted(set(question.exchange) - set(EXCHANGES)):
                known = f"write one of {', '.join(EXCHANGES)}"
                raise AskError("exchange", unknown[0], "K2 knows no such exchange", known)
            moment = str(given.get("as_of", ""))
            return question.query(now, self.moment(moment, now) if moment else None)
        except AskError as error:
            detail = f"{error.parameter}={error.value}: {error.problem}"
            raise InvalidQuestion("Invalid parameter", detail, error.remedy, 400) from None
        except msgspec.ValidationError as error:
            raise InvalidQuestion("Invalid parameter", str(error), "see the method's description", 400) from None

    def sql(self, text: str, params: Params) -> Batches:
        return self._batches(text, params, named=False)

    def live(self) -> Any:
        raise K2Error(
            "No live stream here", f"{self.name} is read without `k2 web`", "start `k2 web`, and connect to its address"
        )

    def close(self) -> None:
        self._close()

    def rows(self, sql: str, params: Params | None = None) -> list[tuple[Any, ...]]:
        """A small answer, whole. Raises K2Error."""
        reading = self._open(False)
        try:
            return reading.rows(sql, params)
        except StoreError as error:
            raise told(error) from None
        finally:
            reading.close()

    def moment(self, text: str, now_ns: int) -> int:
        """The moment (ms since 1970) that `as_of` means. Raises K2Error."""
        try:
            return as_of.pick(self.rows(as_of.SHOWN), text, now_ns)
        except StoreError as error:
            raise InvalidQuestion("Invalid parameter", f"as_of={text}: {error}", "", 400) from None

    def _batches(self, sql: str, params: Params, named: bool) -> Batches:
        reading, chunks = self._begun(sql, params)
        return ArrowBatches(_told(chunks), named, done=reading.close)

    def _begun(self, sql: str, params: Params) -> tuple[Reading, Iterator[bytes]]:
        """The answer with its first bytes here. Asked once more where the store had gone before it answered."""
        for again in (False, True):
            reading = self._open(again)
            chunks = reading.stream(sql, "ArrowStream", params)
            try:
                return reading, chain([next(chunks)], chunks)
            except StoreUnavailable as error:
                reading.close()
                if again:
                    raise told(error) from None
            except StoreError as error:
                reading.close()
                raise told(error) from None
            except StopIteration:
                reading.close()
                raise InvalidQuestion("No rows to give", "the statement has no answer", "write a SELECT") from None
        raise AssertionError("unreachable")


def _with_settings(query: Query) -> str:
    """What a reader may set stands behind the FORMAT clause."""
    given = ", ".join(f"{name} = {value}" for name, value in query.settings.items() if name != "max_threads")
    return f"{query.sql}\nFORMAT ArrowStream SETTINGS {given}" if given else query.sql


def _told(chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from chunks
    except StoreError as error:
        raise told(error) from None


def told(error: StoreError) -> K2Error:
    """The store's error for the person."""
    text = str(error).partition(" (version ")[0]
    if isinstance(error, StoreUnavailable):
        return Unavailable("The store does not answer", text, "start it with `k2 up`, or ask again")
    kind, title, remedy = _KINDS.get(error.code, (InvalidQuestion, "The store refused the question", ""))
    return kind(title, text, remedy)
