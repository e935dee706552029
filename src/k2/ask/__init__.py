"""Questions: what people may ask of trades, candles and gaps, and the SQL that answers them. Pure: text in, text out.

The HTTP API and the Python client put the same questions, so both give the same answers. A question is a struct whose
fields are the parameters as a person writes them; `query(now_ns)` gives the SELECT for a hot store (database `k2`).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class AskError(ValueError):
    """A question that cannot be asked: `parameter` and the `value` it had, and what to write instead."""

    def __init__(self, parameter: str, value: object, problem: str, remedy: str) -> None:
        super().__init__(f"{parameter}={value}: {problem}; {remedy}")
        self.parameter = parameter
        self.value = value
        self.problem = problem
        self.remedy = remedy


class Query(NamedTuple):
    """A SELECT. `params` fill `{name:Type}`; `settings` are the engine's, for this statement.

    `key` are the columns that identify a row, in the order that the rows come in; `cursor` makes of the values that the
    page's last row has there (integers as int, times as RFC 3339 text) what asks for the page after it. `limit` is the
    number of rows of a full page; 0: all rows. `ends` is the time (ns) before which all that was asked for lies; None:
    it may go on for ever. `state` is SQL with the same parameters: while its answer stays the same, so does this one's.
    """

    sql: str
    params: Mapping[str, Any]
    columns: tuple[str, ...]
    key: tuple[str, ...]
    cursor: Callable[[tuple[Any, ...]], str]
    limit: int
    settings: Mapping[str, str] = {}
    ends: int | None = None
    state: str = ""
