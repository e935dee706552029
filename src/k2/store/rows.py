"""How `Store.rows` asks for an answer, and turns it into tuples: the same for every backend."""

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

_FORMAT = "JSONCompactEachRowWithNamesAndTypes"
_SETTINGS = "output_format_json_quote_decimals = 1, output_format_json_quote_64bit_integers = 0"
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})
_WIDE = re.compile(rb"Int(?:128|256)")  # wider than msgspec reads without becoming a float
MOVED_ON = "the live tail has moved on while this question ran"  # of the view `silver_tail`: asking again helps
ASK_AT_MOST = 4  # times in all
_LINES = msgspec.json.Decoder()


def asking(sql: str) -> str:
    """The query with the format that `decoded` reads."""
    return f"{sql.rstrip().rstrip(';')}\nFORMAT {_FORMAT} SETTINGS {_SETTINGS}"


def decoded(body: bytes) -> list[tuple[Any, ...]]:
    """The rows: integers as int, Decimals and dates as text, arrays as lists."""
    names, _, rest = body.partition(b"\n")
    types, _, data = rest.partition(b"\n")
    if not names or not data:
        return []
    if _WIDE.search(types):
        return [tuple(json.loads(line)) for line in data.splitlines()]
    return [tuple(row) for row in _LINES.decode_lines(data)]


def escaped(params: Mapping[str, Any] | None) -> dict[str, str]:
    """Query parameters as the texts that fill `{name:Type}`: text in its escaped form, lists as array literals."""
    return {name: _outer(value) for name, value in (params or {}).items()}


def _outer(value: Any) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, str):
        return value.translate(_ESCAPES)
    return literal(value)


def literal(value: Any) -> str:
    """A value as it stands in SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, list):
        return "[" + ",".join(map(literal, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ",".join(map(literal, value)) + ")"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{literal(k)}:{literal(v)}" for k, v in value.items()) + "}"
    return str(value)
