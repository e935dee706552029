"""Routes as tables: what may be asked, how it is checked, who answers, and what the answer looks like."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from aiohttp import web

from k2.web.answer import Answer
from k2.web.keys import Key
from k2.web.parts import Parts

P = TypeVar("P", bound=msgspec.Struct)


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """No parameters."""


@dataclass
class Call(Generic[P]):
    """One request, checked. `key` is None where none is needed; `body` is the decoded JSON body of a POST."""

    params: P
    parts: Parts
    request: web.Request
    key: Key | None = None
    body: Any = None


class Route(NamedTuple):
    """One operation.

    `params` holds path and query parameters: names, types, `Meta(description=, examples=, ge=...)`. Lists come
    separated by commas or repeated. An unknown parameter is a 400 problem that names the nearest known one. With
    `rows`, the row type of a Table, all formats and the parameter `format` are there by themselves. `answer` is the
    type of the JSON answer. `open` routes need no key; `key_in_url` ones take it as `?key=` too (browsers cannot set
    headers for WebSocket and EventSource). `media` are further media types of a 200 answer (Stream, Raw).
    """

    method: str
    path: str
    handler: Callable[[Call[Any]], Awaitable[Answer]]
    params: type[msgspec.Struct]
    answer: Any
    summary: str
    description: str = ""
    tag: str = "market"
    rows: Any = None
    body: type | None = None
    open: bool = False
    key_in_url: bool = False
    media: tuple[str, ...] = ()
