"""`/v1/sql`: statements that people wrote, run as the store's read-only user within limits of time and memory.

The store judges them (`k2.store.server.readers`); nothing is judged here.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from k2.config import WebConfig
from k2.store.server.statement import MAX_STATEMENT, StatementError, parse
from k2.web.answer import Table
from k2.web.problems import Problem
from k2.web.route import Call, Nothing, Route

_Text = Annotated[
    str,
    Meta(
        description="One ClickHouse statement that reads, without a FORMAT clause.",
        examples=["SELECT symbol, count() AS trades FROM trades GROUP BY symbol ORDER BY symbol"],
        min_length=1,
        max_length=MAX_STATEMENT,
    ),
]
_Name = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}\Z")]
_Format = Annotated[
    Literal["json", "ndjson", "csv", "parquet", "arrow"], Meta(description="As the parameter `format`.")
]


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """A statement in the URL."""

    query: _Text


class Statement(msgspec.Struct, forbid_unknown_fields=True):
    """A statement and the values that it names."""

    query: _Text
    params: Annotated[
        dict[_Name, str | int | float | bool | list[str | int] | None],
        Meta(description="Values of `{name:Type}` in the statement.", max_length=256),
    ] = {}
    format: _Format | None = None


async def _get(call: Call[Asked]) -> Table:
    return _table(call.params.query, {}, call.parts.config.web)


async def _post(call: Call[Nothing]) -> Table:
    asked: Statement = call.body
    return _table(asked.query, asked.params, call.parts.config.web)._replace(format=asked.format or "")


def _table(text: str, params: dict[str, Any], limits: WebConfig) -> Table:
    try:
        encoded = text.encode()
        statement = parse(encoded)
    except (StatementError, UnicodeEncodeError) as error:
        raise Problem(400, "Statement failed", str(error), "write one statement", "statement-failed", code=62) from None
    if len(encoded) > MAX_STATEMENT:
        detail = f"a statement may have {MAX_STATEMENT} bytes"
        raise Problem(422, "Too much work", detail, "write a shorter one", "too-much-work", code=229)
    if statement.format or statement.tail:
        detail = f"the statement ends in FORMAT {statement.format}"
        remedy = "leave the clause out, and name the format in `format` or in the Accept header"
        raise Problem(400, "Statement failed", detail, remedy, "statement-failed", code=62)
    settings = {"max_execution_time": f"{limits.sql_s:g}", "max_memory_usage": str(limits.sql_memory_mb << 20)}
    return Table(statement.head.decode(), params, (), settings=settings, reader=True)


_DESCRIPTION = (
    "Run as the store's read-only user: it can read K2's own tables (docs/SCHEMA.md) and nothing else, within"
    " `web.sql_s` seconds and `web.sql_memory_mb` MB. The engine's errors are problem documents with its `code`."
)
_ROW = dict[str, Any]

ROUTES = (
    Route("GET", "/v1/sql", _get, Asked, None, "Ask in SQL", _DESCRIPTION, rows=_ROW),
    Route("POST", "/v1/sql", _post, Nothing, None, "Ask in SQL", _DESCRIPTION, rows=_ROW, body=Statement),
)
