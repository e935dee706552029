"""The frame: hosts and origins, headers, files, the store's absence, clients that go away, and a clean end."""

import ast
import json
import re
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.patience import PATIENCE_S
from tests.store.conftest import start as start_store
from tests.web.serving import Served, WebProcess, ask

from k2.ops.ports import free_port
from k2.web import app, page, server
from k2.web.answer import Table
from k2.web.keys import create, revoke
from k2.web.problems import KINDS, Problem
from k2.web.route import Call, Nothing, Route

WEB = Path(app.__file__).parent


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost:1", "[::1]:80", "LOCALHOST"])
def test_loopback_by_its_names(served: Served, host: str) -> None:
    assert served.get("/healthz", {"Host": host}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:8080", "", "localhost.evil.example"]
)
def test_a_rebound_name_is_refused(served: Served, host: str) -> None:
    for path in ("/v1/status", "/", "/openapi.json"):
        reply = served.get(path, {"Host": host})
        assert (reply.status, reply.json()["type"]) == (421, "/docs/problems#foreign-host")


def test_pages_of_other_origins_may_not_ask(served: Served) -> None:
    own = urlsplit(served.url).netloc
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://{own}.evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ):
        assert served.get("/v1/status", headers).status == 403
    for headers in (
        {"Origin": f"http://{own}"},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ):
        reply = served.get("/v1/status", headers)
        assert reply.status == 200
        assert "access-control-allow-origin" not in reply.headers
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    assert served.get("/v1/status", preflight, "OPTIONS").status == 403


def test_origins_that_are_named_may(served: Served) -> None:
    web = served.another(cors_origins="https://one.example https://two.example")
    for origin in ("https://one.example", "https://two.example"):
        reply = web.get("/v1/status", {"Origin": origin})
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, origin)
        assert "Origin" in reply.headers["vary"]
        assert "access-control-allow-credentials" not in reply.headers
    asked = {"Origin": "https://one.example", "Access-Control-Request-Method": "POST"}
    preflight = web.get("/v1/sql", asked, "OPTIONS")
    assert preflight.status == 204
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    assert web.get("/v1/status", {"Origin": "https://three.example"}).status == 403
    missing = web.get("/v1/nothing", {"Origin": "https://one.example"})  # errors can be read, too
    assert (missing.status, missing.headers["access-control-allow-origin"]) == (404, "https://one.example")


def test_every_answer_is_dressed(served: Served) -> None:
    for path in ("/", "/docs", "/docs/problems", "/openapi.json", "/v1/status", "/v1/nothing"):
        headers = served.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["server"] == "k2"
    policy = served.get("/docs").headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe-eval" not in policy
    assert "http" not in policy


def test_files_of_the_page(served: Served) -> None:
    index = served.get("/")
    assert index.headers["content-type"].startswith("text/html")
    for view in page.VIEWS:
        assert served.get(view).body == index.body
    for path in re.findall(rb'(?:src|href)="(/[^"]+)"', index.body + served.get("/docs").body):
        file = served.get(path.decode())
        assert file.status == 200, path
        again = served.get(path.decode(), {"If-None-Match": file.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        hashed = re.search(rb"-[A-Z0-9]{8}\.", path) is not None
        assert ("immutable" in file.headers["cache-control"]) == hashed
    for path in ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/docs/../app.py", "/assets/"):
        assert served.get(path).status == 404


def test_the_shipped_files_ask_nobody_else() -> None:
    folder = WEB / "static" / "docs"
    manifest = json.loads((folder / "manifest.json").read_text())
    own = {"index.html", "docs.js", "docs.css", "manifest.json"}
    assert {file.name for file in folder.iterdir()} == own | set(manifest["files"])
    for name in ("index.html", "docs.js", "docs.css"):
        assert not re.search(r"(?:https?:)?//[a-z]", (folder / name).read_text().replace("// The", ""))


def test_every_kind_of_problem_is_explained(served: Served) -> None:
    text = served.get("/docs/problems").body.decode()
    for slug, meaning in KINDS.items():
        assert f'id="{slug}"' in text
        assert meaning.endswith(".")


def test_a_problem_document() -> None:
    problem = Problem(400, "Title", "cause", "remedy", "method", more=[1])
    assert problem.document("/x") == {
        "type": "/docs/problems#method", "title": "Title", "status": 400, "detail": "cause", "remedy": "remedy",
        "instance": "/x", "more": [1],
    }  # fmt: skip
    assert Problem(400, "Title", "cause").document() == {
        "type": "about:blank", "title": "Title", "status": 400, "detail": "cause",
    }  # fmt: skip


def test_metrics_tell_of_requests(served: Served) -> None:
    def counted(status: int) -> float:
        lines = served.get("/metrics").body.decode().splitlines()
        name = f'k2_web_requests_total{{route="/v1/streams-of-nobody",status="{status}"}}'
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    served.get("/docs")
    served.get("/v1/streams-of-nobody")
    assert counted(404) == 0  # paths that are not there are counted as one route: nobody can make series
    text = served.get("/metrics").body.decode()
    assert 'k2_web_requests_total{route="none",status="404"}' in text
    assert 'k2_web_request_seconds_count{route="/metrics"}' in text
    assert 'k2_web_response_bytes_total{route="page"}' in text


def raw(url: str, data: bytes) -> bytes:
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 0), 10) as connection:
        connection.sendall(data)
        return connection.recv(4096)


