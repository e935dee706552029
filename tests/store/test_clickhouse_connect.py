"""clickhouse-connect's public operations against a real store process: what its users do must work unchanged."""

import asyncio
import datetime
import decimal
from collections.abc import Iterator
from typing import Any

import clickhouse_connect
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.external import ExternalData
from tests.store.conftest import READER_PASSWORD, StoreProcess

COLUMNS = (
    "id UInt32, name String, price Decimal(38, 18), at DateTime64(9, 'UTC'), maybe Nullable(Int64), "
    "tags Array(String), side LowCardinality(String), facts Map(String, UInt8), pair Tuple(Int8, String), "
    "exact Float64, wide UInt256, key UUID"
)
NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
ROW = [
    7,
    "it's\ta 'name'\\",
    decimal.Decimal("105944.200000000000000001"),
    datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, datetime.UTC),
    None,
    ["a", "b'"],
    "buy",
    {"k": 1},
    (-1, "x"),
    0.1,
    2**200 + 1,
    "12345678-1234-5678-1234-567812345678",
]


@pytest.fixture
def connect(store: StoreProcess) -> Iterator[Client]:
    client = clickhouse_connect.get_client(host="127.0.0.1", port=store.port)
    yield client
    client.close()


@pytest.fixture
def wide(connect: Client, table: str) -> str:
    connect.command(f"CREATE TABLE {table} ({COLUMNS}) ENGINE = MergeTree ORDER BY id")
    return table


def code_of(error: pytest.ExceptionInfo[DatabaseError]) -> int | None:
    return error.value.code


def test_a_client_learns_the_server(connect: Client) -> None:
    assert connect.ping()
    assert connect.server_version.startswith("26.")
    assert str(connect.server_tz) == "UTC"
    assert connect.command("SELECT timezone()") == "UTC"


def test_query(connect: Client) -> None:
    answer = connect.query("SELECT number, toString(number) AS text FROM numbers(3)")
    assert answer.column_names == ("number", "text")
    assert answer.result_rows == [(0, "0"), (1, "1"), (2, "2")]
    assert answer.query_id
    assert connect.query("SELECT number FROM numbers(0)").result_rows == []
    assert connect.query("SELECT number AS n FROM numbers(9) LIMIT 0").column_names == ("n",)


def test_every_type_comes_back_as_it_went_in(connect: Client, wide: str) -> None:
    summary = connect.insert(wide, [ROW, [8, *ROW[1:]]])
    assert summary.written_rows == 2
    first, _ = connect.query(f"SELECT * FROM {wide} ORDER BY id").result_rows
    assert [str(value).removesuffix("+00:00") for value in first] == [str(v).removesuffix("+00:00") for v in ROW]


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip", True])
def test_compression_both_ways(store: StoreProcess, table: str, compress: Any) -> None:
    client = clickhouse_connect.get_client(host="127.0.0.1", port=store.port, compress=compress)
    client.command(f"CREATE TABLE {table} (a UInt64, s String) ENGINE = Memory")
    rows = [[i, f"row {i}"] for i in range(70_000)]
    client.insert(table, rows)
    assert client.query(f"SELECT a, s FROM {table} ORDER BY a").result_columns[1][-1] == "row 69999"
    assert client.query(f"SELECT sum(a), count() FROM {table}").result_rows == [(sum(range(70_000)), 70_000)]
    client.close()


def test_insert_by_columns_data_frame_and_arrow(connect: Client, table: str) -> None:
    connect.command(f"CREATE TABLE {table} (a UInt32, s String DEFAULT 'none') ENGINE = Memory")
    connect.insert(table, [[1, 2], ["x", "y"]], column_names=["a", "s"], column_oriented=True)
    connect.insert(table, [[3]], column_names=["a"])
    connect.insert_df(table, pd.DataFrame({"a": [4, 5], "s": ["p", "q"]}))
    connect.insert_arrow(table, pa.table({"a": pa.array([6], pa.uint32()), "s": ["r"]}))
    assert connect.query(f"SELECT * FROM {table} ORDER BY a").result_rows == [
        (1, "x"), (2, "y"), (3, "none"), (4, "p"), (5, "q"), (6, "r"),
    ]  # fmt: skip


