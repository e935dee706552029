"""The OpenAPI 3.1 document, made from the routes: the structs that check requests describe them."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from k2 import __version__
from k2.web import negotiate
from k2.web.params import inspected, is_plural
from k2.web.problems import MEDIA_TYPE, ProblemDocument
from k2.web.route import Route

_REF = "#/components/schemas/{name}"
_PROBLEMS = {
    "400": "A parameter or the body is not what it may be",
    "401": "A key is required",
    "403": "Refused",
    "404": "Nothing of this name",
    "406": "No form that the Accept header admits",
    "408": "The body did not come in time",
    "413": "The body is too large",
    "415": "The body is of a type that is not understood",
    "421": "Another host than this one was meant",
    "422": "More than may be asked at once",
    "429": "Too many requests",
    "500": "A fault of K2",
    "503": "The store or the log is not there, or busy",
}
_LIMIT_HEADERS = ("RateLimit", "RateLimit-Policy")
_TAGS = ("market", "live", "sql")
_INTRODUCTION = """\
Trades, candles and gaps of every exchange that K2 captures, hot and cold as one.

- Prices, quantities and volumes are strings in JSON: no digit is lost. Times are RFC 3339 in UTC.
- Tables come as JSON, NDJSON, CSV, Parquet or an Arrow IPC stream: `Accept`, or `?format=`. They are streamed; a cut
  answer ends without its last chunk, so that every HTTP library takes it for an error.
- Errors are problem documents (RFC 9457) with the cause and the remedy.
- Once `k2 keys create` has made a key, every request needs one.
"""


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The document of these routes."""
    kinds = [kind for route in routes for kind in (route.answer, route.rows, route.body) if kind not in (None, bytes)]
    kinds += [field.type for route in routes for field in msgspec.structs.fields(route.params)]
    schemas, components = msgspec.json.schema_components([*kinds, ProblemDocument], ref_template=_REF)
    parts = _Schemas(kinds, schemas)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r"{(\w+):[^}]*}", r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, parts)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "K2 market data",
            "version": __version__,
            "description": _INTRODUCTION,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name} for name in sorted({route.tag for route in routes}, key=_rank)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key of `k2 keys create`."},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "headers": {
                "RateLimit-Policy": _header('How often one may ask: `"requests";q=200;w=4` (200 requests in 4 s).'),
                "RateLimit": _header('What is left: `"requests";r=199;t=1` (199 requests, all again in 1 s).'),
                "Link": _header('`<...>; rel="next"`: the next page.'),
                "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
            },
        },
    }


def _rank(tag: str) -> tuple[int, str]:
    """What people come for stands first."""
    return (_TAGS.index(tag) if tag in _TAGS else len(_TAGS)), tag


class _Schemas:
    """The schema of each type; `kinds` and `schemas` are parallel."""

    def __init__(self, kinds: list[Any], schemas: Sequence[dict[str, Any]]) -> None:
        self._kinds = kinds
        self._schemas = schemas

    def of(self, kind: Any) -> dict[str, Any]:
        if kind is None or kind is bytes:
            return {}
        return self._schemas[next(index for index, known in enumerate(self._kinds) if known is kind or known == kind)]


def _operation(route: Route, path: str, schemas: _Schemas) -> dict[str, Any]:
    words = [word for word in re.split(r"[^A-Za-z0-9]+", path.removeprefix("/v1")) if word]
    found: dict[str, Any] = {
        "operationId": "_".join([route.method.lower(), *words]),
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": _parameters(route, path, schemas),
        "responses": _responses(route, schemas),
        "security": [] if route.open else [{}, {"bearer": []}, {"header": []}],
    }
    if route.description:
        found["description"] = route.description
    if route.body is not None:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas.of(route.body)}},
        }
    return found


def _parameters(route: Route, path: str, schemas: _Schemas) -> list[dict[str, Any]]:
    types = {field.encode_name: field.type for field in inspected(route.params).fields}
    found = []
    for field in msgspec.structs.fields(route.params):
        name = field.encode_name
        in_path = f"{{{name}}}" in path
        schema = _without_null(dict(schemas.of(field.type)))
        parameter: dict[str, Any] = {
            "name": name,
            "in": "path" if in_path else "query",
            "required": in_path or field.required,
        }
        if "description" in schema:
            parameter["description"] = schema.pop("description")
        examples = schema.pop("examples", [])
        if examples:
            parameter["examples"] = {f"{index}": {"value": value} for index, value in enumerate(examples, 1)}
        if not field.required and field.default not in (msgspec.NODEFAULT, None, ""):
            schema["default"] = msgspec.to_builtins(field.default)
        if is_plural(types[name]):
            parameter |= {"style": "form", "explode": False}
            schema["minItems"] = max(1, schema.get("minItems", 0))
        found.append({**parameter, "schema": schema})
    if route.rows is not None and "format" not in types:
        names = list(negotiate.FORMATS)
        found.append(
            {
                "name": "format",
                "in": "query",
                "required": False,
                "description": "The form of the answer, in place of the Accept header.",
                "schema": {"type": "string", "enum": names},
            }
        )
    return found


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that is not there is not null."""
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        return {**{name: value for name, value in schema.items() if name not in ("anyOf", "default")}, **options[0]}
    return {**schema, "anyOf": options} if options else schema


def _responses(route: Route, schemas: _Schemas) -> dict[str, Any]:
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in _LIMIT_HEADERS}
    content: dict[str, Any] = {}
    if route.answer is not None:
        content["application/json"] = {"schema": schemas.of(route.answer)}
    if route.rows is not None:
        headers["Link"] = {"$ref": "#/components/headers/Link"}
        content |= {format.media: _schema_of(format, schemas.of(route.rows)) for format in negotiate.FORMATS.values()}
        row = schemas.of(route.rows)
        content["application/json"] = {
            "schema": schemas.of(route.answer) if route.answer is not None else _page_of(row)
        }
    content |= {media: {} for media in route.media}
    found: dict[str, Any] = {"200": {"description": "The answer", "headers": headers, "content": content}}
    if route.rows is not None:
        found["304"] = {"description": "As the ETag in If-None-Match says"}
    problem = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="ProblemDocument")}}}
    skipped = {"401"} if route.open else set()
    skipped |= set() if route.body is not None else {"408", "413", "415"}
    for status, description in _PROBLEMS.items():
        if status not in skipped:
            found[status] = {"description": description, "content": problem}
    for status in ("429", "503"):
        found[status] = {**found[status], "headers": {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}}
    return found


def _schema_of(format: negotiate.Format, row: dict[str, Any]) -> dict[str, Any]:
    if format.name == "ndjson":
        return {"schema": {"type": "string", "description": "One row a line"}, "itemSchema": row}
    return (
        {"schema": {"type": "string"}} if format.name == "csv" else {"schema": {"type": "string", "format": "binary"}}
    )


def _page_of(row: dict[str, Any]) -> dict[str, Any]:
    """The JSON document of a table."""
    return {
        "type": "object",
        "properties": {"data": {"type": "array", "items": row}, "next": {"type": ["string", "null"]}},
        "required": ["data", "next"],
    }


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}
