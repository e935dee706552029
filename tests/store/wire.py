"""Requests as curl and Grafana's data source make them: nothing between the test and the wire but http.client."""

import http.client
from typing import NamedTuple
from urllib.parse import urlencode

from tests.patience import PATIENCE_S


class Reply(NamedTuple):
    """Status, headers in lower case, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> int:
        return int(self.headers.get("x-clickhouse-exception-code", 0))


def ask(
    port: int,
    body: bytes | None = None,
    *,
    method: str = "",
    path: str = "/",
    headers: dict[str, str] | None = None,
    timeout: float = PATIENCE_S,
    **params: str,
) -> Reply:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        target = path + ("?" + urlencode(params) if params else "")
        connection.request(method or ("GET" if body is None else "POST"), target, body, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, data)
    finally:
        connection.close()
