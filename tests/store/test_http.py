"""The HTTP interface as its documentation tells it: parameters, headers, status codes, packings, sessions, bounds."""

import gzip
import http.client
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable

import lz4.block
import lz4.frame
import pytest
from tests.patience import PATIENCE_S
from tests.store.conftest import READER_PASSWORD, StoreProcess
from tests.store.wire import Reply, ask

from k2.store.clickhouse import ClickHouseStore
from k2.store.server.cityhash import cityhash128


def frame(data: bytes) -> bytes:
    """Data as one of ClickHouse's compressed frames, LZ4."""
    packed = lz4.block.compress(data, store_size=False)
    body = struct.pack("<BII", 0x82, len(packed) + 9, len(data)) + packed
    return cityhash128(body) + body


def unframed(body: bytes) -> bytes:
    """The data in frames, each checksum verified."""
    out = []
    while body:
        method, packed, size = struct.unpack_from("<BII", body, 16)
        assert body[:16] == cityhash128(body[16 : 16 + packed])
        data = body[25 : 16 + packed]
        out.append(lz4.block.decompress(data, uncompressed_size=size) if method == 0x82 else data)
        body = body[16 + packed :]
    return b"".join(out)


def test_ping_and_the_rest_of_the_map(store: StoreProcess) -> None:
    assert ask(store.port, path="/ping")[::2] == (200, b"Ok.\n")
    assert ask(store.port, path="/replicas_status")[::2] == (200, b"Ok.\n")
    assert ask(store.port)[::2] == (200, b"Ok.\n")
    assert ask(store.port, path="/nowhere").status == 404
    assert ask(store.port, b"", method="DELETE", query="SELECT 1").code == 1


def test_a_query_by_get_by_post_and_in_both_parts(store: StoreProcess) -> None:
    assert ask(store.port, query="SELECT 1").body == b"1\n"
    assert ask(store.port, b"SELECT 1").body == b"1\n"
    assert ask(store.port, b"1 + 1", query="SELECT").body == b"2\n"
    assert ask(store.port, b"SELECT 'a;b' -- the end;\n;", path="/query").body == b"a;b\n"


def test_headers_of_an_answer(store: StoreProcess) -> None:
    reply = ask(store.port, query="SELECT 1 AS x FORMAT JSON", query_id="an-id")
    assert reply.headers["x-clickhouse-query-id"] == "an-id"
    assert reply.headers["x-clickhouse-format"] == "JSON"
    assert reply.headers["x-clickhouse-timezone"] == "UTC"
    assert reply.headers["x-clickhouse-server-display-name"] == "k2"
    assert reply.headers["content-type"] == "application/json; charset=UTF-8"
    assert json.loads(reply.headers["x-clickhouse-summary"])["read_rows"] == "1"
    assert json.loads(reply.body)["data"] == [{"x": 1}]


def test_the_format_by_statement_by_header_by_parameter(store: StoreProcess) -> None:
    assert ask(store.port, query="SELECT 1 AS x", default_format="JSONEachRow").body == b'{"x":1}\n'
    assert ask(store.port, query="SELECT 1 AS x", headers={"X-ClickHouse-Format": "CSVWithNames"}).body == b'"x"\n1\n'
    assert ask(store.port, query="SELECT 1 AS x FORMAT TSV", default_format="JSON").body == b"1\n"
    assert ask(store.port, query="SELECT 1 FORMAT Nope").code == 73
    assert ask(store.port, query="SELECT 1", default_format="x' y").code == 73
    assert ask(store.port, query="SELECT 1 FORMAT TSV SETTINGS max_threads = 1").body == b"1\n"


def test_a_large_answer_is_one_document_in_every_format(store: StoreProcess) -> None:
    reply = ask(store.port, query="SELECT number AS n FROM numbers(300000) FORMAT JSON")
    assert len(json.loads(reply.body)["data"]) == 300_000
    reply = ask(store.port, query="SELECT number AS n FROM numbers(300000) FORMAT CSVWithNames")
    assert reply.body.count(b"n") == 1
    assert reply.body.count(b"\n") == 300_001


