"""chDB: ClickHouse's engine inside of one process, which owns its directory.

The engine is one a process; connections to it are cheap (0.2 ms) and keep settings, database and temporary tables of
their own. Statements of different connections run at the same time; one connection runs one statement at a time. All
calls block and release the GIL: the server makes them from worker threads.
"""

import fcntl
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import chdb

from k2.store import StoreError, StoreUnavailable
from k2.store.rows import asking, decoded, escaped

_RAISED = (RuntimeError, chdb.ChdbError)  # what chDB raises, for every failure
_CODE = re.compile(r"Code: (\d+)\. DB::Exception: ")
_PREFIX = re.compile(r"^(?:Streaming query failed: |Failed to [a-z ]+: )+")
_INSERT_SETTINGS = re.compile(
    r"((?:'[^']*'|`[^`]*`|\"[^\"]*\"|[^'`\"])*?)(\bSETTINGS\s+\w+\s*=.*)", re.IGNORECASE | re.DOTALL
)
_PIPE = 1 << 16  # what a pipe holds before somebody reads
_VERSION = re.compile(r"(?: \(version [0-9.]+(?: \(official build\))?\)\.?(?: \([A-Z_0-9]+\))?)+\s*$")

# What makes a small statement cheap (measured: 2.7 ms of CPU with the engine's own settings, 0.9 ms with these).
LEAN = {
    "implicit_select": "0",
    "session_timezone": "UTC",
    "allow_introspection_functions": "0",
    "log_queries": "0",
    "log_profile_events": "0",
    "query_profiler_real_time_period_ns": "0",
    "query_profiler_cpu_time_period_ns": "0",
    "memory_profiler_step": "0",
    "input_format_parallel_parsing": "0",
    "output_format_parallel_formatting": "0",
    "use_concurrency_control": "0",
    "analyzer_inline_views": "1",
    "max_insert_threads": "1",
}


class Answer(NamedTuple):
    """What a statement gave, and what it cost."""

    body: bytes
    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0


def error(caught: BaseException) -> StoreError:
    """The engine's exception as a StoreError: the code, and the text as ClickHouse's server words it."""
    text = _PREFIX.sub("", str(caught)).strip()
    codes = _CODE.findall(text)
    if not codes:
        return StoreError(f"Code: 1001. DB::Exception: {text}. (STD_EXCEPTION) (version {chdb.engine_version})", 1001)
    message = _VERSION.sub("", _CODE.sub("", text)).rstrip()
    return StoreError(f"Code: {codes[0]}. DB::Exception: {message} (version {chdb.engine_version})", int(codes[0]))


def quoted(value: str) -> str:
    """A ClickHouse string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def identifier(name: str) -> str:
    """A quoted ClickHouse identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


