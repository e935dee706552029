"""Parameters and bodies of requests, checked against the structs that the routes name."""

import asyncio
import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from aiohttp import web
from msgspec import inspect

from k2.web.problems import Problem

MAX_BODY = 1 << 20
_BODY_WITHIN = 30.0  # s
_WHERE = re.compile(r"(?P<what>.*) - at `\$\.?(?P<field>[^`.\[]*)[^`]*`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]*)`")


class Field(NamedTuple):
    """A parameter: its name on the wire, whether it may come several times, whether it is part of the path."""

    name: str
    plural: bool
    in_path: bool


class Reader:
    """Reads one route's parameters. `also` are query parameters that the frame itself understands."""

    def __init__(self, params: type[msgspec.Struct], path: str, also: Iterable[str] = ()) -> None:
        in_path = set(re.findall(r"{(\w+)", path))
        self.struct = params
        self.fields = {
            field.encode_name: Field(field.encode_name, is_plural(field.type), field.encode_name in in_path)
            for field in inspected(params).fields
        }
        self._also = frozenset(also)

    def read(self, request: web.Request) -> Any:
        """The checked struct. Raises Problem 400."""
        found: dict[str, Any] = dict(request.match_info)
        for name in request.query:
            field = self.fields.get(name)
            if field is not None and not field.in_path:
                found[name] = self._values(field, request.query.getall(name))
            elif name not in self._also or field is not None:
                raise self._unknown(name)
        for name, value in found.items():
            _refuse_broken(name, value)
        try:
            return msgspec.convert(found, self.struct, strict=False)
        except msgspec.ValidationError as error:
            raise invalid(error, found, "parameter") from None

    def _values(self, field: Field, texts: list[str]) -> Any:
        if field.plural:
            parts = [part for text in texts for part in text.split(",") if part]
            if not parts:  # such as `symbol=$NOT_SET`, which must not mean all of them
                detail, remedy = f"{field.name} is empty", "name some, or leave it out"
                slug = "invalid-parameter"
                raise Problem(400, "Invalid parameter", detail, remedy, slug, parameter=field.name)
            return parts
        if len(texts) > 1:
            raise Problem(
                400,
                "Invalid parameter",
                f"{field.name} is given {len(texts)} times",
                "give it once",
                "invalid-parameter",
                parameter=field.name,
            )
        return texts[0]

    def _unknown(self, name: str) -> Problem:
        known = sorted({*(field.name for field in self.fields.values() if not field.in_path), *self._also})
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        nearest = f"did you mean {close[0]}? " if close else ""
        listing = f"Known here: {', '.join(known)}" if known else "None is known here"
        return Problem(
            400,
            "Unknown parameter",
            f"there is no parameter {name[:60]!r}",
            f"{nearest}{listing}",
            "unknown-parameter",
            parameter=name[:60],
        )


async def read_body(request: web.Request, body: type) -> Any:
    """A POST's JSON body. Raises Problem 400, 408, 413, 415."""
    if request.content_type != "application/json" or request.headers.get("Content-Encoding", "identity") != "identity":
        raise Problem(
            415,
            "Unsupported media type",
            f"a body of type {request.headers.get('Content-Type', 'none')[:60]!r}",
            "send JSON as it is, with Content-Type: application/json",
            "unsupported-media-type",
            headers={"Accept-Post": "application/json"},
        )
    try:
        async with asyncio.timeout(_BODY_WITHIN):
            data = await request.read()
    except TimeoutError:
        detail = f"the request's body was not here within {_BODY_WITHIN:g} s"
        raise Problem(408, "Request timeout", detail, "send it faster", headers={"Connection": "close"}) from None
    except web.HTTPRequestEntityTooLarge:
        raise too_large() from None
    try:
        return msgspec.json.decode(data, type=body)
    except msgspec.ValidationError as error:
        raise invalid(error, {}, "field") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Problem(
            400, "Invalid body", f"the body is no JSON: {error}", "send a JSON object", "invalid-body"
        ) from None


def too_large() -> Problem:
    """For a body past MAX_BODY."""
    detail = f"a request's body may have {MAX_BODY} bytes"
    return Problem(413, "Content too large", detail, "send less at once", "body-too-large")


def invalid(error: msgspec.ValidationError, found: Mapping[str, Any], kind: str) -> Problem:
    """The problem that a failed check is. `kind`: parameter or field."""
    text = str(error)
    if match := _MISSING.match(text):
        name = match["field"]
        return Problem(400, f"Missing {kind}", f"{name} is required", f"add {name}", f"invalid-{kind}", parameter=name)
    match = _WHERE.match(text)
    name, what = (match["field"], match["what"]) if match else ("", text)
    given = f"{name}={str(found[name])[:60]}: " if name in found else (f"{name}: " if name else "")
    what = what[:1].lower() + what[1:]
    remedy = "see /docs for what it may be"
    extra: dict[str, Any] = {"parameter": name} if name else {}
    return Problem(400, f"Invalid {kind}", f"{given}{what}", remedy, f"invalid-{kind}", **extra)


def _refuse_broken(name: str, value: Any) -> None:
    """Text that is no UTF-8, or has a NUL, is nobody's symbol, time or number."""
    texts = value if isinstance(value, list) else [value]
    for text in texts:
        if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
            detail = f"{name} holds bytes that are no text"
            raise Problem(400, "Invalid parameter", detail, "send UTF-8", "invalid-parameter", parameter=name)


def inspected(struct: type[msgspec.Struct]) -> inspect.StructType:
    """What is known of a struct type."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return info


def is_plural(kind: inspect.Type) -> bool:
    """Whether a parameter of this type is a list."""
    if isinstance(kind, inspect.Metadata):
        return is_plural(kind.type)
    if isinstance(kind, inspect.UnionType):
        return any(is_plural(part) for part in kind.types)
    return isinstance(
        kind, inspect.ListType | inspect.VarTupleType | inspect.SetType | inspect.FrozenSetType | inspect.TupleType
    )