def test_parameters(store: StoreProcess) -> None:
    query = "SELECT {a:UInt8}, {b:String}, {c:Array(UInt8)}"
    assert ask(store.port, query=query, param_a="1", param_b="x\\ty", param_c="[1,2]").body == b"1\tx\\ty\t[1,2]\n"
    assert ask(store.port, query="SELECT {a:UInt8}").code == 456
    assert ask(store.port, query="SELECT {a:UInt8}", param_a="x").code == 457


def test_the_database_by_parameter_and_by_header(store: StoreProcess) -> None:
    assert ask(store.port, query="SELECT currentDatabase()", database="system").body == b"system\n"
    named = {"X-ClickHouse-Database": "k2"}
    assert ask(store.port, query="SELECT currentDatabase()", headers=named).body == b"k2\n"
    assert ask(store.port, query="SELECT currentDatabase()").body == b"default\n"
    reply = ask(store.port, query="SELECT 1", database="nope")
    assert (reply.status, reply.code) == (404, 81)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("SELECT nope", 404, 47),
        ("SELEC", 400, 62),
        ("SELECT 1; SELECT 2", 400, 62),
        ("SELECT * FROM k2.nope", 404, 60),
        ("SELECT throwIf(1)", 500, 395),
        ("SELECT sleepEachRow(1) FROM numbers(3) SETTINGS max_execution_time = 0.1", 408, 159),
        ("SELECT 1 INTO OUTFILE '/tmp/k2-never'", 500, 1),
    ],
)
def test_errors(store: StoreProcess, query: str, status: int, code: int) -> None:
    reply = ask(store.port, query.encode())
    assert (reply.status, reply.code) == (status, code)
    assert reply.body.startswith(f"Code: {code}. DB::Exception: ".encode())
    assert b"/dev/fd" not in reply.body
    assert b"query_id=" not in reply.body


def test_settings(store: StoreProcess) -> None:
    query = "SELECT getSetting('max_block_size')"
    assert ask(store.port, query=query, max_block_size="17").body == b"17\n"
    assert ask(store.port, query=query).body != b"17\n"
    assert ask(store.port, query="SELECT 1", no_such="1").code == 115
    assert ask(store.port, query="SELECT 1", max_threads="many").status == 400


def test_get_does_not_write(store: StoreProcess, table: str) -> None:
    for sql in (
        f"CREATE TABLE {table} (a UInt8) ENGINE = Memory",
        f"INSERT INTO {table} VALUES (1)",
        "SYSTEM FLUSH LOGS",
    ):
        for session in ({}, {"session_id": "get"}):
            assert ask(store.port, query=sql, **session).code == 164
    assert ask(store.port, query="SELECT 1", readonly="0").code == 0


def test_inserts(store: StoreProcess, client: ClickHouseStore, table: str) -> None:
    client.execute(f"CREATE TABLE {table} (a UInt32, s String) ENGINE = Memory")
    into = f"INSERT INTO {table}"
    ask(store.port, f"{into} VALUES (1, 'a;b'), (2, '--')".encode())
    ask(store.port, f"{into} FORMAT TSV\n3\tc\n4\td".encode())
    ask(store.port, b'{"a":5,"s":"e\\n\\n;"}', query=f"{into} FORMAT JSONEachRow")
    ask(store.port, b'{"a":6,"s":"f"}\n\n\n{"a":7,"s":"g"}\n', query=f"{into} FORMAT JSONEachRow")
    ask(store.port, b"VALUES (8, 'h')", query=into)
    ask(store.port, b"9,i\n", query=f"{into} (a, s) SETTINGS max_insert_block_size = 1 FORMAT CSV")
    ask(store.port, struct.pack("<I", 10) + b"\x03;\n\n", query=f"{into} FORMAT RowBinary")
    ask(store.port, f"{into} SELECT 11, 'k'".encode())
    ask(store.port, b"l\t12\n", query=f"{into} SELECT b, a FROM input('a String, b UInt32') FORMAT TSV")
    ask(
        store.port,
        b"13\tm\n",
        query="INSERT INTO {t:Identifier} FORMAT TSV",
        param_t=table.removeprefix("k2."),
        database="k2",
    )
    rows = client.rows(f"SELECT a, s FROM {table} ORDER BY a")
    letters = ["a;b", "--", "c", "d", "e\n\n;", "f", "g", "h", "i", ";\n\n", "k", "l", "m"]
    assert rows == list(enumerate(letters, 1))


