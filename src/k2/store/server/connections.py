"""Connections to the engine for those who ask: pooled, of one request, or of a session.

A connection carries its account's limits and, for those who may only read, `readonly`. It is used again only if nothing
that a request asked for could have stayed behind in it.
"""

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from k2.config import StoreConfig
from k2.store import StoreError
from k2.store.embedded import Connection, Engine, identifier, quoted
from k2.store.server.request import Ask
from k2.store.server.statement import Statement
from k2.store.server.status import refusal

_READER_MAY_SET = (
    "output_format_",
    "date_time_",
    "format_csv_null_representation",
    "session_timezone",
    "max_result_",
    "max_execution_time",
    "max_memory_usage",
    "result_overflow_mode",
    "max_rows_to_read",
    "max_block_size",
    "max_threads",
    "join_use_nulls",
    "limit",
    "offset",
    "extremes",
    "readonly",
    "iceberg_timestamp_ms",
)
_IDLE = 8  # pooled connections of a kind
MAX_SESSIONS = 512


@dataclass
class _Session:
    connection: Connection
    timeout: float
    database: str  # the last one chosen by a parameter; empty: not known
    expires: float = 0.0
    busy: bool = True


@dataclass
class Lease:
    """A connection, for one request. `keep` False: it must not be used by another request."""

    connection: Connection
    key: tuple[str, ...]
    session: _Session | None = None
    keep: bool = True
    undo: dict[str, str] = field(default_factory=dict)


