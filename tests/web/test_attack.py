"""What a person with SQL must not be able to do, by /v1/sql and by the store's own port as `reader`.

Each attack is refused, or ended by a limit; nothing is read that is not K2's, nothing written, and both live on.
"""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from tests.patience import PATIENCE_S
from tests.store.conftest import StoreProcess, start
from tests.store.wire import ask
from tests.web.serving import READER_PASSWORD, WebThread

from k2.config import load
from k2.store.server.functions import may_call, only_columns

SECRET = "the password of the machine is swordfish"
PORT = "{port}"

# Where `{file}` stands, the path of a file that holds SECRET is put; where `{out}` stands, one that must never exist.
READING = [
    "SELECT file('{file}')",
    "SELECT FILE('{file}')",
    "SELECT `file`('{file}')",
    "SELECT \"file\"('{file}')",
    "SELECT /* */ file /* */ ( /**/ '{file}')",
    "SELECT file--\n('{file}')",
    "SELECT\u00a0file('{file}')",
    "SELECT file\u2003('{file}')",
    "SELECT ｆｉｌｅ('{file}')",
    "SELECT file($${file}$$)",
    "SELECT file($a b${file}$a b$)",
    "SELECT 'a', $x$ ' $x$, file('{file}'), ' $x$ '",
    "SELECT arrayMap(x -> file(x), ['{file}'])",
    "SELECT arrayMap(file -> file, [file('{file}')])",
    "WITH file('{file}') AS f SELECT f",
    "WITH (SELECT file('{file}')) AS f SELECT f",
    "WITH f AS (SELECT file('{file}') AS x) SELECT x FROM f",
    "WITH RECURSIVE f AS (SELECT 1 AS n UNION ALL SELECT length(file('{file}')) FROM f) SELECT * FROM f",
    "SELECT * FROM (SELECT * FROM (SELECT file('{file}')))",
    "SELECT 1 WHERE file('{file}') = ''",
    "SELECT 1 HAVING file('{file}') != ''",
    "SELECT 1 ORDER BY file('{file}')",
    "SELECT 1 LIMIT length(file('{file}'))",
    "SELECT 1 LIMIT 1 BY file('{file}')",
    "SELECT 1 QUALIFY file('{file}') != ''",
    "SELECT sum(1) OVER (PARTITION BY file('{file}'))",
    "SELECT sum(1) OVER w WINDOW w AS (ORDER BY file('{file}'))",
    "SELECT 1 FROM numbers(1) ARRAY JOIN [file('{file}')] AS x",
    "SELECT 1 FROM numbers(1) AS a JOIN numbers(1) AS b ON file('{file}') = ''",
    "SELECT * REPLACE (file('{file}') AS number) FROM numbers(1)",
    "SELECT COLUMNS('number') APPLY (x -> file('{file}')) FROM numbers(1)",
    "SELECT * APPLY file FROM (SELECT '{file}' AS x)",
    "SELECT * APPLY (x -> file(x)) FROM (SELECT '{file}' AS x)",
    "SELECT * APPLY toString APPLY (file) FROM (SELECT '{file}' AS x)",
    "SELECT x.* APPLY file FROM (SELECT '{file}' AS x) AS x",
    "SELECT COLUMNS(x) APPLY file FROM (SELECT '{file}' AS x)",
    "SELECT number FROM numbers(1) ORDER BY number WITH FILL INTERPOLATE (number AS length(file('{file}')))",
    "SHOW TABLES FROM k2 WHERE file('{file}') LIKE '%swordfish%'",
    "SHOW TABLES FROM k2 WHERE throwIf(1, file('{file}'))",
    "SHOW TABLES FROM k2 LIKE '%' LIMIT length(file('{file}'))",
    "SHOW COLUMNS FROM commits FROM k2 WHERE file('{file}') LIKE '%swordfish%'",
    "SHOW INDEXES FROM commits FROM k2 WHERE file('{file}') LIKE '%swordfish%'",
    "SHOW/**/TABLES/**/FROM/**/k2/**/WHERE/**/length(file('{file}'))",
    "EXPLAIN AST SHOW TABLES FROM k2 WHERE file('{file}') != ''",
    "SELECT number FROM numbers(1) ORDER BY number WITH FILL FROM length(file('{file}'))",
    "SELECT CASE WHEN 1 THEN file('{file}') END",
    "SELECT if(1, file('{file}'), '')",
    "SELECT sumIf(length(file('{file}')), 1)",
    "SELECT arrayReduce('max', [file('{file}')])",
    "SELECT 1 UNION ALL SELECT length(file('{file}'))",
    "SELECT 1 INTERSECT SELECT length(file('{file}'))",
    "FROM numbers(1) SELECT file('{file}')",
    "(SELECT file('{file}'))",
    "EXPLAIN SELECT file('{file}')",
    "EXPLAIN SYNTAX SELECT file('{file}')",
    "EXPLAIN AST SELECT file('{file}')",
    "EXPLAIN QUERY TREE SELECT file('{file}')",
    "EXPLAIN PIPELINE SELECT * FROM file('{file}', 'LineAsString')",
    "EXPLAIN ESTIMATE SELECT * FROM file('{file}', 'LineAsString')",
    "EXPLAIN TABLE OVERRIDE file('{file}') PARTITION BY x",
    "DESCRIBE TABLE file('{file}')",
    "DESC file('{file}', 'LineAsString')",
    "DESCRIBE (SELECT file('{file}'))",
    "SELECT * FROM file('{file}', 'LineAsString')",
    "SELECT * FROM FILE('{file}', LineAsString)",
    "SELECT * FROM `file`('{file}', 'LineAsString')",
    "SELECT * FROM view(SELECT file('{file}'))",
    "SELECT 'x' IN file('{file}', 'LineAsString')",
    "SELECT 'x' IN (SELECT * FROM file('{file}', 'LineAsString'))",
    "SELECT * FROM `{file}`",
    "SELECT * FROM '{file}'",
    'SELECT * FROM "{file}"',
    "SELECT * FROM default.`{file}`",
    "SELECT * FROM k2.`{file}`",
    "SELECT 'x' IN default.`{file}`",
    "SHOW CREATE TABLE default.`{file}`",
    "DESCRIBE TABLE default.`{file}`",
    # structures: a default in one is evaluated by the engine
    "SELECT y FROM values('x UInt8, y String ALIAS file(\\'{file}\\')', 1)",
    "SELECT y FROM values('x UInt8, y ALIAS(file(\\'{file}\\'))', 1)",
    "SELECT y FROM values($$x UInt8, y String ALIAS file('{file}')$$, 1)",
    "SELECT y FROM values('x UInt8, y String DEFAULT file(\\'{file}\\')', (1, ''))",
    "SELECT 1 IN values('x UInt8, y String ALIAS file(\\'{file}\\')', 1)",
    "SELECT y FROM generateRandom('x UInt8, y String ALIAS file(\\'{file}\\')') LIMIT 1",
    "SELECT y FROM null('x UInt8, y String ALIAS file(\\'{file}\\')')",
    "SELECT * FROM format(JSONEachRow, 'x UInt8, y String DEFAULT file(\\'{file}\\')', '{{\"x\": 1}}')",
    "SELECT y FROM input('x UInt8, y String ALIAS file(\\'{file}\\')')",
    # settings of subqueries: the engine's readonly does not reach them
    "SELECT * FROM (SELECT 1 SETTINGS format_template_row = '{file}')",
    "SELECT * FROM (SELECT 1 SETTINGS readonly = 0)",
    "SELECT * FROM (SELECT 1 SETTINGS max_execution_time = 0)",
    "SELECT * FROM (SELECT 1 SETTINGS max_memory_usage = 0)",
    "SELECT * FROM (SELECT demangle('x') SETTINGS allow_introspection_functions = 1)",
    "WITH x AS (SELECT 1 SETTINGS max_execution_time = 0) SELECT * FROM x",
    "SELECT 1 IN (SELECT 1 SETTINGS max_memory_usage = 0)",
    "SELECT (SELECT 1 SETTINGS max_memory_usage = 0)",
    "SELECT * FROM view(SELECT 1 SETTINGS max_memory_usage = 0)",
    "SELECT 1 UNION ALL SELECT 1 SETTINGS max_memory_usage = 0",
    "SELECT 1 SETTINGS max_execution_time = 0",
    "SELECT 1 SETTINGS implicit_table_at_top_level = '{file}'",
    "EXPLAIN SELECT 1 SETTINGS max_execution_time = 0",
]
REACHING_OUT = [
    "SELECT * FROM url('http://127.0.0.1:{port}/', 'LineAsString')",
    "SELECT * FROM urlCluster('default', 'http://127.0.0.1:{port}/', 'LineAsString')",
    "SELECT * FROM remote('127.0.0.1:{port}', system.one)",
    "SELECT * FROM remoteSecure('127.0.0.1:{port}', system.one)",
    "SELECT * FROM cluster('default', system.one)",
    "SELECT * FROM clusterAllReplicas('default', system.one)",
    "SELECT * FROM s3('http://127.0.0.1:{port}/b/k', 'CSV')",
    "SELECT * FROM s3Cluster('default', 'http://127.0.0.1:{port}/b/k', 'CSV')",
    "SELECT * FROM gcs('http://127.0.0.1:{port}/b/k', 'CSV')",
    "SELECT * FROM azureBlobStorage('x', 'y', 'z')",
    "SELECT * FROM hdfs('hdfs://127.0.0.1:{port}/x', 'CSV')",
    "SELECT * FROM iceberg('http://127.0.0.1:{port}/x')",
    "SELECT * FROM icebergS3('http://127.0.0.1:{port}/x')",
    "SELECT * FROM icebergLocal('/')",
    "SELECT * FROM deltaLake('http://127.0.0.1:{port}/x')",
    "SELECT * FROM deltaLakeLocal('/')",
    "SELECT * FROM hudi('http://127.0.0.1:{port}/x')",
    "SELECT * FROM paimon('http://127.0.0.1:{port}/x')",
    "SELECT * FROM mysql('127.0.0.1:{port}', 'd', 't', 'u', 'p')",
    "SELECT * FROM postgresql('127.0.0.1:{port}', 'd', 't', 'u', 'p')",
    "SELECT * FROM mongodb('127.0.0.1:{port}', 'd', 'c', 'u', 'p', 'x Int8')",
    "SELECT * FROM redis('127.0.0.1:{port}', 'key', 'key String')",
    "SELECT * FROM sqlite('{file}', 't')",
    "SELECT * FROM odbc('DSN=x', 'd', 't')",
    "SELECT * FROM jdbc('x', 'd', 't')",
    "SELECT * FROM executable('id', 'TSV', 'x String')",
    "SELECT * FROM executable('/bin/sh -c id', 'TSV', 'x String')",
    "SELECT * FROM python('os')",
    "SELECT * FROM Python(os)",
    "SELECT * FROM arrowFlight('127.0.0.1:{port}', 'x')",
    "SELECT * FROM ytsaurus('http://127.0.0.1:{port}', '//x', 't', 'x Int8')",
    "SELECT * FROM filesystem('/')",
    "SELECT * FROM dictionary('x')",
    "SELECT * FROM merge('system', '.*')",
    "SELECT * FROM mergeTreeIndex(k2, silver_base)",
    "SELECT * FROM mergeTreeProjection(k2, silver_base, 'p')",
    "SELECT * FROM loop(system.one) LIMIT 1",
    "SELECT * FROM fuzzJSON('x')",
    "SELECT * FROM prometheusQuery(k2, t, 'up', now())",
    "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT 1))",
    "SELECT dictGet('d', 'a', 1)",
    "SELECT dictHas('d', 1)",
    "SELECT joinGet('k2.silver_base', 'price', 1)",
    "SELECT regionToName(1)",
    "SELECT hasColumnInTable('127.0.0.1:{port}', 'u', 'p', 'd', 't', 'c')",
    "SELECT catboostEvaluate('{file}', 1)",
    "SELECT evalMLMethod('x', 1)",
    "SELECT aiGenerate('x')",
    "SELECT aiEmbed('x')",
    "SELECT AIClassify('x', ['y'])",
    "SELECT eval('SELECT 1')",
    "SELECT sleep(3)",
    "SELECT sleepEachRow(1) FROM numbers(10)",
    "SELECT addressToLine(1)",
    "SELECT demangle('x')",
    "SELECT logTrace('x')",
    "SELECT getMacro('x')",
    "SELECT getServerSetting('path')",
    "SELECT getServerPort('http_port')",
    "SELECT showCertificate()",
    "SELECT hostName()",
    "SELECT fullHostName()",
    "SELECT FQDN()",
    "SELECT filesystemAvailable()",
    "SELECT fuzzQuery('SELECT 1')",
    "SELECT formatRow('Template', 1)",
    "SELECT generateSerialID('x')",
    "SELECT someFunctionOfTomorrow(1)",
    "SELECT __getScalar('x')",
    "SELECT arrayReduce('flameGraph', [1])",
]
LOOKING = [
    *(
        f"SELECT * FROM system.{table}"
        for table in (
            "query_log", "processes", "users", "roles", "grants", "zookeeper", "disks", "storage_policies", "clusters",
            "named_collections", "server_settings", "stack_trace", "trace_log", "text_log", "crash_log", "errors",
            "session_log", "quotas", "row_policies", "settings_profiles", "dictionaries", "models", "macros",
            "remote_data_paths", "detached_parts", "mutations", "certificates", "environment", "user_processes",
            "query_cache", "sessions", "tables_of_tomorrow",
        )
    ),
    "SELECT * FROM `system`.`processes`",
    'SELECT * FROM "system"."processes"',
    "SELECT * FROM system . processes",
    "SELECT * FROM system/**/./**/processes",
    "SELECT system.processes.query FROM system.processes",
    "SELECT * FROM view(SELECT * FROM system.processes)",
    "SELECT 1 IN system.processes",
    "SELECT 1 IN (SELECT query FROM system.processes)",
    "WITH p AS (SELECT * FROM system.users) SELECT * FROM p",
    "DESCRIBE TABLE system.users",
    "SHOW CREATE TABLE system.users",
    "EXISTS TABLE system.users",
    "SHOW PROCESSLIST",
    "SHOW GRANTS",
    "SHOW USERS",
    "SHOW ACCESS",
    "SHOW CLUSTERS",
    "SHOW DICTIONARIES FROM default",
    "SHOW TABLES FROM default",
    "SHOW CREATE USER default",
    "USE default",
    "USE system",
]  # fmt: skip
CHANGING = [
    "INSERT INTO k2.commits SELECT * FROM k2.commits",
    "INSERT INTO k2.commits VALUES (1)",
    "INSERT INTO FUNCTION file('{out}', 'CSV') SELECT 1",
    "INSERT INTO FUNCTION url('http://127.0.0.1:{port}/') SELECT 1",
    "WITH 1 AS x INSERT INTO k2.commits SELECT x",
    "(INSERT INTO k2.commits VALUES (1))",
    "EXPLAIN INSERT INTO k2.commits SELECT * FROM k2.commits",
    "SELECT 1 INTO OUTFILE '{out}'",
    "SELECT 1 INTO/**/OUTFILE '{out}'",
    "SELECT 1 INTO OUTFILE '{out}' FORMAT CSV",
    "(SELECT 1) INTO OUTFILE '{out}'",
    "SELECT 1 UNION ALL SELECT 2 INTO OUTFILE '{out}'",
    "EXPLAIN SELECT 1 INTO OUTFILE '{out}'",
    "SHOW TABLES INTO OUTFILE '{out}'",
    "DESCRIBE TABLE k2.commits INTO OUTFILE '{out}'",
    "CREATE TABLE k2.x (a UInt8) ENGINE = Memory",
    "CREATE TABLE k2.x ENGINE = File(CSV, '{out}') AS SELECT 1",
    "CREATE TEMPORARY TABLE x (a UInt8)",
    "CREATE TEMPORARY TABLE x (a String ALIAS file('{file}'))",
    "CREATE VIEW k2.x AS SELECT 1",
    "CREATE MATERIALIZED VIEW k2.x ENGINE = Memory AS SELECT 1",
    "CREATE DICTIONARY k2.x (a UInt8) PRIMARY KEY a SOURCE(FILE(path '{file}')) LAYOUT(FLAT()) LIFETIME(1)",
    "CREATE FUNCTION x AS a -> a",
    "CREATE DATABASE x",
    "CREATE USER x",
    "CREATE NAMED COLLECTION x AS a = 1",
    "CREATE WORKLOAD x",
    "DROP TABLE k2.commits",
    "DROP VIEW k2.trades",
    "DROP DATABASE k2",
    "UNDROP TABLE k2.commits",
    "TRUNCATE TABLE k2.commits",
    "TRUNCATE ALL TABLES FROM k2",
    "ALTER TABLE k2.commits DELETE WHERE 1",
    "ALTER TABLE k2.commits DROP PARTITION ALL",
    "ALTER TABLE k2.commits ADD COLUMN x UInt8",
    "ALTER USER default IDENTIFIED BY 'x'",
    "DELETE FROM k2.commits WHERE 1",
    "UPDATE k2.commits SET incarnation = 1 WHERE 1",
    "OPTIMIZE TABLE k2.commits FINAL",
    "RENAME TABLE k2.commits TO k2.x",
    "EXCHANGE TABLES k2.commits AND k2.loaders",
    "DETACH TABLE k2.commits",
    "ATTACH TABLE k2.x FROM '/tmp' (a UInt8) ENGINE = Memory",
    "BACKUP TABLE k2.commits TO File('{out}')",
    "RESTORE TABLE k2.commits FROM File('{out}')",
    "CHECK TABLE k2.commits",
    "KILL QUERY WHERE 1",
    "KILL QUERY WHERE user = 'default' SYNC",
    "KILL MUTATION WHERE 1",
    "SYSTEM SHUTDOWN",
    "SYSTEM KILL",
    "SYSTEM STOP MERGES",
    "SYSTEM FLUSH LOGS",
    "SYSTEM DROP MARK CACHE",
    "SYSTEM RELOAD CONFIG",
    "SYSTEM ENABLE FAILPOINT x",
    "SET readonly = 0",
    "SET max_execution_time = 0",
    "SET ROLE ALL",
    "SET DEFAULT ROLE NONE TO default",
    "GRANT ALL ON *.* TO reader",
    "REVOKE ALL ON *.* FROM default",
    "EXECUTE AS default SELECT 1",
    "BEGIN TRANSACTION",
    "COPY k2.commits TO '{out}'",
    "MOVE USER x TO y",
    "SELECT 1; DROP TABLE k2.commits",
    "SELECT 1;\n\n;SELECT 2",
    "SELECT 1 /* */; INSERT INTO k2.commits VALUES (3)",
    "SELECT ';'; SYSTEM SHUTDOWN",
    "SELECT $$;$$; SYSTEM SHUTDOWN",
    "SELECT $a b$;$a b$; SYSTEM SHUTDOWN",
    "SELECT 1 PARALLEL WITH DROP TABLE k2.commits",
    "DROP TABLE k2.commits PARALLEL WITH DROP TABLE k2.loaders",
]
# Ended by the limit of memory; the next by that of time.
BOMBS = [
    "SELECT range(1000000000)",
    "SELECT length(arrayMap(x -> x, range(100000000)))",
    "SELECT groupArray(number) FROM numbers(1000000000)",
    "SELECT groupUniqArray(number) FROM numbers_mt(1000000000)",
    "SELECT uniqExact(number) FROM numbers_mt(10000000000)",
    "SELECT repeat('x', 100000000), repeat('y', 900000000)",
    "SELECT space(1000000000)",
    "SELECT randomString(1000000000)",
    "SELECT arrayJoin(range(100000)) AS a, arrayJoin(range(100001)) AS b ORDER BY rand()",
    "SELECT number, count() FROM numbers_mt(1000000000) GROUP BY number",
    "SELECT * FROM numbers(1000000000) ORDER BY rand() LIMIT 1000000000",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count() FROM r",
]
ENDLESS = [
    "SELECT sum(number) FROM numbers_mt(100000000000000)",
    "SELECT count() FROM system.numbers",
    "SELECT max(sipHash64(number)) FROM numbers_mt(100000000000)",
    "SELECT count() FROM (SELECT arrayJoin(range(10000)) FROM numbers_mt(10000000))",
    "SELECT count() FROM numbers(1000000) AS a CROSS JOIN numbers(1000000) AS b",
    "SELECT countIf(match(toString(number), '(1+)+(2+)+(3+)+$')) FROM numbers_mt(100000000000)",
]
DEEP = [
    "SELECT " + "(" * 5000 + "1" + ")" * 5000,
    "SELECT " + "[" * 5000 + "1" + "]" * 5000,
    "SELECT " + "- " * 3000 + "1",
    "SELECT " + "NOT " * 3000 + "1",
    "SELECT 1" + "+1" * 3000,
    "SELECT " + "abs(" * 2000 + "1" + ")" * 2000,
    "SELECT 1" + "::Int8" * 2000,
    "SELECT * FROM " + "(SELECT * FROM " * 2000 + "system.one" + ")" * 2000,
    "SELECT CAST([], '" + "Array(" * 5000 + "Int8" + ")" * 5000 + "')",
    "SELECT " + "CASE WHEN 1 THEN " * 1500 + "1" + " END" * 1500,
    "SELECT 1 AS a0, " + ", ".join(f"a{i} + a{i} AS a{i + 1}" for i in range(60)),
    "SELECT " + "".join(f"${n}" for n in range(3000)),
    "SELECT 1 /*" + "x" * 300_000 + "*/",
    "SELECT '" + "x" * 262_144 + "'",
]


