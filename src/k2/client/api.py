"""The HTTP API of `k2 web` as a source."""

import ssl
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
import urllib3
from urllib3.exceptions import HTTPError

from k2.client.arrow import ArrowBatches
from k2.client.errors import K2Error, Unavailable, of_status
from k2.client.result import Batches
from k2.client.source import Params

ARROW = "application/vnd.apache.arrow.stream"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CHUNK = 1 << 18
# Every request here only reads, so it may be sent again as long as no answer has begun. A status is an answer.
_AGAIN = urllib3.Retry(
    total=3, connect=3, read=2, status=0, redirect=0, other=0, backoff_factor=0.1, allowed_methods=None,
    respect_retry_after_header=False,
)  # fmt: skip


class Api:
    """`k2 web` at `url` (`http://host:port`). `ca_file`: a further authority for TLS. `timeout` is seconds without a
    byte."""

    def __init__(self, url: str, key: str | None = None, ca_file: str | None = None, timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise K2Error("No address", f"{url!r} is not the address of `k2 web`", "write http://HOST:PORT")
        self._base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        self.name = self._base
        self._headers = {"Accept": ARROW, "User-Agent": "k2-client"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        if parts.hostname not in _LOOPBACK:
            self._headers["Accept-Encoding"] = "zstd, gzip"
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        if self._tls and ca_file:
            self._tls.load_verify_locations(ca_file)
        self._pool = urllib3.PoolManager(
            ssl_context=self._tls, timeout=urllib3.Timeout(connect=5.0, read=timeout), retries=_AGAIN, maxsize=8
        )

    def __repr__(self) -> str:
        return f"Api({self._base})"

    def table(self, path: str, params: Params) -> Batches:
        return self._batches("GET", f"{path}?{urlencode(_flat(params))}", None, named=True)

    def sql(self, text: str, params: Params) -> Batches:
        body = msgspec.json.encode({"query": text, "params": params})
        return self._batches("POST", "/v1/sql", body, named=False)

    def json(self, path: str) -> Any:
        """The answer of `GET path`, decoded."""
        response = self._request("GET", path, None, {"Accept": "application/json"})
        try:
            return msgspec.json.decode(response.read(decode_content=True))
        except (HTTPError, OSError, msgspec.MsgspecError) as error:
            raise self._broken(error) from None
        finally:
            response.release_conn()

    def live(self) -> tuple[str, Mapping[str, str], Any]:
        headers = {name: text for name, text in self._headers.items() if name in ("Authorization", "User-Agent")}
        return f"ws{self._base.removeprefix('http')}/v1/stream", headers, self._tls or True

    def close(self) -> None:
        self._pool.clear()

    def _batches(self, method: str, target: str, body: bytes | None, named: bool) -> Batches:
        response = self._request(method, target, body)
        return ArrowBatches(self._chunks(response), named, done=response.close)

    def _request(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        sent = {**self._headers, **(headers or {}), **({"Content-Type": "application/json"} if body else {})}
        try:
            response = self._pool.request(
                method, self._base + target, body=body, headers=sent, preload_content=False, redirect=False
            )
            if response.status == 200:
                return response
            told = response.read(1 << 16, decode_content=True)
            response.close()
        except (HTTPError, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise Unavailable(
                "K2 does not answer", f"{self._base}: {reason}", "start it with `k2 web`, or check the address"
            ) from None
        raise of_status(response.status, told, self._base, response.headers)

    def _chunks(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            yield from response.stream(_CHUNK, decode_content=True)
        except (HTTPError, OSError) as error:
            raise self._broken(error) from None
        response.release_conn()

    def _broken(self, error: Exception) -> Unavailable:
        return Unavailable("The answer broke off", f"{self._base}: {error}", "ask again")


def _flat(params: Params) -> list[tuple[str, str]]:
    return [(name, _text(value)) for name, value in params.items() if value is not None]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return str(value)
