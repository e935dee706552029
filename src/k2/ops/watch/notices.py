"""What Alertmanager tells: a webhook on loopback, and the book that is kept of it."""

import json
import logging
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

MAX_BODY = 16 << 20

logger = logging.getLogger("k2.watch")


class Notice(NamedTuple):
    """One alert as it was told. `at` in epoch seconds, when it was received; `receiver` as routed."""

    at: float
    firing: bool
    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    receiver: str

    def has(self, name: str, labels: Mapping[str, str]) -> bool:
        return self.name == name and labels.items() <= self.labels.items()


class Book:
    """Every change that was told: an alert that fires, or that is over. What is merely repeated is not kept again."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._notices: list[Notice] = []
        self._firing: dict[tuple[str, tuple[tuple[str, str], ...]], bool] = {}
        self.last_heard = 0.0

    def add(self, body: Mapping[str, Any]) -> None:
        """One message of Alertmanager's webhook."""
        now = time.time()
        with self._changed:
            self.last_heard = now
            for alert in body["alerts"]:
                labels = dict(alert["labels"])
                key = str(body["receiver"]), tuple(sorted(labels.items()))
                firing = alert["status"] == "firing"
                if self._firing.get(key, False) != firing:
                    self._firing[key] = firing
                    self._notices.append(
                        Notice(now, firing, labels["alertname"], labels, alert["annotations"], body["receiver"])
                    )
            self._changed.notify_all()

    def notices(self, since: float = 0.0) -> list[Notice]:
        """What was told from that time on, in order."""
        with self._changed:
            return [notice for notice in self._notices if notice.at >= since]

    def first(self, name: str, since: float, firing: bool, labels: Mapping[str, str], within: float) -> Notice | None:
        """The first such notice from that time on, waited for at most `within` seconds."""
        deadline = time.monotonic() + within
        with self._changed:
            while True:
                for notice in self._notices:
                    if notice.at >= since and notice.firing == firing and notice.has(name, labels):
                        return notice
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)


class Webhook:
    """Listens on a free loopback port, in a thread; `url` takes the receiver's name behind it."""

    def __init__(self, book: Book) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                try:
                    if size > MAX_BODY:
                        raise ValueError(f"{size} bytes")
                    book.add(json.loads(self.rfile.read(size)))
                    status = 200
                except (ValueError, KeyError, TypeError) as error:
                    logger.error("a message of Alertmanager was not understood: %s", error)
                    status = 400
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Alertmanager's messages are kept in the book."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="webhook", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