class Target:
    """Both doors to the same store. `stolen`: what no answer may hold."""

    def __init__(self, store: StoreProcess, web: WebThread, folder: Path) -> None:
        self.store, self.web = store, web
        self.file, self.out = folder / "secret.txt", folder / "written"
        self.file.write_text(SECRET)

    def filled(self, sql: str) -> str:
        return sql.replace("{file}", str(self.file)).replace("{out}", str(self.out)).replace(PORT, str(self.store.port))

    def by_store(self, sql: str, **params: str) -> tuple[int, bytes]:
        reply = ask(self.store.port, sql.encode(), user="reader", password=READER_PASSWORD, timeout=60, **params)
        return reply.status, reply.body

    def by_web(self, sql: str) -> tuple[int, bytes]:
        reply = self.web.post("/v1/sql", {"query": sql})
        return reply.status, reply.body

    def alive(self) -> bool:
        answer = (200, b'{"data":[{"x":1}],"next":null}\n')
        return self.by_store("SELECT 1")[1] == b"1\n" and self.by_web("SELECT 1 AS x") == answer


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A store of its own with small limits, and a web before it."""
    folder = tmp_path_factory.mktemp("attacked")
    limits = {"K2_STORE_MAX_EXECUTION_S": "1.5", "K2_STORE_MAX_MEMORY_MB": "600"}
    store = start(folder / "data", **limits)
    environ = {
        "K2_DATA": str(folder / "data"),
        "K2_STORE_PORT": str(store.port),
        "K2_STORE_READONLY_PASSWORD": READER_PASSWORD,
        "K2_WEB_RATE_PER_S": "0",
        "K2_WEB_SQL_S": "1",
        "K2_WEB_SQL_MEMORY_MB": "100",
    }
    web = WebThread(load(environ=environ))
    yield Target(store, web, folder)
    web.close()
    assert store.stop() == 0


def state(target: Target) -> list[tuple[object, ...]]:
    """All tables there are, and what the bookkeeping ones hold."""
    client = target.store.client()
    try:
        tables = client.rows(
            "SELECT database, name, toString(metadata_modification_time) FROM system.tables"
            " WHERE database NOT IN ('system', 'information_schema', 'INFORMATION_SCHEMA') ORDER BY 1, 2"
        )
        others = client.rows(
            "SELECT name FROM system.databases UNION ALL SELECT name FROM system.functions WHERE origin != 'System'"
        )
        return [*tables, *sorted(others), *client.rows("SELECT count(), max(generation) FROM k2.commits")]
    finally:
        client.close()


@pytest.mark.parametrize("attacks", [READING, REACHING_OUT, LOOKING, CHANGING], ids=["read", "reach", "look", "change"])
def test_refused_at_both_doors(target: Target, attacks: list[str]) -> None:
    before = state(target)
    for attack in attacks:
        sql = target.filled(attack)
        for status, body in (target.by_store(sql), target.by_web(sql)):
            assert status in (400, 403, 404, 422, 500), (sql, body)
            assert SECRET.encode() not in body, sql
            if status == 500:  # the store's status for READONLY, INTO OUTFILE, and functions that are off
                assert any(b"Code: %d." % code in body for code in (1, 36, 164, 446)), (sql, body)
    assert state(target) == before
    assert not target.out.exists()
    assert target.alive()


@pytest.mark.parametrize("door", ["store", "web"])
@pytest.mark.parametrize(
    "bombs",
    [BOMBS[::3], ENDLESS[:1], pytest.param([*BOMBS, *ENDLESS], marks=pytest.mark.slow)],
    ids=["size", "time", "all"],
)
def test_bombs_are_ended_by_a_limit(target: Target, door: str, bombs: list[str]) -> None:
    for sql in bombs:
        status, body = target.by_web(sql) if door == "web" else target.by_store(sql, max_memory_usage="100000000")
        assert status != 200 or b"__exception__" in body, (sql, body[:200])
        if door == "web":
            assert json.loads(body)["code"] in (69, 128, 131, 159, 160, 173, 241, 306, 307, 396), (sql, body)
    assert target.alive()


def test_depth_and_size(target: Target) -> None:
    for sql in DEEP:
        for status, body in (target.by_store(sql), target.by_web(sql)):
            assert status in (400, 413, 422, 500), (sql[:60], body[:200])
    assert target.alive()


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("SELECT * FROM {d:Identifier}.{t:Identifier}", {"d": "system", "t": "processes"}),
        ("SELECT * FROM {t:Identifier}", {"t": "system.processes"}),
        ("SELECT * FROM {t:Identifier}", {"t": "`system`.`users`"}),
        ("SELECT * FROM default.{t:Identifier}", {"t": "/etc/passwd"}),
        ("SELECT {f:Identifier}('/etc/passwd')", {"f": "file"}),
        ("SELECT file({f:String})", {"f": "/etc/passwd"}),
        ("SELECT * FROM url({f:String}, 'CSV')", {"f": "http://127.0.0.1:1/"}),
        ("SELECT {x:UInt8}", {"x": "1) UNION ALL SELECT file('/etc/passwd') --"}),
        ("SELECT {x:Array(UInt8)}", {"x": "[1], file('/etc/passwd')"}),
        ("SELECT {x:String SETTINGS readonly = 0}", {"x": "1"}),
    ],
)
def test_parameters_smuggle_nothing(target: Target, query: str, params: dict[str, str]) -> None:
    reply = target.web.post("/v1/sql", {"query": query, "params": params})
    assert reply.status in (400, 403), reply.body
    status, body = target.by_store(query, **{f"param_{name}": text for name, text in params.items()})
    assert status != 200
    assert b"root:" not in body + reply.body


def test_text_stays_text(target: Target) -> None:
    hostile = "'; DROP TABLE k2.commits --\\' \t\n$$ {x:String}"
    reply = target.web.post("/v1/sql", {"query": "SELECT {x:String} AS x", "params": {"x": hostile}})
    assert reply.json()["data"] == [{"x": hostile}]


def test_limits_are_those_of_the_settings(target: Target) -> None:
    query = (
        "SELECT getSetting('max_execution_time') AS s, getSetting('max_memory_usage') AS m, getSetting('readonly') AS r"
    )
    (row,) = target.web.post("/v1/sql", {"query": query}).json()["data"]
    assert (float(row["s"]), int(row["m"]), int(row["r"])) == (1, 100 << 20, 1)


def test_a_session_shows_no_more_than_one_request(target: Target) -> None:
    for first, database in (("SELECT 1", "system"), ("USE system", ""), ("USE default", "")):
        session = {"session_id": f"s{abs(hash((first, database)))}"}
        target.by_store(first, **session, **({"database": database} if database else {}))
        for table in ("processes", "users", "`/etc/passwd`"):
            status, body = target.by_store(f"SELECT * FROM {table}", **session)
            assert status in (403, 404), body
    assert target.by_store("SELECT count() >= 0 FROM trades", session_id="s", database="k2") == (200, b"1\n")


@pytest.mark.parametrize(
    ("structure", "form"),
    [
        ("x UInt8, y String DEFAULT file('{file}')", "JSONEachRow"),
        ("x UInt8, y String ALIAS file('{file}')", "JSONEachRow"),
        ("x UInt8, y MATERIALIZED file('{file}')", "JSONEachRow"),
        ("x UInt8, y ALIAS(file('{file}'))", "JSONEachRow"),
        ("x String) ENGINE = File(LineAsString, '{file}') --", "TSV"),
        ("x Tuple(a String)) ENGINE = File(LineAsString, '{file}') /*", "TSV"),
        ("x String) ENGINE = Memory AS SELECT file('{file}') AS x --", "TSV"),
        ("x String) ENGINE = Memory AS SELECT file('{file}') AS x #", "TSV"),
        ("x String TTL now() + length(file('{file}'))", "TSV"),
        ("x UInt8", "JSONEachRow\n{}"),
        ("x UInt8", "CSV SETTINGS format_csv_delimiter = ';'"),
    ],
)
def test_tables_that_come_along_hold_only_columns(target: Target, structure: str, form: str) -> None:
    body = b'--edge\r\nContent-Disposition: form-data; name="t"; filename="t"\r\n\r\n{"x":1}\n\r\n--edge--\r\n'
    asked = {
        "query": "SELECT * FROM t",
        "t_structure": target.filled(structure),
        "t_format": form,
        "user": "reader",
        "password": READER_PASSWORD,
    }
    connection = http.client.HTTPConnection("127.0.0.1", target.store.port, timeout=PATIENCE_S)
    connection.request("POST", "/?" + urlencode(asked), body, {"Content-Type": "multipart/form-data; boundary=edge"})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    assert answer.status in (400, 403, 404), text
    assert SECRET.encode() not in text


TYPES = frozenset(
    ("uint8", "string", "tuple", "array", "enum8", "datetime64", "decimal", "nullable", "map", "lowcardinality")
)


@pytest.mark.parametrize(
    "text",
    [
        "x UInt8",
        "x UInt8, `a b` String",
        "a Array(Tuple(b String, c Nullable(UInt8))), d Map(String, UInt8)",
        "e Enum8('a' = 1, 'b' = -2), f DateTime64(9, 'UTC'), g Decimal(38, 18)",
        "h LowCardinality(Nullable(String))",
    ],
)
def test_structures(text: str) -> None:
    assert only_columns(text, TYPES)


@pytest.mark.parametrize(
    "text",
    ["", "x", "x Unknown", "x UInt8 DEFAULT 1", "x UInt8 CODEC(ZSTD)", "x Array(UInt8", "x Array(UInt8))",
     "x Array(f())",
     "x String -- y",
     "x Tuple(a UInt8) y (b UInt8)", "x DEFAULT(1)", "x Enum8('a\\'' = 1)", "x UInt8,", "x Array(1 -- 2)"],
)  # fmt: skip
def test_no_structures(text: str) -> None:
    assert not only_columns(text, TYPES)


def test_the_list_of_functions_and_the_engine(target: Target) -> None:
    client = target.store.client()
    rows = client.rows("SELECT name, alias_to FROM system.functions")
    client.close()
    known = {name for name, _ in rows}
    refused = {name for name, alias in rows if not alias and not may_call(name)}
    families = (
        "file",
        "dict",
        "ai",
        "sleep",
        "address",
        "joinGet",
        "region",
        "__",
        "timeSeries",
        "filesystem",
        "getServer",
    )
    assert {name for name in known if name.startswith(families) and may_call(name)} == set()
    assert {"plus", "CAST", "sum", "toDateTime", "arrayMap", "version", "row_number", "getSetting"}.isdisjoint(refused)
    assert all(may_call(name) for name in ("sumIf", "quantilesTDigestArrayIf", "uniqExactMergeState", "argMaxOrNull"))
    assert not any(may_call(name) for name in ("fileIf", "sleepState", "", "ArrayIf", "sumFile", "eval"))