@pytest.mark.parametrize(
    "data",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"],
)  # fmt: skip
def test_broken_requests_do_no_harm(served: Served, data: bytes) -> None:
    assert raw(served.url, data)[:12] in (b"HTTP/1.1 400", b"HTTP/1.0 400", b"HTTP/1.1 421")
    assert served.get("/healthz").status == 200


def running(served: Served) -> list[str]:
    client = served.store.client()
    try:
        return [
            str(row[0])
            for row in client.rows("SELECT query FROM system.processes WHERE query LIKE concat('%sleep', 'Each%')")
        ]
    finally:
        client.close()


async def _slow(_: Call[Any]) -> Table:
    """A table whose statement would run for a minute, giving rows all the while."""
    sql = "SELECT number, repeat('x', 5000) AS x FROM numbers(6000) WHERE sleepEachRow(0.01) = 0 OR 'sleepEach' = ''"
    return Table(sql, {}, ("number", "x"), settings={"max_block_size": "10", "max_threads": "1"})


@pytest.fixture
def slow_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """Webs that are made now have only the route /v1/slow."""
    route = Route("GET", "/v1/slow", _slow, Nothing, None, "slow", rows=dict[str, str])
    monkeypatch.setattr(server, "routes", lambda: (route,))


def open_slow(url: str, key: str = "") -> socket.socket:
    """A connection on which the slow answer has begun."""
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname or "", address.port or 0), 20)
    head = f"GET /v1/slow?format=csv HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {key}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


@pytest.mark.usefixtures("slow_route")
def test_a_client_that_goes_away_ends_its_statement(served: Served) -> None:
    deadline = time.monotonic() + PATIENCE_S
    with open_slow(served.another().url):
        while not running(served):
            assert time.monotonic() < deadline, "the statement never began"
            time.sleep(0.05)
    while running(served):
        assert time.monotonic() < deadline, "the statement still runs"
        time.sleep(0.05)


@pytest.mark.usefixtures("slow_route")
def test_an_answer_under_way_is_cut_when_its_key_is_revoked(served: Served, tmp_path: Path) -> None:
    _, text = create(tmp_path / "keys.json", "passing")
    web = served.another(data=tmp_path)
    with open_slow(web.url, text) as connection:
        assert connection.recv(12) == b"HTTP/1.1 200"
        revoke(web.config.keys_file, "passing")
        rest = connection.makefile("rb").read()  # ends within the second, not with the statement
    assert not rest.endswith(b"0\r\n\r\n")
    assert served.another(data=tmp_path).get("/v1/slow", {"X-API-Key": text}).status == 401


def test_without_a_store_it_answers_what_it_can_and_recovers(tmp_path: Path) -> None:
    port = free_port()
    data = tmp_path / "data"
    data.mkdir()
    web = WebProcess({"K2_DATA": str(data), "K2_STORE_PORT": str(port)})
    try:
        assert web.get("/healthz").status == 200
        assert web.get("/v1/log/streams").status == 200
        refused = web.get("/v1/trades?symbol=BTC-USDT")
        assert (refused.status, refused.headers["retry-after"]) == (503, "2")
        assert "k2 store" in refused.json()["remedy"]
        store = start_store(data, port)
        assert web.get("/v1/trades?symbol=BTC-USDT").json() == {"data": [], "next": None}
        assert store.stop() == 0
        assert web.get("/v1/trades?symbol=BTC-USDT").status == 503
    finally:
        assert web.stop() == 0
    assert "no keys are needed" in "".join(web.said)


def test_sigterm_ends_it_soon_also_with_answers_under_way(served: Served) -> None:
    web = WebProcess(served.environ)
    address = urlsplit(web.url)
    with socket.create_connection((address.hostname or "", address.port or 0), 10) as connection:
        connection.sendall(
            b"GET /v1/stream?channels=trades&symbols=* HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
        )
        assert connection.recv(12) == b"HTTP/1.1 200"
        began = time.monotonic()
        assert web.stop() == 0
        assert time.monotonic() - began < 10  # 2 s on a machine with nothing else to do
    with pytest.raises(OSError):
        ask(web.url, "/healthz")


def test_a_taken_port_is_told(served: Served) -> None:
    port = urlsplit(served.url).port
    failed = WebProcess(served.environ, "--port", str(port))
    assert failed.process.returncode == 1
    assert "another web.port" in "".join(failed.said)


def test_every_slug_in_the_code_is_explained() -> None:
    for file in sorted(WEB.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem":
                given = [*node.args[4:5], *(keyword.value for keyword in node.keywords if keyword.arg == "slug")]
                slugs = [part.value for part in given if isinstance(part, ast.Constant) and part.value]
                assert set(slugs) <= set(KINDS), f"{file.name}:{node.lineno}"
