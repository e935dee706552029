"""What a read-only account may not do, as a list of attacks, and what it must be able to do."""

import http.client
from pathlib import Path
from urllib.parse import urlencode

import pytest
from tests.store.conftest import READER_PASSWORD, StoreProcess
from tests.store.wire import Reply, ask

from k2.store import StoreError
from k2.store.clickhouse import ClickHouseStore

SECRET = "/etc/hostname"

ATTACKS = [
    f"SELECT file('{SECRET}')",
    f"SELECT File('{SECRET}')",
    f"SELECT `file`('{SECRET}')",
    f"SELECT /* file */ file /**/ ('{SECRET}')",
    f"SELECT arrayMap(x -> file(x), ['{SECRET}'])",
    f"SELECT * FROM (SELECT file('{SECRET}') AS f)",
    f"WITH (SELECT file('{SECRET}')) AS f SELECT f",
    f"SELECT 1 WHERE 'a' = file('{SECRET}')",
    f"SELECT 1 ORDER BY file('{SECRET}')",
    f"SELECT count() FROM numbers(1) GROUP BY file('{SECRET}')",
    f"SELECT 1 UNION ALL SELECT length(file('{SECRET}'))",
    f"(SELECT file('{SECRET}'))",
    f"EXPLAIN SELECT file('{SECRET}')",
    f"EXPLAIN PLAN SELECT * FROM file('{SECRET}', 'LineAsString')",
    f"DESCRIBE TABLE file('{SECRET}')",
    f"DESCRIBE (SELECT file('{SECRET}'))",
    f"DESC file('{SECRET}')",
    f"SELECT * FROM file('{SECRET}', 'LineAsString')",
    f"SELECT * FROM numbers(1) AS n JOIN file('{SECRET}', 'LineAsString') AS f ON 1",
    f"SELECT 1 IN (SELECT 1 FROM file('{SECRET}', 'LineAsString'))",
    f"SELECT 'x' IN file('{SECRET}', 'LineAsString')",
    f"SELECT * FROM view(SELECT * FROM file('{SECRET}', 'LineAsString'))",
    f"SELECT * FROM `{SECRET}`",
    f"SELECT * FROM '{SECRET}'",
    f"SELECT * FROM default.`{SECRET}`",
    f"SELECT 'x' IN default.`{SECRET}`",
    f"SELECT * FROM fileCluster('default', '{SECRET}')",
    "SELECT * FROM filesystem('/etc')",
    "SELECT * FROM url('http://127.0.0.1/', 'LineAsString')",
    "SELECT * FROM s3('http://127.0.0.1/x')",
    "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM remoteSecure('127.0.0.1', system.one)",
    "SELECT * FROM cluster('default', system.one)",
    "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT * FROM postgresql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT * FROM sqlite('/etc/hostname', 't')",
    "SELECT * FROM executable('id', 'TSV', 'x String')",
    "SELECT * FROM python('os')",
    "SELECT * FROM Python(os)",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT * FROM icebergLocal('/tmp')",
    "SELECT * FROM deltaLakeLocal('/tmp')",
    "SELECT * FROM merge('system', 'processes')",
    "SELECT * FROM loop(system.one) LIMIT 1",
    "SELECT * FROM dictionary('x')",
    "SELECT * FROM odbc('DSN=x', 't')",
    "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT 1))",
    "SELECT aiGenerate('x')",
    "SELECT hasColumnInTable('127.0.0.1', 'u', 'p', 'd', 't', 'c')",
    "SELECT getServerSetting('path')",
    "SELECT * FROM system.processes",
    "SELECT * FROM system.named_collections",
    "SELECT * FROM system.server_settings",
    "SELECT * FROM system.stack_trace",
    "SELECT * FROM system.users",
    "SELECT 'x' IN system.server_settings",
    "SHOW PROCESSLIST",
    "SHOW TABLES FROM default",
    f"SHOW CREATE TABLE default.`{SECRET}`",
    f"EXISTS TABLE default.`{SECRET}`",
    "SHOW GRANTS",
    "SHOW ACCESS",
    "USE default",
    "SELECT 1 INTO OUTFILE '/tmp/k2-reader-wrote'",
    "EXPLAIN SELECT 1 INTO OUTFILE '/tmp/k2-reader-wrote'",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS max_execution_time = 0",
    "SELECT 1 FORMAT TSV SETTINGS max_rows_in_join = 0",
    "SET readonly = 0",
    "SET max_memory_usage = 0",
    "SET ROLE ALL",
    "KILL QUERY WHERE 1",
    "SYSTEM FLUSH LOGS",
    "SYSTEM SHUTDOWN",
    "SYSTEM DROP MARK CACHE",
    "INSERT INTO k2.guarded VALUES (2)",
    "INSERT INTO k2.guarded SELECT 2",
    f"INSERT INTO FUNCTION file('/tmp/k2-reader-wrote') SELECT 1",  # noqa: F541 - reads like its neighbours
    "WITH 1 AS x INSERT INTO k2.guarded SELECT x",
    "CREATE TABLE k2.reader_made (a UInt8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE mine (a UInt8)",
    "CREATE VIEW k2.v AS SELECT 1",
    "CREATE FUNCTION f AS x -> x",
    "CREATE DATABASE d",
    "DROP TABLE k2.guarded",
    "TRUNCATE TABLE k2.guarded",
    "ALTER TABLE k2.guarded DELETE WHERE 1",
    "DELETE FROM k2.guarded WHERE 1",
    "UPDATE k2.guarded SET a = 1 WHERE 1",
    "OPTIMIZE TABLE k2.guarded",
    "RENAME TABLE k2.guarded TO k2.other",
    "EXCHANGE TABLES k2.guarded AND k2.other",
    "DETACH TABLE k2.guarded",
    "ATTACH TABLE k2.guarded",
    "CHECK TABLE k2.guarded",
    "BACKUP TABLE k2.guarded TO File('/tmp/k2-reader-backup')",
    "RESTORE TABLE k2.guarded FROM File('/tmp/k2-reader-backup')",
    "GRANT ALL ON *.* TO reader",
    "EXECUTE AS default SELECT 1",
    "BEGIN TRANSACTION",
    "COPY k2.guarded TO '/tmp/k2-reader-wrote'",
    "SELECT 1; DROP TABLE k2.guarded",
    "SELECT 1 /* */; INSERT INTO k2.guarded VALUES (3)",
]

