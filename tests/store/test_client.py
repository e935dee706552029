"""The client and the Store contract: whatever rows go in come back equal, through HTTP and in process."""

import datetime
import decimal
import os
import resource
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store.conftest import StoreProcess

from k2.store import Store, StoreError
from k2.store.clickhouse import ClickHouseStore
from k2.store.embedded import EmbeddedStore, Engine

COLUMNS = ("id", "wide", "price", "text", "maybe", "tags")
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
DECIMAL = st.decimals(min_value=-(10**19), max_value=10**19, places=18)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(0, 2**64 - 1),
            "wide": st.integers(-(2**127), 2**127 - 1),
            "price": DECIMAL.map(lambda value: f"{value:f}"),
            "text": TEXT,
            "maybe": st.none() | st.integers(-(2**63), 2**63 - 1),
            "tags": st.lists(TEXT, max_size=3),
        }
    ),
    min_size=1,
    max_size=20,
)


@pytest.fixture(scope="module", params=["http", "embedded"])
def any_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    if request.param == "http":
        running: StoreProcess = request.getfixturevalue("store")
        client = running.client()
        yield client
        client.close()
        return
    engine = Engine(tmp_path_factory.mktemp("engine") / "store")
    store = EmbeddedStore(engine)
    store.execute("CREATE DATABASE k2")
    yield store
    store.close()
    engine.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(rows=ROWS)
def test_rows_come_back_as_they_went_in(any_store: Store, rows: list[dict[str, Any]]) -> None:
    any_store.execute(
        "CREATE OR REPLACE TABLE k2.round_trip (id UInt64, wide Int128, price Decimal(38, 18), text String, "
        "maybe Nullable(Int64), tags Array(String)) ENGINE = Memory"
    )
    body = b"\n".join(map(msgspec.json.encode, rows))
    any_store.insert("INSERT INTO k2.round_trip FORMAT JSONEachRow", body)
    found = any_store.rows("SELECT * FROM k2.round_trip")
    assert [_exact(row) for row in found] == [_exact(tuple(row[name] for name in COLUMNS)) for row in rows]


def _exact(row: tuple[Any, ...]) -> tuple[Any, ...]:
    number, wide, price, *rest = row
    return (number, wide, decimal.Decimal(price), *rest)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(text=TEXT, words=st.lists(TEXT, max_size=4), number=st.integers(-(2**63), 2**63 - 1), maybe=st.none() | TEXT)
def test_parameters_arrive_as_they_were_given(
    any_store: Store, text: str, words: list[str], number: int, maybe: str | None
) -> None:
    query = "SELECT {text:String}, {words:Array(String)}, {number:Int64}, {maybe:Nullable(String)}"
    params = {"text": text, "words": words, "number": number, "maybe": maybe}
    assert any_store.rows(query, params) == [(text, words, number, maybe)]


def test_values_have_the_types_of_the_contract(any_store: Store) -> None:
    query = (
        "SELECT 1::UInt8, 18446744073709551615::UInt64, toInt256('1') AS big, 1.50::Decimal(9, 2), "
        "fromUnixTimestamp64Nano(1767323045678901234, 'UTC'), [1, 2], NULL, 'x', true -- the end"
    )
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC).strftime("%F %T") + ".678901234"
    assert any_store.rows(query) == [(1, 2**64 - 1, 1, "1.5", moment, [1, 2], None, "x", True)]
    assert any_store.rows("SELECT 1 WHERE 0") == []
    assert any_store.rows("SHOW TABLES FROM system LIKE 'one';") == [("one",)]


def test_a_stream_is_the_whole_answer(any_store: Store) -> None:
    chunks = list(any_store.stream("SELECT number FROM numbers({n:UInt32})", "TabSeparated", {"n": 500_000}))
    assert len(chunks) > 1
    assert b"".join(chunks) == b"".join(b"%d\n" % i for i in range(500_000))
    assert list(any_store.stream("SELECT 1 WHERE 0", "TabSeparated")) == []


def test_errors_carry_the_code(any_store: Store) -> None:
    for sql, code in (("SELEC", 62), ("SELECT * FROM k2.nope", 60), ("SELECT throwIf(1)", 395)):
        with pytest.raises(StoreError, match=f"Code: {code}") as error:
            any_store.rows(sql)
        assert error.value.code == code
    with pytest.raises(StoreError) as error:
        any_store.insert("INSERT INTO k2.nope FORMAT TSV", b"1\n")
    assert error.value.code == 60
    with pytest.raises(StoreError, match="late") as error:
        for _ in any_store.stream("SELECT throwIf(number = 900000, 'late') FROM numbers(10000000)", "TSV"):
            pass
    assert error.value.code == 395
    assert any_store.rows("SELECT 1") == [(1,)]


def test_an_insert_with_a_parameter(any_store: Store) -> None:
    any_store.execute("CREATE OR REPLACE TABLE k2.named (a UInt8) ENGINE = Memory")
    any_store.insert("INSERT INTO k2.{t:Identifier} FORMAT TSV", b"1\n", {"t": "named"})
    assert any_store.rows("SELECT a FROM k2.named") == [(1,)]


@pytest.mark.parametrize("url", ["127.0.0.1:8123", "ftp://x", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="http://HOST:PORT"):
        ClickHouseStore(url)


def test_it_works_in_a_process_with_many_files(store: StoreProcess) -> None:
    """`select` fails for descriptors past 1,023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    held = [os.dup(0) for _ in range(1100)]
    asking = ClickHouseStore(store.url)
    try:
        assert [asking.rows("SELECT 1") for _ in range(2)] == [[(1,)]] * 2
    finally:
        asking.close()
        for one in held:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