def test_an_insert_that_fails_writes_nothing(store: StoreProcess, client: ClickHouseStore, table: str) -> None:
    client.execute(f"CREATE TABLE {table} (a UInt32) ENGINE = MergeTree ORDER BY a")
    into = f"INSERT INTO {table} FORMAT JSONEachRow"
    assert ask(store.port, b'{"a":1}\n{"a":"x"}\n', query=into).code == 27
    assert ask(store.port, b'{"a":1}\n' * 20_000 + b'{"a":"x"}\n', query=into).code == 27
    assert ask(store.port, b"", query=into).code == 108
    assert client.rows(f"SELECT count() FROM {table}") == [(0,)]


@pytest.mark.parametrize("rows", [5, 40_000])
@pytest.mark.parametrize("form", ["JSONEachRow", "TSV", "Values", "input"])
def test_what_could_not_be_stored_is_not_acknowledged(
    store: StoreProcess, client: ClickHouseStore, table: str, form: str, rows: int
) -> None:
    """A constraint and a materialized view, as an insert meets them after its data have been read."""
    values = {"JSONEachRow": b'{"a":%d}\n', "Values": b"(%d),"}.get(form, b"%d\n")
    data = b"".join(values % i for i in range(rows)).rstrip(b",")
    clause = "SELECT a FROM input('a UInt64') FORMAT TSV" if form == "input" else f"FORMAT {form}"
    client.execute(f"CREATE TABLE {table} (a UInt64, CONSTRAINT few CHECK a < 4) ENGINE = MergeTree ORDER BY a")
    assert ask(store.port, data, query=f"INSERT INTO {table} {clause}").code == 469
    client.execute(f"CREATE OR REPLACE TABLE {table} (a UInt64) ENGINE = Null")
    client.execute(f"CREATE MATERIALIZED VIEW {table}_view ENGINE = Memory AS SELECT throwIf(a = 4) AS x FROM {table}")
    assert ask(store.port, data, query=f"INSERT INTO {table} {clause}").code == 395
    client.execute(f"DROP TABLE {table}_view")


@pytest.mark.parametrize("rows", [5, 40_000])
@pytest.mark.parametrize("form", ["JSONEachRow", "TSV"])
def test_a_full_disk_is_an_error_and_passes(
    store: StoreProcess, client: ClickHouseStore, table: str, form: str, rows: int
) -> None:
    """The disk is as good as full when it has less than must stay free; the store leaves `keep_free_mb`, 256 MiB."""
    data = b"".join((b'{"a":%d}\n' if form == "JSONEachRow" else b"%d\n") % i for i in range(rows))
    client.execute(f"CREATE TABLE {table} (a UInt64) ENGINE = MergeTree ORDER BY a")
    into = f"INSERT INTO {table} FORMAT {form}"
    full = ask(store.port, data, query=into, min_free_disk_bytes_to_perform_insert=str(10**18))
    assert full.code == 243
    assert b"free" in full.body
    assert client.rows(f"SELECT count() FROM {table}") == [(0,)]
    assert ask(store.port, data, query=into).status == 200
    assert client.rows(f"SELECT count() FROM {table}") == [(rows,)]
    assert client.rows("SELECT keep_free_space FROM system.disks") == [(256 << 20,)]


def test_a_large_insert_goes_through_in_pieces(store: StoreProcess, client: ClickHouseStore, table: str) -> None:
    client.execute(f"CREATE TABLE {table} (a UInt64, s String) ENGINE = MergeTree ORDER BY a")
    head = f"INSERT INTO {table} FORMAT TSV\n".encode()
    pieces = [b"".join(b"%d\t%s\n" % (i, b"x" * 90) for i in range(n, n + 1000)) for n in range(0, 60_000, 1000)]
    connection = http.client.HTTPConnection("127.0.0.1", store.port, timeout=60)
    connection.request("POST", "/", iter([head, *pieces]), encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()
    assert client.rows(f"SELECT count(), sum(a) FROM {table}") == [(60_000, sum(range(60_000)))]


def test_an_insert_whose_client_goes_away_leaves_no_trace(
    store: StoreProcess, client: ClickHouseStore, table: str
) -> None:
    client.execute(f"CREATE TABLE {table} (a UInt64) ENGINE = Memory")
    query = f"/?query=INSERT+INTO+{table}+FORMAT+TSV"
    with socket.create_connection(("127.0.0.1", store.port)) as gone:
        gone.sendall(f"POST {query} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000\r\n\r\n".encode())
        gone.sendall(b"1\n" * 150_000)
        time.sleep(0.3)  # the store takes what has come
    assert _until(lambda: not client.rows(_RUNNING, {"what": f"INSERT INTO {table}%"}))
    assert client.rows(f"SELECT count() FROM {table}") == [(0,)]


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("lz4", lz4.frame.compress),
        ("gzip", lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:])),
    ],
)
def test_packed_requests(store: StoreProcess, name: str, pack: Callable[[bytes], bytes]) -> None:
    packed = {"Content-Encoding": name}
    assert ask(store.port, pack(b"SELECT 1 + 1"), headers=packed).body == b"2\n"
    assert ask(store.port, b"no such thing", headers=packed).code == 271
    assert ask(store.port, b"SELECT 1", headers={"Content-Encoding": "pigeon"}).code == 89