class Connections:
    """Hands out connections. Thread-safe; every call may block on the engine."""

    def __init__(self, engine: Engine, config: StoreConfig) -> None:
        self._engine = engine
        self._limits = {
            "max_execution_time": f"{config.max_execution_s:g}",
            "max_memory_usage": str(config.max_memory_mb << 20),
        }
        self._pools: dict[tuple[str, ...], deque[Connection]] = {}
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._guard = threading.Lock()
        self._closed = False

    def lease(self, ask: Ask, statement: Statement) -> Lease:
        """A connection as the request needs it. Raises StoreError, also for a setting that is unknown or refused."""
        if ask.method != "POST" and ask.session_id and not (statement.answers or statement.private):
            raise refusal(164, "READONLY", "Cannot execute query in readonly mode: use POST to change anything")
        mode = _mode(ask)
        settings = _settings(ask, mode)
        if ask.session_id:
            return self._of_session(ask, statement)
        narrow = {"max_threads": "1"} if statement.kind == "insert" else {}
        key = (mode, ask.database, statement.kind if narrow else "")
        if settings or statement.private:
            return Lease(self._connect(mode, ask.database, settings), key, keep=False)
        with self._guard:
            pool = self._pools.setdefault(key, deque()) if len(self._pools) < 64 or key in self._pools else deque()
            idle = pool.pop() if pool else None
        return Lease(idle or self._connect(mode, ask.database, narrow), key)

    def bare(self, database: str) -> Connection:
        """A connection without limits, for the server's own errands."""
        return self._engine.connect(database=database)

    def bounded(self, database: str) -> Connection:
        """A connection that may write, with the limits of a statement, for what a request brings along."""
        return self._engine.connect(self._limits, database)

    def lock(self, connection: Connection, ask: Ask) -> None:
        """Give such a connection the limits and the mode that the request's account has."""
        mode = _mode(ask)
        connection.set(self._all(mode, _settings(ask, mode)))

    def release(self, lease: Lease) -> None:
        """Take a connection back."""
        if lease.session is not None:
            self._end_of_turn(lease)
            return
        if lease.keep and not self._closed:
            with self._guard:
                pool = self._pools.get(lease.key)
                if pool is not None and len(pool) < _IDLE:
                    pool.append(lease.connection)
                    return
        lease.connection.close()

    def expire(self) -> None:
        """Close sessions that nobody used for their timeout."""
        now = time.monotonic()
        with self._guard:
            old = [key for key, session in self._sessions.items() if not session.busy and session.expires < now]
            gone = [self._sessions.pop(key) for key in old]
        for session in gone:
            session.connection.close()

    def close(self) -> None:
        """Close all that is idle; leases still out are closed when they come back."""
        with self._guard:
            self._closed = True
            idle = [connection for pool in self._pools.values() for connection in pool]
            idle += [session.connection for session in self._sessions.values() if not session.busy]
            self._pools.clear()
            self._sessions.clear()
        for connection in idle:
            connection.close()

    def _connect(self, mode: str, database: str, settings: Mapping[str, str]) -> Connection:
        return self._engine.connect(self._all(mode, settings), database)

    def _all(self, mode: str, settings: Mapping[str, str]) -> dict[str, str]:
        if mode == "write":
            return {**self._limits, **settings}
        bounded = {**self._limits, **settings}
        bounded.pop("readonly", None)
        if mode == "reader":
            bounded.update((name, _lower(bounded[name], most)) for name, most in self._limits.items())
        return {**bounded, "readonly": "1" if mode == "reader" else "2"}

    def _of_session(self, ask: Ask, statement: Statement) -> Lease:
        key = (ask.account.name, ask.session_id)
        self.expire()
        with self._guard:
            session = self._sessions.get(key)
            if session is not None and session.busy:
                raise refusal(373, "SESSION_IS_LOCKED", f"Session {ask.session_id} is locked by a concurrent client")
            if session is None and ask.session_check:
                raise refusal(372, "SESSION_NOT_FOUND", f"Session {ask.session_id} not found")
            if session is None and len(self._sessions) >= MAX_SESSIONS:
                raise refusal(202, "TOO_MANY_SIMULTANEOUS_QUERIES", f"Too many sessions. Maximum: {MAX_SESSIONS}")
            if session is not None:
                session.busy = True
        if session is None:
            base = "reader" if ask.account.readonly else "write"
            session = _Session(self._connect(base, ask.database, {}), ask.session_timeout, ask.database)
            with self._guard:
                if key in self._sessions:
                    session.connection.close()
                    raise refusal(
                        373, "SESSION_IS_LOCKED", f"Session {ask.session_id} is locked by a concurrent client"
                    )
                self._sessions[key] = session
        session.timeout = ask.session_timeout
        lease = Lease(session.connection, (), session)
        try:
            self._for_one_turn(lease, session, ask, statement)
        except StoreError:
            self._end_of_turn(lease)
            raise
        return lease

    def _for_one_turn(self, lease: Lease, session: _Session, ask: Ask, statement: Statement) -> None:
        """What a request asks for besides its statement ends with the request: remember what was before it."""
        connection, settings = lease.connection, ask.settings
        # What a reader said is judged by the database of the request, so the session's must not be one that shows more.
        strayed = ask.account.readonly and session.database == "system"
        if (ask.database_named or strayed) and session.database != ask.database:
            connection.run(f"USE {identifier(ask.database)}")
            session.database = ask.database
        if statement.verb == "USE":
            session.database = ""
        if not settings:
            return
        if ask.account.readonly:
            raise refusal(164, "READONLY", f"Cannot modify '{next(iter(settings))}' setting in readonly mode")
        names = ", ".join(quoted(name) for name in settings)
        lines = connection.run(f"SELECT name, value FROM system.settings WHERE name IN ({names})", "JSONCompactEachRow")
        before = dict(msgspec.json.Decoder(tuple[str, str]).decode_lines(lines.body))
        connection.set(settings)
        lease.undo = {name: value for name, value in before.items() if name in settings}

    def _end_of_turn(self, lease: Lease) -> None:
        session = lease.session
        assert session is not None
        broken = not lease.keep or self._closed
        if lease.undo and not broken:
            try:
                lease.connection.set(lease.undo)
            except StoreError:
                broken = True
        with self._guard:
            session.busy = False
            session.expires = time.monotonic() + session.timeout
            if broken:
                for key in [key for key, known in self._sessions.items() if known is session]:
                    del self._sessions[key]
        if broken:
            session.connection.close()


def _lower(wanted: str, most: str) -> str:
    """A limit that a reader asks for, where it is lower than theirs."""
    plain = wanted.isascii() and wanted.replace(".", "", 1).isdigit()
    return wanted if plain and 0 < float(wanted) < float(most) else most


def _mode(ask: Ask) -> str:
    if ask.account.readonly:
        return "reader"
    return "write" if ask.method == "POST" else "get"


def _settings(ask: Ask, mode: str) -> dict[str, str]:
    if mode == "reader":
        for name in ask.settings:
            if not name.startswith(_READER_MAY_SET):
                raise refusal(164, "READONLY", f"Cannot modify '{name}' setting in readonly mode")
        return {name: value for name, value in ask.settings.items() if name != "readonly"}
    return ask.settings
