"""Clients of the HTTP API in a process of their own: `python -m k2.ops.bench.serve_asker HOST PORT`.

It hears `{"path": ..., "clients": n, "times": m}`: so many clients, each on a connection that it keeps, ask for the
path so many times, one answer after the other. It says `{"seconds": [...], "bytes": n, "status": [...]}`: from each
request to the last byte of its answer, the bytes of one answer, and the statuses that came. `{"rows": path}` is
answered with the number of rows of an Arrow stream, and how many of its trade ids are different.
"""

import http.client
import json
import sys
import threading
import time
from typing import Any

_PIECE = 1 << 20


class Asker:
    """One client."""

    def __init__(self, host: str, port: int) -> None:
        self.connection = http.client.HTTPConnection(host, port, timeout=120)
        self.seconds: list[float] = []
        self.status: set[int] = set()
        self.size = 0

    def ask(self, path: str, times: int) -> None:
        room = bytearray(_PIECE)
        for _ in range(times):
            began = time.perf_counter()
            self.connection.request("GET", path, headers={"Accept-Encoding": "identity"})
            answer = self.connection.getresponse()
            self.size = 0
            while taken := answer.readinto(room):
                self.size += taken
            self.seconds.append(time.perf_counter() - began)
            self.status.add(answer.status)


def job(host: str, port: int, path: str, clients: int, times: int) -> dict[str, Any]:
    """Ask with all clients at once."""
    askers = [Asker(host, port) for _ in range(clients)]
    threads = [threading.Thread(target=asker.ask, args=(path, times)) for asker in askers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "seconds": [second for asker in askers for second in asker.seconds],
        "bytes": askers[0].size,
        "status": sorted({status for asker in askers for status in asker.status}),
    }


def rows(host: str, port: int, path: str) -> dict[str, int]:
    """What an Arrow stream holds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    connection = http.client.HTTPConnection(host, port, timeout=120)
    connection.request("GET", path)
    with pa.ipc.open_stream(connection.getresponse().read()) as reader:
        table = reader.read_all()
    return {"rows": table.num_rows, "different": pc.count_distinct(table["trade_id"]).as_py()}


def say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    host, port = sys.argv[1], int(sys.argv[2])
    say({"ready": 1})
    for line in sys.stdin:
        asked = json.loads(line)
        say(rows(host, port, asked["rows"]) if "rows" in asked else job(host, port, **asked))


if __name__ == "__main__":
    main()