WORK = [
    ("SELECT count() FROM guarded", "1\n"),
    ("SELECT a FROM k2.guarded WHERE a IN (SELECT number FROM numbers(5))", "1\n"),
    ("WITH x AS (SELECT * FROM guarded) SELECT sum(a) OVER (PARTITION BY a ORDER BY a) FROM x", "1\n"),
    ("SELECT format('{}-{}', 'a', 'b'), path('http://x/y'), url FROM (SELECT 'u' AS url)", "a-b\t/y\tu\n"),
    ("SELECT * FROM values('a UInt8', 1, 2) ORDER BY a", "1\n2\n"),
    ("SELECT * EXCEPT (a), COLUMNS('a') FROM guarded", "1\n"),
    ("SELECT arrayMap(x -> x + 1, [1, 2]), (1, 'a').2, CAST('1' AS Int8), interval_x FROM (SELECT 3 AS interval_x)", "[2,3]\ta\t1\t3\n"),  # noqa: E501
    ("SELECT '\nFunction file (children 1)\n' = 'x'", "0\n"),
    ("SELECT name FROM system.columns WHERE database = 'k2' AND table = 'guarded'", "a\n"),
    ("EXISTS TABLE k2.guarded", "1\n"),
    ("DESCRIBE TABLE guarded", "a\tUInt8\t\t\t\t\t\n"),
    ("SHOW TABLES LIKE 'guarded'", "guarded\n"),
    ("SELECT toStartOfMinute(toDateTime64('2026-01-01 00:00:30', 3)) AS m, count() GROUP BY m WITH TOTALS", None),
    ("EXPLAIN indexes = 1 SELECT * FROM guarded WHERE a = 1", None),
    ("SHOW CREATE TABLE guarded", None),
    ("SHOW DATABASES", None),
    ("SHOW COLUMNS FROM guarded", None),
    ("SELECT * FROM generateSeries(1, 3) LIMIT 1 BY 1", None),
]  # fmt: skip


@pytest.fixture(autouse=True)
def guarded(client: ClickHouseStore) -> None:
    client.execute("CREATE TABLE IF NOT EXISTS k2.guarded (a UInt8) ENGINE = MergeTree ORDER BY a")
    if client.rows("SELECT count() FROM k2.guarded") == [(0,)]:
        client.execute("INSERT INTO k2.guarded VALUES (1)")


