"""Answers in every format: equal to each other and to the store, whole or visibly broken off, packed as asked for."""

import csv
import gzip
import io
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from http.client import HTTPConnection, IncompleteRead
from typing import Annotated, Any
from urllib.parse import urlsplit

import duckdb
import msgspec
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from msgspec import Meta
from tests.web.serving import START, Served, WebProcess, WebThread, ask

from k2.web import server
from k2.web.answer import NextCursor, Plain, Stream, Table
from k2.web.app import routes
from k2.web.problems import Problem
from k2.web.route import Call, Nothing, Route

COLUMNS = ("exchange", "symbol", "trade_id", "price", "quantity", "side", "exchange_ts")
SELECT = f"SELECT {', '.join(COLUMNS).replace('side', 'toString(side) AS side')} FROM k2.silver_trades"


class Row(msgspec.Struct):
    exchange: str
    symbol: str
    trade_id: int
    price: str
    quantity: str
    side: str
    exchange_ts: str


class Page(msgspec.Struct):
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100
    after: int = 0
    symbols: tuple[str, ...] = ()


class Body(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    count: Annotated[int, Meta(ge=1)] = 1


async def _trades(call: Call[Page]) -> Table:
    page = call.params
    sql = (
        f"{SELECT} WHERE exchange = 'binance' AND symbol IN {{symbols:Array(String)}} AND trade_id > {{after:Int64}}"
        f" ORDER BY symbol, trade_id LIMIT {page.limit}"
    )
    params = {"after": page.after, "symbols": list(page.symbols) or ["BTC-USDT"]}
    following = NextCursor(page.limit, ("symbol", "trade_id"), lambda row: f"{row[0]}.{row[1]}")
    return Table(sql, params, COLUMNS, etag=f"{page}" if page.after else "", next=following)


async def _fails(call: Call[Nothing]) -> Table:
    sql = "SELECT number AS n, throwIf(number = 240000, 'a cause') AS bad FROM numbers(250000)"
    return Table(sql, {}, ("n", "bad"), settings={"max_block_size": "10000", "max_threads": "1"})


async def _fails_at_once(call: Call[Nothing]) -> Table:
    return Table("SELECT throwIf(1, 'no such luck')", {}, ("n",), reader=True)


async def _large(call: Call[Nothing]) -> Table:
    return Table("SELECT number AS n, toString(cityHash64(number)) AS t FROM numbers(60000)", {}, ("n", "t"))


async def _chunks() -> Any:
    yield b'{"n":1}\n'
    raise Problem(503, "Broken", "on purpose")


async def _stream(call: Call[Nothing]) -> Stream:
    return Stream("application/x-ndjson", _chunks())


async def _echo(call: Call[Nothing]) -> Plain:
    return Plain({"text": call.body.text * call.body.count})


async def _fault(call: Call[Nothing]) -> Plain:
    raise RuntimeError("a secret that nobody is told")


def _route(path: str, handler: Callable[[Call[Any]], Awaitable[Any]], params: Any = Nothing, **more: Any) -> Route:
    return Route(more.pop("method", "GET"), f"/v1/try/{path}", handler, params, more.pop("answer", None), path, **more)


ROUTES = (
    _route("trades", _trades, Page, rows=Row),
    _route("fails", _fails, rows=Row),
    _route("fails-at-once", _fails_at_once, rows=Row),
    _route("large", _large, rows=Row),
    _route("stream", _stream, media=("application/x-ndjson",)),
    _route("echo", _echo, method="POST", body=Body, answer=dict),
    _route("fault", _fault, answer=dict),
)


@pytest.fixture(scope="module")
def web(served: Served) -> Iterator[WebThread]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "routes", lambda: (*routes(), *ROUTES))
        yield served.another()


def expected(served: Served, symbol: str = "BTC-USDT", limit: int = 100, after: int = 0) -> list[tuple[Any, ...]]:
    """Rows as they must come out: id, price, quantity, side, ns."""
    return [
        (trade.trade_id, Decimal(trade.price), Decimal(trade.quantity), trade.side, trade.exchange_ts)
        for trade in served.trades
        if trade.exchange == "binance" and trade.symbol == symbol and trade.trade_id > after
    ][:limit]