class Engine:
    """The one engine of this process, over one directory. Refuses a directory that another process has open."""

    def __init__(self, directory: Path, memory_mb: int = 2048, keep_free_mb: int = 256) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._lock = _lock(directory / "k2.lock")
        try:
            self._address = self._configure(memory_mb, keep_free_mb)
            self._first = Connection(self._address)
        except BaseException:
            os.close(self._lock)
            raise
        self.version: str = chdb.engine_version

    def _configure(self, memory_mb: int, keep_free_mb: int) -> str:
        settings = {
            # The engine does not notice a write that fails (measured: an INSERT on a full disk succeeds and leaves a
            # broken part). It does refuse to begin one, or a merge, when less than this would stay free.
            "storage_configuration": {"disks": {"default": {"keep_free_space_bytes": str(keep_free_mb << 20)}}},
            "logger": {"level": "none"},
            "max_server_memory_usage": str(memory_mb << 20),
            "mark_cache_size": str(32 << 20),
            "index_mark_cache_size": str(8 << 20),
            "uncompressed_cache_size": "0",
            "mmap_cache_size": "64",
            "compiled_expression_cache_size": str(8 << 20),
            "query_cache": {"max_size_in_bytes": str(8 << 20)},
            "background_pool_size": "2",
            "background_merges_mutations_concurrency_ratio": "1",
            "background_schedule_pool_size": "4",
            "background_move_pool_size": "1",
            "background_fetches_pool_size": "1",
            "background_common_pool_size": "2",
            "background_buffer_flush_schedule_pool_size": "1",
            "background_message_broker_schedule_pool_size": "1",
            "background_distributed_schedule_pool_size": "1",
            "tables_loader_foreground_pool_size": "1",
            "tables_loader_background_pool_size": "1",
            "max_thread_pool_size": "200",
            "max_thread_pool_free_size": "8",
            "asynchronous_metrics_update_period_s": "60",
            "custom_settings_prefixes": "SQL_,custom_",
        }
        file = self.directory / "k2-engine.xml"
        file.write_text(f"<clickhouse>{_xml(settings)}</clickhouse>\n")
        return f"{self.directory}?config-file={file}"

    def connect(self, settings: Mapping[str, str] | None = None, database: str = "") -> "Connection":
        """A connection with these settings on top of the lean ones. Raises StoreError, also for an unknown setting."""
        connection = Connection(self._address)
        try:
            connection.set({**LEAN, **(settings or {})})
            if database:
                connection.run(f"USE {identifier(database)}")
        except StoreError:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the directory; other connections must be closed before. Idempotent."""
        if self._lock >= 0:
            self._first.close()
            os.close(self._lock)
            self._lock = -1


def _xml(tree: Mapping[str, Any]) -> str:
    return "".join(f"<{k}>{_xml(v) if isinstance(v, dict) else escape(v)}</{k}>" for k, v in tree.items())


def _lock(file: Path) -> int:
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise StoreUnavailable(
            f"the store in {file.parent} is already open in process {holder}: "
            "stop that one, or choose another folder with --data"
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle


class Connection:
    """One connection to the engine. Not thread-safe. Every method raises StoreError with ClickHouse's code."""

    def __init__(self, address: str) -> None:
        try:
            self._chdb: Any = chdb.connect(address)
        except _RAISED as caught:
            raise error(caught) from None

    def set(self, settings: Mapping[str, str]) -> None:
        """Change settings of this connection, in the order given: `readonly` belongs at the end."""
        if settings:
            self.run("SET " + ", ".join(f"{identifier(name)} = {quoted(value)}" for name, value in settings.items()))

    def run(self, sql: str | bytes, fmt: str = "TabSeparated", params: Mapping[str, str] | None = None) -> Answer:
        """Run a statement; its whole answer, in memory. `params` are in ClickHouse's escaped text form."""
        try:
            result = self._chdb.query(sql, fmt, params=dict(params or {}))
        except _RAISED as caught:
            raise error(caught) from None
        return _answer(result, result.bytes())

    def insert(self, sql: str, fmt: str, data: bytes, params: Mapping[str, str] | None = None) -> Answer:
        """Insert data that are all here; `sql` has neither a FORMAT clause nor data."""
        with fed(data) as source:
            return self.run(from_file(sql, fmt, source), params=params)

    def stream(self, sql: str, fmt: str, params: Mapping[str, str] | None = None) -> Iterator[bytes]:
        """A SELECT's answer block by block: for formats without a frame around the rows (TSV, JSONEachRow, Native)."""
        try:
            with self._chdb.send_query(sql, fmt, params=dict(params or {})) as result:
                for chunk in result:
                    yield chunk.bytes()
        except _RAISED as caught:
            raise error(caught) from None

    def close(self) -> None:
        """Release the connection and its temporary tables. Idempotent."""
        self._chdb.close()


def _answer(result: Any, body: bytes) -> Answer:
    return Answer(
        body,
        read_rows=result.storage_rows_read(),
        read_bytes=result.storage_bytes_read(),
        written_rows=result.rows_written(),
        written_bytes=result.bytes_written(),
        result_rows=result.rows_read(),
    )


def from_file(sql: str, fmt: str, source: int) -> str:
    """An INSERT that takes its data from an open file.

    Not chDB's own streaming insert: that one reports success where the write failed (a full disk, a constraint, an
    exception in a materialized view).
    """
    head, settings = _at_settings(sql)
    return f"{head} FROM INFILE '/dev/fd/{source}' COMPRESSION 'none' {settings} FORMAT {fmt}"


def _at_settings(sql: str) -> tuple[str, str]:
    """The SETTINGS clause of an INSERT belongs behind FROM INFILE."""
    found = _INSERT_SETTINGS.match(sql)
    return (found[1], found[2]) if found else (sql, "")


@contextmanager
def fed(data: bytes) -> Iterator[int]:
    """A pipe's end, by number, at which the engine reads these data."""
    reader, writer = os.pipe()
    feeder = None
    if len(data) <= _PIPE:
        os.write(writer, data)
        os.close(writer)
    else:
        feeder = threading.Thread(target=_feed, args=(writer, data), name="store-feed")
        feeder.start()
    try:
        yield reader
    finally:
        os.close(reader)
        if feeder is not None:
            feeder.join()


def _feed(writer: int, data: bytes) -> None:
    try:
        with open(writer, "wb") as pipe:
            pipe.write(data)
    except BrokenPipeError:
        return  # the statement is over: its own error says why


class EmbeddedStore:
    """The engine as a `Store`, without a server between: for migrations, and for tests."""

    def __init__(self, engine: Engine, database: str = "") -> None:
        self._connection = engine.connect(database=database)

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        self._connection.run(sql, params=escaped(params))

    def rows(self, sql: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return decoded(self._connection.run(asking(sql), params=escaped(params)).body)

    def stream(self, sql: str, fmt: str, params: Mapping[str, Any] | None = None) -> Iterator[bytes]:
        return self._connection.stream(sql, fmt, escaped(params))

    def insert(self, sql: str, body: bytes, params: Mapping[str, Any] | None = None) -> None:
        head, fmt = re.split(r"\s+FORMAT\s+(?=\w+\s*$)", sql, maxsplit=1, flags=re.IGNORECASE)
        self._connection.insert(head, fmt.strip(), body, escaped(params))

    def close(self) -> None:
        self._connection.close()