def test_an_insert_context_is_used_again(connect: Client, table: str) -> None:
    connect.command(f"CREATE TABLE {table} (a UInt32) ENGINE = Memory")
    context = connect.create_insert_context(table, column_names=["a"], data=[[1]])
    connect.insert(context=context)
    context.data = [[2], [3]]
    connect.insert(context=context)
    assert connect.query(f"SELECT sum(a), count() FROM {table}").result_rows == [(6, 3)]


def test_raw_insert_and_raw_query(connect: Client, table: str) -> None:
    connect.command(f"CREATE TABLE {table} (a UInt32, s String) ENGINE = Memory")
    assert connect.raw_insert(table, ["a", "s"], "7,seven\n8,eight\n", fmt="CSV").written_rows == 2
    connect.raw_insert(table, ["a", "s"], b'{"a":9,"s":"nine"}\n', fmt="JSONEachRow")
    assert connect.raw_query(f"SELECT * FROM {table} ORDER BY a", fmt="CSV") == b'7,"seven"\n8,"eight"\n9,"nine"\n'
    stream = connect.raw_stream("SELECT number FROM numbers(300000)", fmt="TabSeparated")
    assert stream.read().count(b"\n") == 300_000


def test_data_frames_and_arrays(connect: Client) -> None:
    frame = connect.query_df("SELECT number AS n, toString(number) AS s FROM numbers(3)")
    assert list(frame["n"]) == [0, 1, 2]
    assert list(frame["s"]) == ["0", "1", "2"]
    assert np.array_equal(connect.query_np("SELECT number FROM numbers(3)"), np.array([[0], [1], [2]]))


def test_arrow(connect: Client) -> None:
    assert connect.query_arrow("SELECT number AS n, 'x' AS s FROM numbers(3)").to_pydict() == {
        "n": [0, 1, 2],
        "s": ["x"] * 3,
    }
    with connect.query_arrow_stream("SELECT number AS n FROM numbers(500000)") as stream:
        batches = list(stream)
    assert sum(batch.num_rows for batch in batches) == 500_000
    assert pa.Table.from_batches(batches)["n"][-1].as_py() == 499_999


def test_streams(connect: Client) -> None:
    with connect.query_row_block_stream("SELECT number FROM numbers(300000)") as stream:
        assert sum(len(block) for block in stream) == 300_000
    with connect.query_column_block_stream("SELECT number FROM numbers(300000)") as stream:
        assert sum(len(block[0]) for block in stream) == 300_000
    with connect.query_rows_stream("SELECT number FROM numbers(300000)") as stream:
        assert sum(row[0] for row in stream) == sum(range(300_000))
    with connect.query_df_stream("SELECT number AS n FROM numbers(300000)") as stream:
        assert sum(len(frame) for frame in stream) == 300_000


def test_parameters_bound_by_the_server(connect: Client) -> None:
    answer = connect.query(
        "SELECT {n:UInt32}, {s:String}, {l:Array(String)}, {d:DateTime}, {e:Nullable(String)}, {i:Identifier} FROM one",
        parameters={
            "n": 1, "s": "it's\t\\n\n", "l": ["a'b", "\\"], "d": NOON, "e": None, "i": "dummy",
        },
        settings={"database": "system"},
    )  # fmt: skip
    assert answer.result_rows == [(1, "it's\t\\n\n", ["a'b", "\\"], NOON.replace(tzinfo=None), None, 0)]


def test_parameters_bound_by_the_client(connect: Client) -> None:
    assert connect.query("SELECT %(a)s, %(s)s", parameters={"a": 1, "s": "it's"}).result_rows == [(1, "it's")]


def test_settings_of_a_query_end_with_it(connect: Client) -> None:
    query = "SELECT getSetting('max_block_size')"
    before = connect.query(query).result_rows
    assert connect.query(query, settings={"max_block_size": 1234}).result_rows == [(1234,)]
    assert connect.query(query).result_rows == before


def test_a_session_keeps_settings_and_temporary_tables(connect: Client) -> None:
    connect.command("CREATE TEMPORARY TABLE mine (a Int8)")
    connect.insert("mine", [[1], [2]])
    assert connect.query("SELECT sum(a) FROM mine").result_rows == [(3,)]
    connect.command("SET max_block_size = 777")
    assert connect.query("SELECT getSetting('max_block_size')").result_rows == [(777,)]


def test_sessions_are_apart(store: StoreProcess) -> None:
    one, other = (clickhouse_connect.get_client(host="127.0.0.1", port=store.port) for _ in range(2))
    one.command("CREATE TEMPORARY TABLE mine (a Int8)")
    with pytest.raises(DatabaseError) as error:
        other.query("SELECT * FROM mine")
    assert code_of(error) == 60
    one.close()
    other.close()