def ns(text: str) -> int:
    """A time of a JSON answer: RFC 3339 in UTC with nine decimals."""
    head, _, rest = text.partition(".")
    assert rest.endswith("Z")
    assert len(rest) == 10
    seconds = (datetime.fromisoformat(head).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    return int(seconds) * 1_000_000_000 + int(rest[:-1])


def plain(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(r["trade_id"], Decimal(r["price"]), Decimal(r["quantity"]), r["side"], ns(r["exchange_ts"])) for r in rows]


def arrow_rows(table: pa.Table) -> list[tuple[Any, ...]]:
    times = table.column("exchange_ts").cast(pa.int64()).to_pylist()
    values = [table.column(name).to_pylist() for name in ("trade_id", "price", "quantity", "side")]
    return list(zip(*values, times, strict=True))


def test_every_format_says_the_same(served: Served, web: WebThread) -> None:
    rows = expected(served)
    document = web.get("/v1/try/trades").json()
    assert plain(document["data"]) == rows
    assert document["data"][0]["price"] == served.trades[0].price.rstrip("0").rstrip(".")
    assert document["data"][0]["exchange_ts"] == "2026-01-02T00:00:00.097003001Z"
    assert rows[0][-1] == START + 97_003_001

    lines = web.get("/v1/try/trades?format=ndjson")
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in lines.body.splitlines()] == document["data"]

    text = web.get("/v1/try/trades", {"Accept": "text/csv"})
    assert text.headers["content-type"] == "text/csv"
    assert (
        plain([{**row, "trade_id": int(row["trade_id"])} for row in csv.DictReader(text.body.decode().splitlines())])
        == rows
    )

    table = pa.ipc.open_stream(web.get("/v1/try/trades?format=arrow").body).read_all()
    assert arrow_rows(table) == rows
    assert table.schema.field("exchange_ts").type == pa.timestamp("ns", "UTC")
    assert table.schema.field("price").type == pa.decimal128(38, 18)

    parquet = web.get("/v1/try/trades", {"Accept": "application/vnd.apache.parquet"})
    assert parquet.headers["content-disposition"] == 'attachment; filename="trades.parquet"'
    parquet_table = pq.read_table(io.BytesIO(parquet.body))
    assert arrow_rows(parquet_table) == rows
    assert duckdb.sql("SELECT sum(price) FROM parquet_table").fetchall() == [(sum(row[1] for row in rows),)]


def test_pages_follow_each_other_in_every_format(web: WebThread) -> None:
    document = web.get("/v1/try/trades?limit=10&after=20").json()
    assert document["next"] == "BTC-USDT.30"
    csv_page = web.get("/v1/try/trades?limit=10&after=20&format=csv")
    assert csv_page.headers["link"] == ('</v1/try/trades?limit=10&after=20&format=csv&cursor=BTC-USDT.30>; rel="next"')
    last = web.get("/v1/try/trades?limit=10&after=1995")
    assert len(last.json()["data"]) == 5
    assert last.json()["next"] is None
    assert "link" not in web.get("/v1/try/trades?limit=10&after=1995&format=arrow").headers
    assert web.get("/v1/try/trades?after=99999").json() == {"data": [], "next": None}
    assert web.get("/v1/try/trades?after=99999&format=ndjson").body == b""
    assert pa.ipc.open_stream(web.get("/v1/try/trades?after=99999&format=arrow").body).read_all().num_rows == 0


def test_lists_come_by_comma_or_repeated(web: WebThread) -> None:
    by_comma = web.get("/v1/try/trades?symbols=BTC-USDT,ETH-USDT&limit=5000").json()["data"]
    assert {row["symbol"] for row in by_comma} == {"BTC-USDT", "ETH-USDT"}
    assert web.get("/v1/try/trades?symbols=BTC-USDT&symbols=ETH-USDT&limit=5000").json()["data"] == by_comma


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "arrow"])
@pytest.mark.parametrize("size", ["large", "trades?limit=1"])
def test_packed_answers_are_the_same_answers(web: WebThread, form: str, size: str) -> None:
    path = f"/v1/try/{size}{'&' if '?' in size else '?'}format={form}"
    body = web.get(path).body
    zipped = web.get(path, {"Accept-Encoding": "gzip"})
    zstd = web.get(path, {"Accept-Encoding": "gzip, zstd"})
    if len(body) < 1024:
        assert "content-encoding" not in zipped.headers
        assert zipped.body == zstd.body == body
        return
    assert (zipped.headers["content-encoding"], zstd.headers["content-encoding"]) == ("gzip", "zstd")
    unpacked = (gzip.decompress(zipped.body), zstandard.ZstdDecompressor().decompressobj().decompress(zstd.body))
    for found in unpacked:
        if form == "arrow":
            assert pa.ipc.open_stream(found).read_all() == pa.ipc.open_stream(body).read_all()
        else:
            assert found == body
    assert len(zstd.body) < len(body)
    assert "accept-encoding" in zstd.headers["vary"].lower()


