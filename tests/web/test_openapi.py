"""The OpenAPI document, and whether the server does what it says: schemathesis asks whatever the document admits."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis.checks import CHECKS
from tests.patience import PATIENCE_S
from tests.web.serving import Served

from k2.web import openapi
from k2.web.app import routes
from k2.web.negotiate import FORMATS
from k2.web.route import Route

ROUTES = routes()
FINITE = [route for route in ROUTES if not route.key_in_url]  # live streams end when the client goes away
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)
EXAMPLES = 5


@pytest.fixture(scope="module")
def document(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = served.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, found) for path, each in document["paths"].items() for method, found in each.items()]


def test_every_route_is_in_it(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert {(method.upper(), path) for path, method, _ in operations(document)} == {
        (route.method, route.path) for route in ROUTES
    }
    names = [found["operationId"] for _, _, found in operations(document)]
    assert len(names) == len(set(names))
    assert json.loads(msgspec.json.encode(openapi.document(ROUTES))) == document


def test_everything_is_described(document: dict[str, Any]) -> None:
    for path, method, found in operations(document):
        assert found["summary"], (method, path)
        for parameter in found["parameters"]:
            assert parameter.get("description"), (method, path, parameter["name"])
            assert parameter["required"] == (parameter["in"] == "path") or parameter["required"]
        assert {"400", "429", "500", "503"} <= set(found["responses"])


def test_tables_come_in_all_formats(document: dict[str, Any]) -> None:
    for route in ROUTES:
        found = document["paths"][route.path][route.method.lower()]
        content = found["responses"]["200"]["content"]
        names = [parameter["name"] for parameter in found["parameters"]]
        if route.rows is not None:
            assert set(content) == {format.media for format in FORMATS.values()}
            assert "format" in names
            assert content["application/json"]["schema"]["properties"]["data"]["type"] == "array"


def test_keys_are_asked_for(document: dict[str, Any]) -> None:
    for route in ROUTES:
        found = document["paths"][route.path][route.method.lower()]
        assert (found["security"] == []) == route.open
        assert ("401" in found["responses"]) == (not route.open)


def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    def visit(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                target: Any = document
                for part in node["$ref"].removeprefix("#/").split("/"):
                    target = target[part]
            for value in node.values():
                visit(value)
        elif isinstance(node, list):
            for value in node:
                visit(value)

    visit(document)


def explore(served: Served, route: Route, examples: int) -> int:
    """Ask what the document admits, and what it does not; every answer must be one that it tells of. Returns how many
    requests were made."""
    schema = schemathesis.openapi.from_dict(served.get("/openapi.json").json())
    schema.config.update(base_url=served.url)
    operation = schema[route.path][route.method.lower()]
    # Whether data flow depends on when the test runs: 503 is an answer of /readyz as good as any.
    names = [name for name in CHECKED if name != "not_a_server_error" or route.path != "/readyz"]
    checks = CHECKS.get_by_names(names)
    asked = 0
    for mode in schemathesis.GenerationMode:
        if mode.is_negative and not (operation.query or operation.path_parameters or operation.body):
            continue  # nothing can be wrong

        @settings(
            max_examples=examples, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def one(case: schemathesis.Case) -> None:
            nonlocal asked
            assume(len(str(case.as_transport_kwargs())) < 20_000)  # longer first lines are refused before they are read
            asked += 1
            case.call_and_validate(checks=checks, timeout=PATIENCE_S)

        one()
    return asked


@pytest.mark.parametrize("route", FINITE, ids=lambda route: f"{route.method} {route.path}")
def test_the_server_does_what_the_document_says(served: Served, route: Route) -> None:
    assert explore(served, route, EXAMPLES) > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("route", FINITE, ids=lambda route: f"{route.method} {route.path}")
def test_the_server_does_what_the_document_says_at_length(served: Served, route: Route) -> None:
    assert explore(served, route, 50 * EXAMPLES) > 0


def test_the_documentation_shows_every_route() -> None:
    text = (Path(__file__).parents[2] / "docs" / "API.md").read_text()
    for route in ROUTES:
        assert f"`{route.path}`" in text, route.path


def test_what_the_documentation_asks_is_answered(served: Served) -> None:
    text = (Path(__file__).parents[2] / "docs" / "API.md").read_text()
    paths = re.findall(r"^curl [^\n]*'http://127\.0\.0\.1:8080(/[^']+)'(?! -H 'Content-Type)", text, re.MULTILINE)
    assert len(paths) >= 20
    for path in paths:
        assert served.get(path).status == 200, path
    (body,) = re.findall(r"-d '(\{.*\})'", text)
    assert served.post("/v1/sql", json.loads(body)).json()["data"]
