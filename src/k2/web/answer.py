"""What handlers return; the frame turns it into bytes."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from aiohttp import web


class Plain(NamedTuple):
    """Anything that msgspec encodes, as JSON."""

    value: Any
    headers: Mapping[str, str] = {}
    status: int = 200


class NextCursor(NamedTuple):
    """How the page after this one is found.

    `limit` is the number of rows of a full page: with fewer there is no next one. `columns` are those columns of the
    Table that identify a row; `cursor` makes the opaque cursor of the last row's values of them, as a JSON answer
    shows them (integers as int, Decimals as str, DateTime64 as RFC 3339). JSON answers take the values from the rows
    themselves; the other formats name the cursor in a `Link` header, for which `probe` is asked first: SQL (with the
    Table's params) of those columns of the page's last row, one row if the page is full, else none. "": the frame asks
    `SELECT columns FROM (sql) LIMIT 1 OFFSET limit - 1`.
    """

    limit: int
    columns: tuple[str, ...]
    cursor: Callable[[tuple[Any, ...]], str]
    probe: str = ""


class Table(NamedTuple):
    """The answer of a SELECT, streamed from the store in the format that was asked for: JSON (`{"data": [...],
    "next": cursor or null}`), NDJSON, CSV, Parquet or an Arrow IPC stream.

    `sql` has no FORMAT and no SETTINGS clause (`settings` are the engine's, for this statement); `params` fill
    `{name:Type}`. Decimals become strings in JSON, DateTime64 become RFC 3339 with as many decimals as the type has.
    Columns of type DateTime or Enum must be cast in `sql`, to DateTime64(0, 'UTC') and String: Arrow has numbers for
    them otherwise.
    `etag` is for answers that will not change: a text that names question and state (without quotes).
    `headers` are added to the answer. `reader`: ask as the store's read-only user (statements that people wrote).
    `format`: of this name, whatever was negotiated.
    """

    sql: str
    params: Mapping[str, Any]
    columns: tuple[str, ...]
    etag: str = ""
    next: NextCursor | None = None
    settings: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    reader: bool = False
    format: str = ""


class Stream(NamedTuple):
    """Chunks as they come, unpacked. A Problem raised in mid-stream breaks the connection off."""

    content_type: str
    chunks: AsyncIterator[bytes]
    headers: Mapping[str, str] = {}


class Raw(NamedTuple):
    """The handler has answered by itself (WebSocket)."""

    response: web.StreamResponse


Answer: TypeAlias = Plain | Table | Stream | Raw
