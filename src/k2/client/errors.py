"""What goes wrong when K2 is asked, told as the problem documents of the HTTP API tell it (RFC 9457)."""

from collections.abc import Mapping
from typing import Any

import msgspec


class K2Error(Exception):
    """`title` is the kind of problem, `detail` the cause this time, `remedy` what to do. `status` is the HTTP status
    that the API gives it (0 where nobody answered), `extra` what else the document says."""

    def __init__(
        self, title: str, detail: str = "", remedy: str = "", status: int = 0, extra: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(title, detail, remedy, status)
        self.title = title
        self.detail = detail
        self.remedy = remedy
        self.status = status
        self.extra = dict(extra or {})

    def __str__(self) -> str:
        return "; ".join(part.strip().rstrip(".") for part in (self.title, self.detail, self.remedy) if part)


class InvalidQuestion(K2Error):
    """The question cannot be answered as it was put: a parameter, the SQL, something that does not exist."""


class AccessDenied(K2Error):
    """A key is missing, unknown, revoked or expired, or may not do this."""


class TooManyRequests(K2Error):
    """A limit of the key was reached. `retry_after` is in seconds."""

    @property
    def retry_after(self) -> float:
        try:
            return float(self.extra.get("retry_after", 1.0))
        except (TypeError, ValueError):
            return 1.0


class Unavailable(K2Error):
    """Nobody answers, the answer broke off, or what answers cannot just now. Asking again later may help."""


class TooSlow(K2Error):
    """A live stream was closed because its reader was too slow; `extra["positions"]` says where it may go on."""


_KINDS: Mapping[int, type[K2Error]] = {401: AccessDenied, 403: AccessDenied, 429: TooManyRequests}


class _Document(msgspec.Struct):
    title: str = ""
    detail: str = ""
    remedy: str = ""


def kind_of(status: int) -> type[K2Error]:
    """What an HTTP status means."""
    return _KINDS.get(status) or (InvalidQuestion if 400 <= status < 500 else Unavailable)


def of_status(status: int, body: bytes, where: str, headers: Mapping[str, str] | None = None) -> K2Error:
    """The error that an answer stands for; `body` is a problem document, or whatever a stranger in between says."""
    try:
        document = msgspec.json.decode(body, type=_Document)
        extra = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError):
        words = body[:200].decode("utf-8", "replace").strip()
        document, extra = _Document(f"{where} answered with HTTP status {status}", words), {}
    for known in ("type", "title", "status", "detail", "remedy", "instance"):
        extra.pop(known, None)
    if retry := (headers or {}).get("Retry-After"):
        extra.setdefault("retry_after", retry)
    return kind_of(status)(document.title or f"HTTP status {status}", document.detail, document.remedy, status, extra)