@pytest.mark.parametrize(
    ("name", "unpack"), [("gzip", gzip.decompress), ("deflate", zlib.decompress), ("lz4", lz4.frame.decompress)]
)
@pytest.mark.parametrize("rows", [3, 400_000])
def test_packed_answers(store: StoreProcess, name: str, unpack: Callable[[bytes], bytes], rows: int) -> None:
    query = f"SELECT number FROM numbers({rows})"
    reply = ask(store.port, query=query, headers={"Accept-Encoding": f"{name};q=0.9, pigeon"})
    assert reply.headers["content-encoding"] == name
    assert unpack(reply.body).count(b"\n") == rows
    plain = ask(store.port, query=query, enable_http_compression="0", headers={"Accept-Encoding": name})
    assert "content-encoding" not in plain.headers
    failed = ask(store.port, query="SELECT nope", headers={"Accept-Encoding": name})
    assert failed.body.startswith(b"Code: 47")


def test_clickhouses_own_frames(store: StoreProcess, client: ClickHouseStore, table: str) -> None:
    client.execute(f"CREATE TABLE {table} (a UInt32, s String) ENGINE = Memory")
    query = f"INSERT INTO {table} FORMAT TSV"
    assert ask(store.port, frame(b"1\tx\n") + frame(b"2\ty\n"), query=query, decompress="1").status == 200
    assert ask(store.port, b"9\tplain\n" * 9, query=query, decompress="1").code == 271
    assert unframed(ask(store.port, query=f"SELECT * FROM {table} ORDER BY a", compress="1").body) == b"1\tx\n2\ty\n"
    many = ask(store.port, query="SELECT number FROM numbers(200000)", compress="1")
    assert unframed(many.body).count(b"\n") == 200_000


def test_sessions(store: StoreProcess) -> None:
    mine = {"session_id": "mine"}
    assert ask(store.port, b"CREATE TEMPORARY TABLE t (a UInt8)", **mine).status == 200
    assert ask(store.port, b"INSERT INTO t VALUES (1)", **mine).status == 200
    assert ask(store.port, b"SELECT a FROM t", **mine).body == b"1\n"
    assert ask(store.port, b"SELECT a FROM t", session_id="other").code == 60
    assert ask(store.port, b"SELECT a FROM t").code == 60
    assert ask(store.port, b"SELECT 1", session_id="never", session_check="1").code == 372
    assert ask(store.port, b"SELECT 1", session_timeout="x", **mine).code == 374
    assert ask(store.port, b"SELECT 1", session_timeout="99999", **mine).code == 374
    assert ask(store.port, b"INSERT INTO t FORMAT TSV\nx\n", **mine).code == 27
    assert ask(store.port, b"SELECT getSetting('max_block_size')", max_block_size="9", **mine).body == b"9\n"
    assert ask(store.port, b"SELECT getSetting('max_block_size'), a FROM t", **mine).body != b"9\t1\n"
    assert ask(store.port, b"SELECT currentDatabase()", database="system", **mine).body == b"system\n"
    assert ask(store.port, b"USE k2", **mine).status == 200
    assert ask(store.port, b"SELECT currentDatabase()", **mine).body == b"k2\n"


