"""What worker threads do with the engine: one function a kind of statement. All block."""

import re
from collections.abc import Sequence

from k2.store import StoreError
from k2.store.embedded import Answer, Connection, fed, from_file, quoted
from k2.store.server.connections import Connections
from k2.store.server.externals import External
from k2.store.server.request import Ask
from k2.store.server.statement import Statement

# Up to this size, data behind the statement itself are the cheapest way in; above, a pipe is. Only in lines of JSON,
# where a blank line means nothing: for the engine it ends the data.
INLINE = 64 << 10
_INLINE_FORMATS = frozenset(("JSONEachRow", "JSONCompactEachRow"))
_INPUT = re.compile(rb"\binput\s*\(", re.IGNORECASE)
_QUERY_ID = re.compile(r"\bquery_id\s*=\s*('(?:[^'\\]|\\.)*')", re.IGNORECASE)
_ADDED = re.compile(
    r"\s*/\* query_id=\S* \*/ (?:INTO OUTFILE '/dev/fd/\d+' TRUNCATE COMPRESSION '\w+' )?"
    r"|\s*FROM INFILE '/dev/fd/\d+' COMPRESSION 'none'"
)
_UNSAFE = re.compile(r"[^\w.:-]")


def mark(query_id: str) -> str:
    """A comment that carries the id to `system.processes`: the engine gives every statement an id of its own.

    It stands behind the statement, so that positions in error messages stay right.
    """
    return f"\n/* query_id={_UNSAFE.sub('_', query_id)} */ "


def _as_asked(error: StoreError) -> StoreError:
    """The engine quotes statements in its errors: leave out what was added to them here."""
    return StoreError(_ADDED.sub(" ", str(error)), error.code)


def _bearing(query_id: str) -> str:
    """The condition on `system.processes` that means this id, and never the statement that asks."""
    return f"position(query, concat('/* query_', {quoted(mark(query_id)[10:])})) > 0"


class Work:
    """Statements, carried out on connections."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def select(self, ask: Ask, statement: Statement, form: str, writer: int, externals: Sequence[External]) -> Answer:
        """Run a SELECT whose answer goes into the pipe with the file number `writer`."""
        target = f"INTO OUTFILE '/dev/fd/{writer}' TRUNCATE COMPRESSION '{ask.encoding or 'none'}' FORMAT {form}"
        sql = statement.head + mark(ask.query_id).encode() + target.encode() + statement.tail
        return self._on(ask, statement, sql, "TabSeparated", externals)

    def plain(self, ask: Ask, statement: Statement, form: str) -> Answer:
        """Run a statement whose answer, if any, is small: all but SELECT and INSERT with data."""
        sql = statement.head + mark(ask.query_id).encode()
        if statement.format:
            sql += b"FORMAT " + statement.format.encode() + statement.tail
        if statement.verb == "KILL":
            text = sql.decode("utf-8", "surrogateescape")
            sql = _QUERY_ID.sub(lambda match: _bearing(match[1][1:-1]), text).encode("utf-8", "surrogateescape")
        return self._on(ask, statement, sql, form, ())

    def insert(self, ask: Ask, statement: Statement, form: str, data: bytes) -> Answer:
        """Insert data that are all here."""
        if form in _INLINE_FORMATS and data[:1] in (b"{", b"[") and b"\n\n" not in data and b"\r" not in data:
            sql = statement.head + mark(ask.query_id).encode() + b"FORMAT " + form.encode() + b"\n" + data
            return self._on(ask, statement, sql, "TabSeparated", ())
        with fed(data) as source:
            return self.insert_from(ask, statement, form, source)

    def insert_from(self, ask: Ask, statement: Statement, form: str, source: int) -> Answer:
        """Insert what stands in an open file, or comes through a pipe. `input()` is that file as well."""
        if statement.kind == "insert_select":
            sql = _INPUT.sub(lambda _: f"file('/dev/fd/{source}', '{form}', ".encode(), statement.head)
            return self._on(ask, statement, sql + mark(ask.query_id).encode(), "TabSeparated", ())
        text = from_file(statement.head.decode("utf-8", "surrogateescape"), mark(ask.query_id) + form, source)
        return self._on(ask, statement, text.encode("utf-8", "surrogateescape"), "TabSeparated", ())

    def kill(self, query_id: str) -> bool:
        """Tell the engine to stop a statement; False if it knows none of this id (yet, or any more)."""
        connection = self._connections.bare("")
        try:
            return bool(connection.run(f"KILL QUERY WHERE {_bearing(query_id)} ASYNC").body)
        finally:
            connection.close()

    def _on(self, ask: Ask, statement: Statement, sql: bytes, form: str, externals: Sequence[External]) -> Answer:
        if externals:
            return self._with_tables(ask, sql, form, externals)
        lease = self._connections.lease(ask, statement)
        try:
            return lease.connection.run(sql, form, ask.params)
        except StoreError as error:
            raise _as_asked(error) from None
        finally:
            self._connections.release(lease)

    def _with_tables(self, ask: Ask, sql: bytes, form: str, externals: Sequence[External]) -> Answer:
        connection: Connection = self._connections.bounded(ask.database)
        try:
            for external in externals:
                external.load(connection)
            self._connections.lock(connection, ask)
            return connection.run(sql, form, ask.params)
        except StoreError as error:
            raise _as_asked(error) from None
        finally:
            connection.close()