def test_parquet_is_not_packed_twice(web: WebThread) -> None:
    assert "content-encoding" not in web.get("/v1/try/large?format=parquet", {"Accept-Encoding": "zstd"}).headers


@pytest.mark.parametrize("form", ["json", "csv", "arrow", "parquet"])
@pytest.mark.parametrize("packing", ["identity", "gzip", "zstd"])
def test_an_answer_that_fails_on_the_way_is_never_taken_for_whole(web: WebThread, form: str, packing: str) -> None:
    with pytest.raises(IncompleteRead):
        web.get(f"/v1/try/fails?format={form}", {"Accept-Encoding": packing})


def test_ndjson_tells_in_its_last_line_what_failed(web: WebThread) -> None:
    with pytest.raises(IncompleteRead) as cut:
        web.get("/v1/try/fails?format=ndjson")
    *rows, last = cut.value.partial.splitlines()
    assert json.loads(rows[-1])["n"] == len(rows) - 1
    assert json.loads(last)["status"] == 500
    assert "a cause" in json.loads(last)["detail"]


def test_old_clients_are_reset(web: WebThread) -> None:
    address = urlsplit(web.url)
    with socket.create_connection((address.hostname or "", address.port or 0), 10) as raw:
        raw.sendall(b"GET /v1/try/fails?format=csv HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            raw.makefile("rb").read()


def test_a_stream_that_fails_is_cut_too(web: WebThread) -> None:
    with pytest.raises(IncompleteRead) as cut:
        web.get("/v1/try/stream")
    assert [json.loads(line).get("title") for line in cut.value.partial.splitlines()] == [None, "Broken"]


def test_an_early_failure_is_a_clean_problem(web: WebThread) -> None:
    reply = web.get("/v1/try/fails-at-once")
    assert (reply.status, reply.headers["content-type"]) == (400, "application/problem+json")
    assert "no such luck" in reply.json()["detail"]


def test_a_fault_of_ours_is_told_without_its_text(web: WebThread) -> None:
    reply = web.get("/v1/try/fault")
    assert reply.status == 500
    assert b"secret" not in reply.body


def test_answers_that_will_not_change_have_a_tag(web: WebThread) -> None:
    first = web.get("/v1/try/trades?after=3")
    tag = first.headers["etag"]
    again = web.get("/v1/try/trades?after=3", {"If-None-Match": f'"other", {tag}'})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert web.get("/v1/try/trades?after=3&format=csv").headers["etag"] != tag
    assert web.get("/v1/try/trades?after=4", {"If-None-Match": tag}).status == 200
    assert "etag" not in web.get("/v1/try/trades").headers


def test_head_has_the_headers_alone(web: WebThread) -> None:
    whole = web.get("/v1/try/trades?after=3&format=csv")
    head = web.get("/v1/try/trades?after=3&format=csv", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert [head.headers[name] for name in ("content-type", "etag")] == [
        whole.headers[name] for name in ("content-type", "etag")
    ]
    assert web.get("/healthz", method="HEAD").status == 200
    assert web.get("/v1/try/trades?limit=x", method="HEAD").status == 400


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("text/csv;q=0.5, application/x-ndjson;q=0.9", "application/x-ndjson"),
        ("application/json;q=0, text/*", "text/csv"),
        ("application/*", "application/json"),
        ("application/vnd.apache.arrow.stream, */*;q=0.1", "application/vnd.apache.arrow.stream"),
        ("application/jsonl", "application/x-ndjson"),
    ],
)
def test_the_best_form_that_is_accepted(web: WebThread, accept: str, media: str) -> None:
    assert web.get("/v1/try/trades?limit=1", {"Accept": accept}).headers["content-type"] == media


def test_no_form_fits(web: WebThread) -> None:
    reply = web.get("/v1/try/trades", {"Accept": "image/png"})
    assert reply.status == 406
    assert "text/csv" in reply.json()["remedy"]
    reply = web.get("/v1/try/trades?format=parket")
    assert reply.status == 400
    assert "did you mean parquet" in reply.json()["remedy"]


