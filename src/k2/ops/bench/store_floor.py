"""chDB alone, in a process of its own: `python -m k2.ops.bench.store_floor FOLDER`.

Each line it hears is a job, `{"sql": ..., "times": n, "pause_ms": p, "rows": r, "start": s}`; each line it says tells
how long every run took, and the last answer: `{"seconds": [...], "answer": ...}`. With `rows`, the statement is an
INSERT and so many trades are its data, in JSONEachRow, made before they are timed, ids going on from run to run, from
trade number `start` on; `fmt` is the format of an answer. `{"migrate": true}` gives it K2's own schema.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import chdb

from k2.ops.bench.material import body
from k2.store.migrate import apply

# A fair floor has what makes small statements cheap: no query log, no profilers, no thread hand-over.
LEAN = (
    "SET log_queries = 0, log_profile_events = 0, query_profiler_real_time_period_ns = 0, memory_profiler_step = 0, "
    "query_profiler_cpu_time_period_ns = 0, input_format_parallel_parsing = 0, output_format_parallel_formatting = 0, "
    "use_concurrency_control = 0, max_insert_threads = 1"
)
INLINE = 64 << 10


class Floor:
    """One connection to an engine in this process; as a `Store` as far as migrations ask."""

    def __init__(self, folder: str) -> None:
        self.connection: Any = chdb.connect(folder)
        self.connection.query(LEAN)

    def job(
        self,
        sql: str,
        times: int = 1,
        pause_ms: float = 0.0,
        rows: int = 0,
        start: int = 0,
        fmt: str = "TabSeparated",
    ) -> dict[str, Any]:
        """Run a statement so many times."""
        seconds: list[float] = []
        answer = ""
        for number in range(times):
            data = body(rows, start + number * rows) if rows else b""
            began = time.perf_counter()
            if rows:
                self.put(sql, data)
            else:
                found = self.connection.query(sql, fmt).bytes()
            seconds.append(time.perf_counter() - began)
            if not rows:
                answer = found[:100].decode("utf-8", "replace").strip()
            if pause_ms:
                time.sleep(pause_ms / 1e3)
        return {"seconds": seconds, "answer": answer}

    def put(self, sql: str, data: bytes) -> None:
        """Insert JSON lines in the cheaper of chDB's two ways."""
        if len(data) <= INLINE:
            self.connection.query(f"{sql} FORMAT JSONEachRow\n".encode() + data)
        else:
            inserter = self.connection.send_insert(sql, "JSONEachRow")
            inserter.append(data)
            inserter.finish()

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        self.connection.query(sql, params=dict(params or {}))

    def rows(self, sql: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        answer = self.connection.query(sql, "JSONCompactEachRow", params=dict(params or {})).bytes()
        return [tuple(json.loads(line)) for line in answer.splitlines()]

    def stream(self, sql: str, fmt: str, params: Mapping[str, Any] | None = None) -> Iterator[bytes]:
        yield self.connection.query(sql, fmt, params=dict(params or {})).bytes()

    def insert(self, sql: str, body: bytes, params: Mapping[str, Any] | None = None) -> None:
        self.connection.query(sql.encode() + b"\n" + body, params=dict(params or {}))

    def close(self) -> None:
        self.connection.close()


def say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    floor = Floor(sys.argv[1])
    say({"ready": 1})
    for line in sys.stdin:
        asked = json.loads(line)
        if asked.pop("migrate", False):
            apply(floor)
            say({"ready": 1})
        else:
            say(floor.job(**asked))
    floor.close()


if __name__ == "__main__":
    main()
