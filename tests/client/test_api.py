"""The client of the HTTP API when things go wrong: problems, keys, servers that go away."""

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from tests.patience import PATIENCE_S
from tests.web.serving import Served

import k2
from k2.cli import main
from k2.client import AccessDenied, Client, InvalidQuestion, K2Error, TooManyRequests, Unavailable
from k2.client.api import Api
from k2.metrics import write_status

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.apache.arrow.stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def arrow(rows: int) -> bytes:
    """An Arrow stream of `rows` rows without its end."""
    sink = pa.BufferOutputStream()
    batch = pa.record_batch({"n": list(range(rows))})
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())[:-8]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def request(connection: socket.socket) -> bytes:
    """One request, with its body."""
    data = b""
    while not (head := data.partition(b"\r\n\r\n"))[1] or len(head[2]) < length(head[0]):
        data += connection.recv(65_536)
    return data


def length(head: bytes) -> int:
    found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return int(found[1]) if found else 0


@contextmanager
def server(*answers: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[bytes]]]:
    """Somebody who answers each connection in turn in this way; its address, and what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    asked.append(request(connection))
                    answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "it was asked less often than it should have been"


def whole(connection: socket.socket) -> None:
    connection.sendall(HEAD + chunk(arrow(3) + b"\xff\xff\xff\xff\0\0\0\0") + b"0\r\n\r\n")


def nothing(connection: socket.socket) -> None:
    pass


def cut(connection: socket.socket) -> None:
    connection.sendall(HEAD + chunk(arrow(1000)))


def busy(connection: socket.socket) -> None:
    body = json.dumps({"title": "Too many requests", "status": 429, "detail": "50 a second", "remedy": "wait"}).encode()
    connection.sendall(b"HTTP/1.1 429 X\r\nRetry-After: 7\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def proxy(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 11\r\n\r\n<h1>no</h1>")


def test_a_request_without_an_answer_is_sent_again() -> None:
    with server(nothing, nothing, whole) as (url, asked):
        assert Client(Api(url, key="k2_abc")).trades("BTC-USD").to_pylist() == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert len(asked) == 3
    assert len(set(asked)) == 1
    assert b"GET /v1/trades?symbol=BTC-USD&limit=0 HTTP/1.1" in asked[0]
    assert b"Bearer k2_abc" in asked[0]


def test_statements_that_read_are_sent_again_too() -> None:
    with server(nothing, whole) as (url, asked):
        assert len(Client(Api(url)).sql("SELECT 1", {"x": [1, 2]})) == 3
    assert json.loads(asked[1].partition(b"\r\n\r\n")[2]) == {"query": "SELECT 1", "params": {"x": [1, 2]}}


def test_an_answer_that_breaks_off_is_an_error_and_not_the_end() -> None:
    with server(cut) as (url, _):
        result = Client(Api(url)).trades()
        batches = result.batches()
        assert next(batches).num_rows == 1000
        with pytest.raises(Unavailable, match="broke off"):
            next(batches)


def test_an_answer_is_never_asked_for_twice() -> None:
    with server(busy) as (url, _), pytest.raises(TooManyRequests, match="50 a second") as raised:
        Client(Api(url)).trades()
    assert raised.value.retry_after == 7
    assert raised.value.remedy == "wait"
    with server(proxy) as (url, _), pytest.raises(Unavailable, match="502"):
        Client(Api(url)).trades()


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(Unavailable, match=rf"{port}.*k2 web"):
        k2.connect(f"http://127.0.0.1:{port}")
    with pytest.raises(K2Error, match="http://HOST:PORT"):
        k2.connect("8080")


def test_problem_documents_become_errors(api: Client) -> None:
    with pytest.raises(InvalidQuestion) as raised:
        api.trades(start="yesterday")
    error = raised.value
    assert (error.status, error.title) == (400, "Invalid parameter")
    assert "from=yesterday" in error.detail
    assert "RFC 3339" in error.remedy
    assert error.extra["parameter"] == "from"


def test_keys(served: Served, tmp_path: Path) -> None:
    made = CliRunner().invoke(main, ["--data", str(tmp_path), "keys", "create", "quant"], env=served.environ)
    key = max((word for word in made.output.split() if word.startswith("k2_")), key=len)
    url = served.another(data=tmp_path).url
    with pytest.raises(AccessDenied) as raised:
        k2.connect(url)
    assert raised.value.status == 401
    with pytest.raises(AccessDenied) as raised:
        k2.connect(url, key[:-1] + ("a" if key[-1] != "a" else "b"))
    assert key[:-1] not in str(raised.value)
    with k2.connect(url, key) as client:
        assert len(client.trades("ETH-USDT", limit=5)) == 5
        with pytest.raises(AccessDenied), k2.connect(url).stream() as stream:
            next(iter(stream))
        with client.stream() as stream:
            threading.Timer(0.5, stream.close).start()
            assert list(stream) == []  # let in, and nothing is traded
    assert key not in repr(client)


def test_import_is_light_and_typed() -> None:
    code = "import sys, k2; print(sorted(set(sys.modules) & {'pyarrow', 'aiohttp', 'urllib3', 'pandas', 'msgspec'}))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
    assert (Path(k2.__file__).parent / "py.typed").exists()
    assert "Raises" in (k2.connect.__doc__ or "")


@pytest.fixture
def web_of_folder(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Says where the `k2 web` of the served folder answers."""
    for name, value in served.environ.items():
        monkeypatch.setenv(name, value)
    yield lambda url: write_status(served.config, "web", 0, address=url)
    (served.config.run_dir / "web.json").unlink()


def test_a_folder_is_asked_through_its_web(served: Served, web_of_folder: Callable[[str], None]) -> None:
    web_of_folder(served.url)
    with k2.connect() as client:
        assert repr(client) == f"k2.Client({served.url})"
        assert len(client.trades(limit=5)) == 5


def test_a_web_that_wants_a_key_is_passed_by(
    served: Served, web_of_folder: Callable[[str], None], tmp_path: Path
) -> None:
    made = CliRunner().invoke(main, ["--data", str(tmp_path), "keys", "create", "other"], env=served.environ)
    assert made.exit_code == 0
    web_of_folder(served.another(data=tmp_path).url)
    with k2.connect() as client:
        assert repr(client) == f"k2.Client({served.config.data_dir})"
        assert len(client.trades(limit=5)) == 5
    with pytest.raises(AccessDenied):
        k2.connect(key="k2_00000000_wrong")


def test_a_web_that_has_gone_is_passed_by(served: Served, web_of_folder: Callable[[str], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    web_of_folder(url)
    with k2.connect() as client:
        assert len(client.trades(limit=5)) == 5
