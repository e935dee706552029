"""Where the server cuts statements."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.store.server.statement import StatementError, parse


@pytest.mark.parametrize(
    ("text", "kind", "verb", "form"),
    [
        ("SELECT 1", "select", "SELECT", ""),
        ("select 1 format JSON", "select", "SELECT", "JSON"),
        ("SELECT 1 FORMAT JSON SETTINGS a = 1;", "select", "SELECT", "JSON"),
        ("SELECT 1 -- FORMAT JSON", "select", "SELECT", ""),
        ("SELECT 1 /* ; */ # FORMAT JSON", "select", "SELECT", ""),
        ("SELECT 'FORMAT JSON'", "select", "SELECT", ""),
        ("SELECT format FROM t", "select", "SELECT", ""),
        ("SELECT format, x FORMAT TSV", "select", "SELECT", "TSV"),
        ("SELECT $$ ; FORMAT X $$", "select", "SELECT", ""),
        ('SELECT `a;b`, "c;d" FROM t', "select", "SELECT", ""),
        ("(SELECT 1) UNION ALL (SELECT 2) FORMAT CSV", "select", "SELECT", "CSV"),
        ("/* x */ WITH 1 AS a SELECT a", "select", "WITH", ""),
        ("FROM t SELECT a", "select", "FROM", ""),
        ("WITH 1 AS a INSERT INTO t SELECT a", "insert_select", "WITH", ""),
        ("SHOW TABLES FORMAT JSON", "other", "SHOW", "JSON"),
        ("CREATE TABLE t (format String) ENGINE = Memory", "other", "CREATE", ""),
        ("DESCRIBE TABLE t", "other", "DESCRIBE", ""),
        ("INSERT INTO t SELECT 1", "insert_select", "INSERT", ""),
        ("INSERT INTO t SELECT 'FORMAT JSON'", "insert_select", "INSERT", ""),
        ("INSERT INTO t", "insert", "INSERT", ""),
        ("INSERT INTO t (a, format) VALUES (1)", "insert", "INSERT", "Values"),
        ("INSERT INTO t FORMAT TSV\n1", "insert", "INSERT", "TSV"),
        ("INSERT INTO t SETTINGS a = 1 FORMAT TSV 1", "insert", "INSERT", "TSV"),
        ("INSERT INTO t SELECT a FROM input('a Int8') FORMAT CSV 1", "insert_select", "INSERT", "CSV"),
    ],
)
def test_statements(text: str, kind: str, verb: str, form: str) -> None:
    statement = parse(text.encode())
    assert (statement.kind, statement.verb, statement.format) == (kind, verb, form)


@pytest.mark.parametrize(
    "text", ["", "  -- nothing", "SELECT 1; SELECT 2", "INSERT INTO t SELECT 1; DROP TABLE t", "(", "/* */"]
)
def test_what_is_not_one_statement(text: str) -> None:
    with pytest.raises(StatementError):
        parse(text.encode())


@given(st.binary(max_size=200), st.sampled_from([b"\n", b" \n", b" ", b"\r\n", b"\t \n"]))
def test_the_data_of_an_insert_begin_where_the_format_ends(data: bytes, gap: bytes) -> None:
    text = b"INSERT INTO t (a) FORMAT RowBinary" + gap + data
    if gap.endswith(b"\n") or not data[:1].isspace():
        statement = parse(text)
        assert text[statement.data :] == data
        assert statement.head == b"INSERT INTO t (a) "


@given(st.text(max_size=60))
def test_strings_hide_what_they_say(text: str) -> None:
    literal = "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    statement = parse(f"SELECT {literal} FORMAT TSV".encode())
    assert (statement.kind, statement.format) == ("select", "TSV")
    assert statement.head == f"SELECT {literal} ".encode()


@given(st.binary(max_size=300))
def test_any_bytes_are_cut_or_refused(text: bytes) -> None:
    try:
        statement = parse(text)
    except StatementError:
        return
    assert 0 <= statement.data <= len(text)
    assert text.startswith(statement.head)
