"""/v1/sql for those who mean well; test_attack.py is about the others."""

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.web.serving import Served

COUNTED = (
    "SELECT symbol, count() AS trades FROM trades WHERE trade_id <= 100 AND exchange = 'binance'"
    " AND symbol IN ('BTC-USDT', 'ETH-USDT') GROUP BY symbol ORDER BY symbol"
)
ROWS = [{"symbol": "BTC-USDT", "trades": 100}, {"symbol": "ETH-USDT", "trades": 100}]


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "parquet", "arrow"])
def test_in_every_format_by_body_parameter_and_header(served: Served, form: str) -> None:
    media = {
        "json": "application/json",
        "ndjson": "application/x-ndjson",
        "csv": "text/csv",
        "parquet": "application/vnd.apache.parquet",
        "arrow": "application/vnd.apache.arrow.stream",
    }[form]
    by_body = served.post("/v1/sql", {"query": COUNTED, "format": form})
    by_parameter = served.post(f"/v1/sql?format={form}", {"query": COUNTED})
    by_header = served.post("/v1/sql", {"query": COUNTED}, {"Accept": media})
    for reply in (by_body, by_parameter, by_header):
        assert (reply.status, reply.headers["content-type"]) == (200, media)
        assert reply.body == by_body.body
    table = {"parquet": pq.read_table, "arrow": lambda raw: pa.ipc.open_stream(raw).read_all()}
    if form in table:
        assert [
            {**row, "symbol": str(row["symbol"])} for row in table[form](io.BytesIO(by_body.body)).to_pylist()
        ] == ROWS
    elif form == "json":
        assert by_body.json() == {"data": ROWS, "next": None}
    else:
        assert by_body.body.count(b"\n") == (3 if form == "csv" else 2)


def test_by_get(served: Served) -> None:
    assert served.get("/v1/sql?query=SELECT+1+AS+x").json() == {"data": [{"x": 1}], "next": None}
    assert served.get("/v1/sql?query=SHOW+TABLES+LIKE+'trades'").json()["data"] == [{"name": "trades"}]


def test_values(served: Served) -> None:
    query = "SELECT {n:Int64} + 1 AS n, {t:String} AS t, {l:Array(String)} AS l, {z:Nullable(String)} AS z"
    params: dict[str, Any] = {"n": 41, "t": "it's \\ {n:Int64}\n", "l": ["a'", "b"], "z": None}
    (row,) = served.post("/v1/sql", {"query": query, "params": params}).json()["data"]
    assert row == {"n": 42, "t": params["t"], "l": params["l"], "z": None}


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("SELECT nothing", 400, 47),
        ("SELEC 1", 400, 62),
        ("SELECT (1", 400, 62),
        ("SELECT 1; SELECT 2", 400, 62),
        ("-- nothing", 400, 62),
        ("SELECT 1 FORMAT CSV", 400, 62),
        ("SELECT 1 FORMAT CSV SETTINGS max_threads = 1", 400, 62),
        ("SELECT * FROM no_such_table", 400, 60),
        ("SELECT {x:UInt8}", 400, 456),
        ("SELECT throwIf(1)", 400, 395),
        ("DROP TABLE trades", 403, 164),
        ("SELECT * FROM system.processes", 403, 497),
    ],
)
def test_the_engines_errors(served: Served, query: str, status: int, code: int) -> None:
    reply = served.post("/v1/sql", {"query": query})
    document = reply.json()
    assert reply.headers["content-type"] == "application/problem+json"
    assert document["code"] == code or (code == 164 and document["code"] == 497), document
    assert document["status"] == reply.status == status
    assert document["detail"]
    assert document["remedy"]


def test_what_is_no_statement(served: Served) -> None:
    for body in (
        {},
        {"query": ""},
        {"query": 1},
        {"query": "SELECT 1", "more": 1},
        {"query": "SELECT 1", "format": "xls"},
    ):
        assert served.post("/v1/sql", body).status == 400
    assert served.post("/v1/sql", {"query": "SELECT 1", "params": {"bad name": 1}}).status == 400
