"""Native blocks for clients of a later revision, read back by rules of their own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store.conftest import StoreProcess
from tests.store.wire import ask

from k2.store import StoreError
from k2.store.server.native import Blocks

COLUMNS = [
    "number::UInt8", "number::Int16", "toDate(number)", "toDateTime(number, 'UTC')",
    "toDateTime64(number, 9, 'UTC')", "number::Float64", "number::Decimal(9, 2)", "number::Decimal(38, 18)",
    "number::Decimal(76, 5)", "number::UInt256", "toString(number)", "toFixedString('abc', 3)",
    "toUUID('12345678-1234-5678-1234-567812345678')", "toIPv4('1.2.3.4')", "toIPv6('::1')", "number = 1",
    "number::Nullable(Int64)", "NULL", "nullIf(toString(number), '1')", "range(number)",
    "arrayMap(x -> range(x), range(number))", "(number, 'x', [number])", "map('a', number, 'b', 2)",
    "toLowCardinality(toString(number % 7))", "toLowCardinality(toNullable(nullIf(toString(number), '3')))",
    "[toLowCardinality('x'), toLowCardinality(toString(number))]", "(toLowCardinality('x'), number)",
    "CAST(number % 2, 'Enum8(\\'a, (b\\' = 0, \\'c\\' = 1)')",
    "CAST((number, 'x'), 'Tuple(a UInt8, `b c` String)')", "INTERVAL 3 DAY", "(1., 2.)::Point", "[(1., 2.)]::Ring",
    "true", "tuple()", "[]::Array(String)", "toTime64('01:02:03', 3)",
]  # fmt: skip


def plain(body: bytes, columns: int) -> bytes:
    """A body of the later revision back to revision 0, where every column's bytes are known from the other answer."""
    return body.replace(b"\x01\x00\x02\xff\xff\xff\xff\x00" + bytes([columns]), bytes([columns]))


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("rows", [1, 300])
def test_every_type_is_cut_where_it_ends(store: StoreProcess, column: str, rows: int) -> None:
    """With a second column behind it, a wrong end shows: its name and its type would not stand where they must."""
    query = f"SELECT {column} AS first, 'behind' AS last_of_all FROM numbers({rows}) FORMAT Native"
    old = ask(store.port, query=query).body
    info_only = ask(store.port, query=query, client_protocol_version="54400").body
    marked = ask(store.port, query=query, client_protocol_version="54460").body
    assert plain(info_only, 2) == old
    name_and_type = b"\x0blast_of_all\x06String"
    assert name_and_type + b"\x00\x06behind" in marked
    at = old.index(name_and_type)
    assert plain(marked, 2).endswith(b"\x00" + old[at + len(name_and_type) :])
    assert len(marked) == len(old) + 8 + 2


def test_large_answers_of_many_blocks(store: StoreProcess) -> None:
    query = "SELECT number, toString(number) FROM numbers(300000) FORMAT Native"
    old = ask(store.port, query=query)
    new = ask(store.port, query=query, client_protocol_version="54400", headers={"Accept-Encoding": "gzip"})
    assert plain(new.body, 2) == old.body
    assert "content-encoding" not in new.headers


def test_other_statements_and_other_formats(store: StoreProcess) -> None:
    described = ask(store.port, b"DESCRIBE TABLE system.one FORMAT Native", client_protocol_version="54460").body
    assert described.startswith(b"\x01\x00\x02\xff\xff\xff\xff\x00")
    assert ask(store.port, b"SELECT 1", client_protocol_version="54460").body == b"1\n"
    assert ask(store.port, b"SELECT 1", client_protocol_version="x").code == 27


def test_a_type_that_cannot_be_cut_is_named(store: StoreProcess) -> None:
    query = "SELECT 1::Dynamic FORMAT Native"
    reply = ask(store.port, query=query, client_protocol_version="54460")
    assert reply.code == 48
    assert b"Dynamic" in reply.body


@given(st.lists(st.integers(1, 40), max_size=30))
def test_where_the_stream_is_split_makes_no_difference(cuts: list[int]) -> None:
    block = b"\x01\x03\x01s\x06String" + b"\x02ab\x00\x03xyz" + b"\x01\x02\x01n\x06UInt16" + b"\x01\x00\x02\x00"
    stream = block * 3
    whole = Blocks(54460).feed(stream, last=True)
    blocks = Blocks(54460)
    out = b""
    for cut in cuts:
        out += blocks.feed(stream[:cut])
        stream = stream[cut:]
    assert out + blocks.feed(stream) + blocks.feed(b"", last=True) == whole


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(StoreError, match="JSON"):
        Blocks(54460).feed(b"\x01\x01\x01j\x04JSON\x00\x00\x00", last=True)