def test_a_session_is_for_one_at_a_time(store: StoreProcess, client: ClickHouseStore) -> None:
    endless = b"SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) = 3"
    slow = threading.Thread(target=lambda: ask(store.port, endless, session_id="busy", query_id="nap"))
    slow.start()
    assert _until(lambda: client.rows(_RUNNING, {"what": "%/* query_id=nap */%"}))
    assert ask(store.port, b"SELECT 1", session_id="busy").code == 373
    assert ask(store.port, b"KILL QUERY WHERE query_id = 'nap' SYNC").status == 200
    slow.join(PATIENCE_S)
    assert ask(store.port, b"SELECT 1", session_id="busy").body == b"1\n"


def test_an_id_runs_once_and_can_be_killed(store: StoreProcess, client: ClickHouseStore) -> None:
    codes: list[int] = []
    slow = b"SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) = 3"
    thread = threading.Thread(target=lambda: codes.append(ask(store.port, slow, query_id="long").code))
    thread.start()
    assert _until(lambda: client.rows(_RUNNING, {"what": "%/* query_id=long */%"}))
    assert ask(store.port, b"SELECT 1", query_id="long").code == 216
    assert ask(store.port, b"KILL QUERY WHERE query_id = 'long' SYNC").status == 200
    thread.join(PATIENCE_S)
    assert codes == [394]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) = 3",
        "SELECT number, 'left alone' FROM numbers(100000000000)",
    ],
)
def test_a_client_that_goes_away_ends_its_query(store: StoreProcess, client: ClickHouseStore, query: str) -> None:
    with socket.create_connection(("127.0.0.1", store.port)) as gone:
        gone.sendall(f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(query)}\r\n\r\n{query}".encode())
        assert _until(lambda: client.rows(_RUNNING, {"what": f"{query[:60]}%"}))
    assert _until(lambda: not client.rows(_RUNNING, {"what": f"{query[:60]}%"}))


def test_waiting_for_the_end_turns_a_late_failure_into_an_error(store: StoreProcess) -> None:
    query = b"SELECT number, throwIf(number = 900000, 'late') FROM numbers(10000000)"
    reply = ask(store.port, query, wait_end_of_query="1")
    assert (reply.status, reply.code) == (500, 395)
    fine = ask(store.port, b"SELECT number FROM numbers(600000)", wait_end_of_query="1")
    assert fine.body.count(b"\n") == 600_000
    assert "x-clickhouse-summary" in fine.headers


def test_a_late_failure_breaks_off_the_body(store: StoreProcess) -> None:
    query = b"SELECT number, throwIf(number = 900000, 'late') FROM numbers(10000000)"
    with pytest.raises(http.client.IncompleteRead) as broken:
        ask(store.port, query)
    assert b"__exception__" in broken.value.partial
    assert b"Code: 395. DB::Exception: late" in broken.value.partial


def test_more_statements_than_may_wait_are_refused(store: StoreProcess) -> None:
    """Six readers' statements run, held up by clients that do not read; 64 wait; the next is told to come later."""
    query = b"SELECT number FROM numbers(1000000000)"
    head = f"POST /?user=reader&password={READER_PASSWORD} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    user = {"user": "reader", "password": READER_PASSWORD}
    crowd = []
    for _ in range(6 + 64):
        crowd.append(socket.create_connection(("127.0.0.1", store.port)))
        crowd[-1].sendall(f"{head}Content-Length: {len(query)}\r\n\r\n".encode() + query)
    assert _until(lambda: _times_out(lambda: ask(store.port, b"SELECT 1", timeout=0.5, **user)) == 202)
    for one in crowd:
        one.close()
    assert _until(lambda: ask(store.port, b"SELECT 1", **user).body == b"1\n")


def _times_out(request: Callable[[], Reply]) -> int:
    """The error code, or -1 where the request was left waiting."""
    try:
        return request().code
    except TimeoutError:
        return -1


def test_other_origins_and_other_names_are_refused(store: StoreProcess) -> None:
    for headers in (
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "rebound.example:8123"},
    ):
        reply = ask(store.port, b"SELECT 1", headers=headers)
        assert (reply.status, reply.code) == (403, 497)
    same = {"Origin": f"http://127.0.0.1:{store.port}"}
    assert ask(store.port, b"SELECT 1", headers=same).body == b"1\n"


_RUNNING = "SELECT query FROM system.processes WHERE query LIKE {what:String} AND query NOT LIKE '%system.processes%'"


def _until(true: Callable[[], object], seconds: float = PATIENCE_S) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return False