def test_external_data(connect: Client) -> None:
    data = ExternalData(file_name="pairs.csv", fmt="CSV", structure=["x UInt32", "y String"], data=b'1,"a"\n2,"b"\n')
    data.add_file(file_name="more.tsv", fmt="TSV", types=["UInt32", "Decimal(9, 2)"], data=b"5\t0.25\n")
    answer = connect.query("SELECT sum(x), (SELECT sum(_2) FROM more) FROM pairs", external_data=data)
    assert answer.result_rows == [(3, decimal.Decimal("0.25"))]


def test_commands_and_descriptions(connect: Client, wide: str) -> None:
    assert connect.command("SELECT 1 + 1") == 2
    assert connect.command(f"EXISTS TABLE {wide}") == 1
    assert connect.query(f"DESCRIBE TABLE {wide}").first_row[:2] == ("id", "UInt32")
    assert (wide.removeprefix("k2."),) in connect.query("SHOW TABLES FROM k2").result_rows
    assert "MergeTree" in connect.command(f"SHOW CREATE TABLE {wide}")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("SELECT nope", 47),
        ("SELECT * FROM k2.nope", 60),
        ("SELECT * FROM nope.nope", 81),
        ("SELEC 1", 62),
        ("SELECT 1; SELECT 2", 62),
        ("SELECT throwIf(1)", 395),
        ("SELECT nope(1)", 46),
        ("SELECT toUInt8('x')", 6),
        ("SELECT {x:UInt8}", 456),
    ],
)
def test_errors_carry_clickhouse_codes(connect: Client, query: str, code: int) -> None:
    with pytest.raises(DatabaseError) as error:
        connect.query(query)
    assert code_of(error) == code


def test_an_unknown_setting_is_an_error(connect: Client) -> None:
    with pytest.raises(DatabaseError) as error:
        connect.query("SELECT 1", settings={"no_such_setting": 1})
    assert code_of(error) == 115


def test_a_failure_in_mid_stream_is_an_error(connect: Client) -> None:
    query = "SELECT number, throwIf(number = 900000, 'told on the way') FROM numbers(10000000)"
    with pytest.raises(DatabaseError, match="told on the way") as error:
        connect.query(query)
    assert code_of(error) == 395


def test_insert_errors(connect: Client, wide: str) -> None:
    with pytest.raises(DatabaseError) as error:
        connect.raw_insert(wide, ["id"], b"not a number\n", fmt="TabSeparated")
    assert code_of(error) == 27
    with pytest.raises(DatabaseError) as error:
        connect.insert("k2.nope", [[1]], column_names=["a"], column_type_names=["UInt8"])
    assert code_of(error) == 60
    assert connect.query(f"SELECT count() FROM {wide}").result_rows == [(0,)]


def test_who_may_come_in(store: StoreProcess, connect: Client, table: str) -> None:
    connect.command(f"CREATE TABLE {table} (a UInt8) ENGINE = Memory")
    reader = clickhouse_connect.get_client(
        host="127.0.0.1", port=store.port, username="reader", password=READER_PASSWORD
    )
    assert reader.query(f"SELECT count() FROM {table}").result_rows == [(0,)]
    with pytest.raises(DatabaseError) as error:
        reader.insert(table, [[1]])
    assert code_of(error) == 164
    reader.close()
    for user, password in (("default", "wrong"), ("nobody", ""), ("reader", "")):
        with pytest.raises(DatabaseError) as error:
            clickhouse_connect.get_client(host="127.0.0.1", port=store.port, username=user, password=password)
        assert code_of(error) == 516


def test_the_async_client(store: StoreProcess, table: str) -> None:
    async def use() -> list[Any]:
        client = await clickhouse_connect.get_async_client(
            host="127.0.0.1", port=store.port, autogenerate_session_id=False
        )
        await client.command(f"CREATE TABLE {table} (a UInt64) ENGINE = Memory")
        await asyncio.gather(*(client.insert(table, [[i], [i + 1]]) for i in range(20)))
        answers = await asyncio.gather(*(client.query(f"SELECT count() FROM {table}") for _ in range(20)))
        await client.close()
        return [answer.result_rows for answer in answers]

    assert asyncio.run(use()) == [[(40,)]] * 20
