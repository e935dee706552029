"""ClickHouse's engine over the cold tables, as any reader has it: `python -m k2.ops.bench.cold_reader FOLDER`.

Each line it hears is a job. `{"tables": {"cold_trades": LOCATION, ...}}` makes tables over Iceberg metadata files;
`{"sql": ..., "times": n}` runs a statement and tells how long each run took, and the last answer:
`{"seconds": [...], "rows": [...]}`.
"""

import json
import os
import sys
import time
from typing import Any
from urllib.parse import unquote, urlparse

import chdb

from k2.ops.bench.store_floor import say

MEMORY = 4 << 30


def table(name: str, location: str) -> str:
    """DDL of a table over the metadata file at `location`, whatever other files lie beside it."""
    path = unquote(urlparse(location).path)
    folder, _, file = path.rpartition("/metadata/")
    return (
        f"CREATE OR REPLACE TABLE {name} ENGINE = IcebergLocal('{folder}')"
        f" SETTINGS iceberg_metadata_file_path = 'metadata/{file}'"
    )


def job(connection: Any, sql: str, times: int = 1) -> dict[str, Any]:
    """Run a statement so many times."""
    seconds: list[float] = []
    answer = b""
    for _ in range(times):
        began = time.perf_counter()
        answer = connection.query(sql, "JSONCompactEachRow").bytes()
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds, "rows": [json.loads(line) for line in answer.splitlines()]}


def main() -> None:
    os.chdir("/")  # the engine reads files only from below its working folder
    connection = chdb.connect(sys.argv[1])
    connection.query(f"SET max_memory_usage = {MEMORY}, log_queries = 0, session_timezone = 'UTC'")
    say({"ready": 1})
    for line in sys.stdin:
        asked = json.loads(line)
        if tables := asked.get("tables"):
            for name, location in tables.items():
                connection.query(table(name, location))
            say({"ready": 1})
        else:
            say(job(connection, **asked))
    connection.close()


if __name__ == "__main__":
    main()