def read(store: StoreProcess, sql: str, **params: str) -> Reply:
    return ask(store.port, sql.encode(), user="reader", password=READER_PASSWORD, **params)


@pytest.mark.parametrize("sql", ATTACKS)
def test_attack(store: StoreProcess, client: ClickHouseStore, sql: str) -> None:
    before = client.rows("SELECT name, toString(metadata_modification_time) FROM system.tables WHERE database = 'k2'")
    for session in ({}, {"session_id": f"attack {abs(hash(sql))}"}):
        reply = read(store, sql, **session)
        assert reply.code in (164, 497, 60, 62, 1), reply.body
        assert Path(SECRET).read_bytes().strip() not in reply.body
    assert client.rows("SELECT a FROM k2.guarded") == [(1,)]
    after = client.rows("SELECT name, toString(metadata_modification_time) FROM system.tables WHERE database = 'k2'")
    assert [row for row in before if "guarded" in row[0]] == [row for row in after if "guarded" in row[0]]
    assert not Path("/tmp/k2-reader-wrote").exists()
    assert not Path("/tmp/k2-reader-backup").exists()


@pytest.mark.parametrize(("sql", "answer"), WORK)
def test_work(store: StoreProcess, sql: str, answer: str | None) -> None:
    for session in ({}, {"session_id": f"work {abs(hash(sql))}"}):
        reply = read(store, sql, **session)
        assert reply.status == 200, reply.body
        assert answer is None or reply.body == answer.encode()


@pytest.mark.parametrize(
    "params",
    [
        {"readonly": "0"},
        {"max_execution_time": "0"},
        {"max_memory_usage": "0"},
        {"allow_introspection_functions": "1"},
        {"format_schema": "/etc/hostname"},
        {"database": "default"},
        {"param_t": SECRET, "query": "SELECT * FROM {t:Identifier}", "database": "default"},
    ],
)
def test_parameters_that_reach_too_far(store: StoreProcess, params: dict[str, str]) -> None:
    reply = read(store, "" if "query" in params else "SELECT getSetting('readonly')", **params)
    assert reply.code in (164, 497) or reply.body == b"1\n"


def test_an_identifier_parameter_is_judged_by_what_it_names(store: StoreProcess) -> None:
    query = "SELECT count() FROM {d:Identifier}.{t:Identifier}"
    assert read(store, query, param_d="k2", param_t="guarded").body == b"1\n"
    assert read(store, query, param_d="default", param_t=SECRET).code == 497
    assert read(store, query, param_d="system", param_t="processes").code == 497
    assert read(store, query, param_d="k2", param_t="guarded").body == b"1\n"


def test_limits_hold(store: StoreProcess) -> None:
    query = "SELECT getSetting('max_execution_time'), getSetting('max_memory_usage'), getSetting('readonly')"
    for tail in ("", " FORMAT TSV SETTINGS max_execution_time = 0, max_memory_usage = 0, max_execution_time = 1e9"):
        seconds, memory, mode = read(store, query + tail).body.split()
        assert float(seconds) == 120
        assert int(memory) == 2048 << 20
        assert mode == b"1"
    assert read(store, query, max_execution_time="7", max_memory_usage="1000000000").body == b"7\t1000000000\t1\n"
    assert read(store, "SELECT 1 AS x", max_result_rows="7", output_format_json_quote_64bit_integers="1").code == 0


def test_k2s_own_client_reads_too(store: StoreProcess) -> None:
    client = store.client("reader", READER_PASSWORD)
    assert client.rows("SELECT a, 1.5::Decimal(9, 2) FROM guarded") == [(1, "1.5")]
    with pytest.raises(StoreError) as error:
        client.rows("SELECT 1 FORMAT TSV SETTINGS max_memory_usage = 0, extremes = 1 --")
    assert error.value.code in (62, 164)
    client.close()


def test_external_data_are_tables_for_readers_too(store: StoreProcess) -> None:
    body = b'--edge\r\nContent-Disposition: form-data; name="mine"; filename="mine"\r\n\r\n1\n2\n\r\n--edge--\r\n'
    target = {
        "query": "SELECT sum(x) FROM mine",
        "mine_structure": "x UInt8",
        "user": "reader",
        "password": READER_PASSWORD,
    }
    connection = http.client.HTTPConnection("127.0.0.1", store.port)
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    connection.request("POST", "/?" + urlencode(target), body, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    assert (answer.status, text) == (200, b"3\n")
