"""The hot store: ClickHouse SQL over ClickHouse's HTTP protocol, whoever answers it.

The loader writes, `verify` and people read; both speak only this Protocol. Embedded, one process owns chDB and serves
the protocol (`server/`); in a cluster a ClickHouse server does. `clickhouse.py` is the client of either.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol


class StoreError(Exception):
    """The store refused: `code` is ClickHouse's error code, the text its message."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class StoreUnavailable(StoreError):
    """The store cannot be reached, or broke off in mid-answer: whether the statement took effect is not known."""


class Store(Protocol):
    """A connection to the hot store. Not thread-safe: one a thread."""

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        """Run a statement without an answer. `params` fill `{name:Type}`. Raises StoreError, StoreUnavailable."""

    def rows(self, sql: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The answer as tuples: integers as int, Decimals as str, DateTime64 as text in UTC, arrays as lists."""

    def stream(self, sql: str, fmt: str, params: Mapping[str, Any] | None = None) -> Iterator[bytes]:
        """The answer in a ClickHouse format, in chunks, in bounded memory."""

    def insert(self, sql: str, body: bytes, params: Mapping[str, Any] | None = None) -> None:
        """`sql` ends in `FORMAT ...`; `body` is the data. Atomic per block as ClickHouse defines it."""

    def close(self) -> None:
        """Release the connection. Idempotent."""
