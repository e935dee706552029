"""Clients that go away in the middle: what they had sent never counts as all of it, and nobody else's data suffer."""

import random
import socket
import threading
from urllib.parse import quote

from tests.patience import PATIENCE_S

from k2.store.clickhouse import ClickHouseStore

from .conftest import StoreProcess

LINE = b"[" + b"7," * 20_000 + b"7]"


def send(store: StoreProcess, table: str, body: bytes, length: int) -> None:
    """Send an INSERT that says it has `length` bytes, and hang up without reading an answer."""
    sql = f"INSERT INTO {table} SELECT line FROM input('line String') FORMAT LineAsString"
    with socket.create_connection(("127.0.0.1", store.port)) as connection:
        head = f"POST /?query={quote(sql)} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode() + body)


def test_lines_stay_whole_while_others_hang_up(store: StoreProcess, client: ClickHouseStore) -> None:
    """The engine opens a pipe by the number of its file: it must be nobody else's by then."""
    for table in ("gone", "stays"):
        client.execute(f"CREATE TABLE k2.{table} (line String) ENGINE = MergeTree ORDER BY tuple()")
    rng = random.Random(5)
    stop = threading.Event()
    hung_up: list[int] = []

    def hang_up() -> None:
        while not stop.wait(0.05):
            sent = rng.choice((len(LINE), len(LINE) - 1, 20_000))
            send(store, "k2.gone", LINE[:sent], len(LINE))
            hung_up.append(sent)

    others = [threading.Thread(target=hang_up) for _ in range(2)]
    for other in others:
        other.start()
    try:
        inserted = 0
        while len(hung_up) < 100 or inserted < 20:
            inserted += 1
            client.insert("INSERT INTO k2.stays SELECT line FROM input('line String') FORMAT LineAsString", LINE)
    finally:
        stop.set()
        for other in others:
            other.join(PATIENCE_S)
    for table, least in (("k2.stays", inserted), ("k2.gone", 0)):
        ((rows, lengths),) = client.rows(f"SELECT count(), groupUniqArray(length(line)) FROM {table}")
        assert rows >= least
        assert set(lengths) <= {len(LINE)}, table
        client.execute(f"DROP TABLE {table}")
