"""The store in this process, without its server: chDB behind the Store Protocol. One engine a process may be open."""

import re
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import chdb
import msgspec

from k2.store import StoreError
from k2.store.rows import ASK_AT_MOST, MOVED_ON

_SETTINGS = (
    "SET log_queries = 0, log_profile_events = 0, memory_profiler_step = 0, use_concurrency_control = 0,"
    " input_format_parallel_parsing = 0, output_format_json_quote_64bit_integers = 0,"
    " output_format_json_quote_decimals = 1, output_format_json_named_tuples_as_objects = 0"
)
_INPUT = re.compile(r"FROM input\('(?P<structure>[^']*)'\)")


class LocalStore:
    def __init__(self, directory: Path | str) -> None:
        self._one_at_a_time = threading.Lock()
        self._chdb = chdb.connect(str(directory))
        self._chdb.query(_SETTINGS)

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        self._query(sql)

    def rows(self, sql: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """As the real client, it asks again what the live tail outran."""
        for _ in range(ASK_AT_MOST - 1):
            try:
                return self._rows(sql)
            except StoreError as error:
                if MOVED_ON not in str(error):
                    raise
        return self._rows(sql)

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(msgspec.json.decode(line)) for line in self._query(sql).splitlines()]

    def stream(self, sql: str, fmt: str, params: Mapping[str, Any] | None = None) -> Iterator[bytes]:
        yield self._query(sql, fmt)

    def insert(self, sql: str, body: bytes, params: Mapping[str, Any] | None = None) -> None:
        head, fmt = sql.rsplit(" FORMAT ", 1)
        if not (match := _INPUT.search(head)):
            try:
                with self._one_at_a_time:
                    inserter = self._chdb.send_insert(head, fmt)
                    inserter.append(body)
                    inserter.finish()
            except Exception as error:
                raise _store_error(error) from None
            return
        with tempfile.NamedTemporaryFile() as file:
            file.write(body)
            file.flush()
            self._query(_INPUT.sub(f"FROM file('{file.name}', '{fmt}', '{match['structure']}')", head))

    def close(self) -> None:
        self._chdb.close()

    def _query(self, sql: str, fmt: str = "JSONCompactEachRow") -> bytes:
        try:
            with self._one_at_a_time:
                answer: bytes = self._chdb.query(sql, fmt).bytes()
        except Exception as error:
            raise _store_error(error) from None
        return answer


def _store_error(error: Exception) -> StoreError:
    codes = re.findall(r"Code: (\d+)", str(error))
    return StoreError(str(error), int(codes[-1]) if codes else 0)
