"""What a client asks for, read from the URL and the headers of one HTTP request, before its body."""

import base64
import hmac
import uuid
from collections.abc import Mapping
from typing import NamedTuple

from k2.store.server.status import refusal

_INTERFACE_WORDS = """
    query database default_format query_id user password session_id session_timeout session_check compress decompress
    buffer_size wait_end_of_query client_protocol_version quota_key stacktrace role close_session
"""
_HTTP_SERVER_WORDS = """
    add_http_cors_header cancel_http_readonly_queries_on_client_close enable_http_compression http_connection_timeout
    http_headers_progress_interval_ms http_max_chunk_size http_receive_timeout http_response_buffer_size
    http_send_timeout http_wait_end_of_query http_write_exception_in_output_format http_zlib_compression_level
    http_native_compression_disable_checksumming_on_decompress send_progress_in_http_headers
    network_compression_method network_zstd_compression_level
"""
_INTERFACE = frozenset(_INTERFACE_WORDS.split())  # all else is `param_*` or a setting of the engine
_HTTP_SERVER_SETTINGS = frozenset(_HTTP_SERVER_WORDS.split())  # they speak to ClickHouse's own HTTP server
_ENCODINGS = ("lz4", "zstd", "br", "gzip", "deflate", "xz", "bz2", "snappy")  # best first
_LONGEST_ID = 500
_EXTERNAL = ("_format", "_types", "_structure")


class Account(NamedTuple):
    """Somebody who may speak to the store."""

    name: str
    password: str
    readonly: bool

    def __repr__(self) -> str:
        return f"Account({self.name!r})"


class Ask(NamedTuple):
    """One request, less its body."""

    account: Account
    method: str
    query: str
    query_id: str
    database: str
    database_named: bool  # by the request, not by default
    default_format: str
    params: dict[str, str]
    settings: dict[str, str]
    session_id: str
    session_timeout: float
    session_check: bool
    buffered: bool
    encoding: str  # of the answer; empty: none
    native_frames: bool  # the answer in ClickHouse's own compressed frames
    frames_in: bool  # the body comes in them
    protocol_version: int


def read(method: str, query: Mapping[str, str], headers: Mapping[str, str], accounts: Mapping[str, Account]) -> Ask:
    """Read a request. Raises StoreError with ClickHouse's code."""
    account = _authenticate(query, headers, accounts)
    params = {name[6:]: value for name, value in query.items() if name.startswith("param_")}
    settings = {
        name: value
        for name, value in query.items()
        if name not in _INTERFACE and name not in _HTTP_SERVER_SETTINGS and not name.startswith("param_")
    }
    if "multipart/form-data" in headers.get("Content-Type", ""):
        settings = {name: value for name, value in settings.items() if not name.endswith(_EXTERNAL)}
    native_frames = _flag(query, "compress")
    named = query.get("database") or headers.get("X-ClickHouse-Database") or ""
    return Ask(
        account=account,
        method=method,
        query=query.get("query", ""),
        query_id=_query_id(query.get("query_id", "")),
        database=named or ("k2" if account.readonly else "default"),
        database_named=bool(named),
        default_format=query.get("default_format") or headers.get("X-ClickHouse-Format") or "TabSeparated",
        params=params,
        settings=settings,
        session_id=query.get("session_id", ""),
        session_timeout=_session_timeout(query.get("session_timeout", "60")),
        session_check=_flag(query, "session_check"),
        buffered=_flag(query, "wait_end_of_query") or _flag(query, "http_wait_end_of_query"),
        encoding="" if native_frames else _encoding(query, headers.get("Accept-Encoding", "")),
        native_frames=native_frames,
        frames_in=_flag(query, "decompress"),
        protocol_version=_number(query, "client_protocol_version"),
    )


def _flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "0").lower() in ("1", "true")


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "0")
    if not _digits(text):
        raise refusal(27, "CANNOT_PARSE_INPUT_ASSERTION_FAILED", f"{name} is {text[:60]!r}, not a number")
    return int(text)


def _query_id(text: str) -> str:
    if not text:
        return str(uuid.uuid4())
    if len(text) > _LONGEST_ID or not text.isprintable():  # it stands in a header of the answer
        raise refusal(36, "BAD_ARGUMENTS", f"query_id has at most {_LONGEST_ID} printable characters")
    return text


def _digits(text: str) -> bool:
    """A number of up to 18 digits. Of other scripts' digits, too, `isdigit` says that they are; `int` refuses some."""
    return text.isascii() and text.isdigit() and len(text) <= 18


def _session_timeout(text: str) -> float:
    if not _digits(text):
        raise refusal(374, "INVALID_SESSION_TIMEOUT", f"Invalid session timeout: {text[:60]!r}")
    if int(text) > 3600:
        raise refusal(
            374, "INVALID_SESSION_TIMEOUT", f"Session timeout '{text}' is larger than max_session_timeout: 3600"
        )
    return float(text)


def _encoding(query: Mapping[str, str], accepted: str) -> str:
    """The first of ours that the client accepts. As in ClickHouse, it must be switched on by `enable_http_compression`,
    which is on by default."""
    if query.get("enable_http_compression", "1") in ("0", "false") or not accepted:
        return ""
    offered = {}
    for item in accepted.split(","):
        name, _, weight = item.strip().partition(";")
        offered[name.strip().lower()] = weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return next((name for name in _ENCODINGS if offered.get(name)), "")


def _authenticate(query: Mapping[str, str], headers: Mapping[str, str], accounts: Mapping[str, Account]) -> Account:
    name, password = _credentials(query, headers)
    account = accounts.get(name)
    expected = account.password if account else ""
    same = hmac.compare_digest(expected.encode(), password.encode("utf-8", "backslashreplace"))
    if account is None or not same:
        raise refusal(
            516,
            "AUTHENTICATION_FAILED",
            f"{name}: Authentication failed: password is incorrect, or there is no user with such name",
        )
    return account


def _credentials(query: Mapping[str, str], headers: Mapping[str, str]) -> tuple[str, str]:
    if "X-ClickHouse-User" in headers or "X-ClickHouse-Key" in headers:
        return headers.get("X-ClickHouse-User", "default"), headers.get("X-ClickHouse-Key", "")
    if "Authorization" in headers:
        scheme, _, token = headers["Authorization"].partition(" ")
        try:
            name, _, password = base64.b64decode(token, validate=True).decode().partition(":")
        except ValueError:  # also binascii.Error, UnicodeError
            raise refusal(516, "AUTHENTICATION_FAILED", "The Authorization header is not valid base64") from None
        if scheme.lower() != "basic":
            raise refusal(516, "AUTHENTICATION_FAILED", f"'{scheme}' HTTP Authorization scheme is not supported")
        return name or "default", password
    return query.get("user") or "default", query.get("password", "")
