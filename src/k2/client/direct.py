"""A store as a source, without the HTTP API between: the same questions, put in SQL."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Protocol

from k2.client.arrow import ArrowBatches
from k2.client.errors import AccessDenied, InvalidQuestion, K2Error, TooManyRequests, Unavailable
from k2.client.result import Batches
from k2.client.source import Params
from k2.store import StoreError, StoreUnavailable

_KINDS: dict[int, tuple[type[K2Error], str, str]] = {
    159: (InvalidQuestion, "The question takes too long", "ask for less at once"),
    164: (AccessDenied, "Only reading is allowed", "write a SELECT"),
    202: (TooManyRequests, "Too many questions at once", "ask again when the others are answered"),
    241: (InvalidQuestion, "The question takes too much memory", "ask for less at once"),
    497: (AccessDenied, "Not allowed", "ask K2's own tables and views"),
    516: (AccessDenied, "The store refuses the account", "check store.readonly_user and store.readonly_password"),
}


class Reading(Protocol):
    """A connection to a store, for one answer."""

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
        raise NotImplementedError

    def sql(self, text: str, params: Params) -> Batches:
        return self._batches(text, params, named=False)

    def live(self) -> Any:
        raise K2Error(
            "No live stream here", f"{self.name} is read without `k2 web`", "start `k2 web`, and connect to its address"
        )

    def close(self) -> None:
        self._close()

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