@pytest.mark.parametrize(
    ("query", "title", "named"),
    [
        ("limt=3", "Unknown parameter", "limt"),
        ("limit=three", "Invalid parameter", "limit"),
        ("limit=0", "Invalid parameter", "limit"),
        ("limit=1&limit=2", "Invalid parameter", "limit"),
        ("after=%FF", "Invalid parameter", "after"),
        ("symbols=", "Invalid parameter", "symbols"),
        ("symbols=%00", "Invalid parameter", "symbols"),
        ("key=k2_x", "Unknown parameter", "key"),
    ],
)
def test_wrong_parameters_are_named(web: WebThread, query: str, title: str, named: str) -> None:
    reply = web.get(f"/v1/try/trades?{query}")
    document = reply.json()
    assert (reply.status, document["title"], document["parameter"]) == (400, title, named)
    assert document["type"].startswith("/docs/problems#")
    assert document["instance"] == "/v1/try/trades"


def test_the_nearest_parameter_is_named(web: WebThread) -> None:
    assert "did you mean limit?" in web.get("/v1/try/trades?limt=3").json()["remedy"]


def test_bodies_are_checked(web: WebThread) -> None:
    assert web.post("/v1/try/echo", {"text": "ab", "count": 2}).json() == {"text": "abab"}
    for value, status in (({"text": 1}, 400), ({}, 400), ({"text": "a", "other": 1}, 400), ([], 400)):
        assert web.post("/v1/try/echo", value).status == status
    assert web.post("/v1/try/echo", {"text": "a"}, {"Content-Type": "text/plain"}).status == 415
    assert web.post("/v1/try/echo", {"text": "a"}, {"Content-Encoding": "gzip"}).status == 415
    assert web.post("/v1/try/echo", {"text": "a" * (1 << 20)}).status == 413
    broken = ask(web.url, "/v1/try/echo", "POST", {"Content-Type": "application/json"}, b'{"text": ')
    assert (broken.status, broken.json()["title"]) == (400, "Invalid body")
    deep = ask(web.url, "/v1/try/echo", "POST", {"Content-Type": "application/json"}, b"[" * 100_000)
    assert deep.status == 400


def test_what_is_not_there(web: WebThread) -> None:
    assert web.get("/v1/nothing").status == 404
    reply = ask(web.url, "/v1/try/trades", "DELETE")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    assert ask(web.url, "/v1/try/echo").headers["allow"] == "POST"


def test_an_answer_that_grows_too_large_is_broken_off(served: Served) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "routes", lambda: ROUTES)
        small = served.another(max_response_mb=1)
    with pytest.raises(IncompleteRead) as cut:
        small.get("/v1/try/large?format=ndjson")
    assert len(cut.value.partial) < (1 << 20) + 1024
    assert json.loads(cut.value.partial.splitlines()[-1])["title"] == "Answer too large"
    assert small.get("/v1/try/trades").status == 200


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "parquet", "arrow"])
def test_people_may_ask_in_every_format(served: Served, form: str) -> None:
    reply = served.post(f"/v1/sql?format={form}", {"query": "SELECT 1 AS n, nullIf(1, 1) AS nothing"})
    assert reply.status == 200, reply.body
    if form == "csv":
        assert reply.body == b'"n","nothing"\n1,\n'


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "arrow", "parquet"])
def test_a_large_answer_takes_no_memory(served: Served, form: str) -> None:
    """Ten million bytes or a hundred: the process that streams them does not grow with them."""
    web = WebProcess(served.environ)
    process = psutil.Process(web.process.pid)

    def asked(rows: int) -> int:
        columns = "number AS trade_id, toDecimal128(number % 97, 18) AS price, 'BTC-USDT' AS symbol"
        sql = f"SELECT {columns} FROM numbers({rows})"
        connection = HTTPConnection(urlsplit(web.url).netloc, timeout=120)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"/v1/sql?format={form}", json.dumps({"query": sql}), headers)
        response = connection.getresponse()
        assert response.status == 200
        size = 0
        while chunk := response.read(1 << 16):
            size += len(chunk)
            if size % 64 == 0:
                time.sleep(0.001)  # a client that is not quick: the answer must not pile up behind it
        connection.close()
        return size

    try:
        asked(200_000)
        before = process.memory_info().rss
        small, large = asked(200_000), asked(2_000_000)
        assert large > 5 * small
        assert process.memory_info().rss - before < 24 << 20
    finally:
        assert web.stop() == 0
