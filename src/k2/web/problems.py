"""What goes wrong, told as RFC 9457 problem documents: the cause, and what to do about it."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from k2.store import StoreError, StoreUnavailable

MEDIA_TYPE = "application/problem+json"
_PREFIX = re.compile(r"^(?:Code: \d+\. )?(?:DB::Exception: )?")
_LIMITS = (159, 160, 241, 158, 307, 396)  # time, estimated time, memory, rows and bytes read, size of the result
_REFUSED = (164, 497)
KINDS = {
    "answer-too-large": "The answer is larger than web.max_response_mb. Ask for less at once.",
    "body-too-large": "The request's body is too large.",
    "cold": "The cold tier cannot be read.",
    "cross-origin": "A web page of another origin made the request, and web.cors_origins does not name it.",
    "foreign-host": "The request names another host than loopback, on which alone this K2 answers.",
    "internal": "A fault of K2 itself. Its log has the details.",
    "invalid-body": "The request's body is not JSON.",
    "invalid-field": "A field of the request's body is missing, or not what it may be.",
    "invalid-parameter": "A parameter is missing, or not what it may be.",
    "key": "A key is required, and none came, or one that is unknown, revoked or expired.",
    "key-in-url": "A key stands in the URL of a request that could have sent it in a header.",
    "keys": "The file of keys cannot be read. Nobody is let in meanwhile.",
    "log": "The log cannot be read.",
    "method": "The path exists, but not with this method.",
    "no-log": "This process has no log to read: it serves a folder without one.",
    "no-stream": "The log has no stream of this name.",
    "not-acceptable": "The answer has no form that the Accept header admits.",
    "not-found": "There is nothing at this path.",
    "not-ready": "Data does not flow: an exchange is silent, the loader is behind, or the store does not answer.",
    "rate": "Too many requests in too short a time. Retry-After says how long to wait.",
    "no-candles": "Candles cannot be had, or stand still: they come from the store.",
    "statement-failed": "The store could not carry out the statement.",
    "statement-refused": "The statement would do more than read K2's own tables.",
    "store-busy": "Too many questions at once.",
    "store-refused": "The store refused a question of K2's own: a fault of K2 or of its data.",
    "store-unavailable": "The store does not answer: it is stopped, or starting.",
    "stream-broken": "A live stream cannot go on. The positions of its messages say where to resume.",
    "stream-message": "A message on a live stream was not understood.",
    "stream-start": "The log does not have the position where a stream was to start.",
    "stream-subscription": "A connection's subscriptions: the id is taken or unknown, or there are too many.",
    "streams-full": "As many live streams are open as web.subscribers allows, or the server is stopping.",
    "too-much-work": "The question took more time, memory or rows than it may.",
    "unknown-parameter": "There is no parameter of this name.",
    "upgrade": "The path is a stream: it is for WebSocket clients, and for those that accept text/event-stream.",
    "unsupported-media-type": "The request's body is of a type that is not understood here.",
}  # what a Problem's slug means; /docs/problems shows it


class Problem(Exception):
    """Raised by whoever answers a request; the frame makes the document of it.

    `detail` is the cause in this very case, `remedy` what the person may do. `slug` names the kind of problem, as
    `KINDS` explains it; "" for one that its status tells enough of. `extra` are further members of the document.
    None of them may hold a secret. `headers` go with the answer.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        remedy: str = "",
        slug: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(f"{title}: {detail}")
        self.status = status
        self.title = title
        self.detail = detail
        self.remedy = remedy
        self.slug = slug
        self.headers = dict(headers or {})
        self.extra = extra

    def document(self, instance: str = "") -> dict[str, Any]:
        """The members of the problem document. `instance` is the request's path, without its query."""
        found: dict[str, Any] = {
            "type": f"/docs/problems#{self.slug}" if self.slug else "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.remedy:
            found["remedy"] = self.remedy
        if instance:
            found["instance"] = instance
        whole = {**self.extra, **found}
        return {name: _readable(value) if isinstance(value, str) else value for name, value in whole.items()}

    def encoded(self, instance: str = "") -> bytes:
        """The document as JSON, in one line."""
        return msgspec.json.encode(self.document(instance))


def _readable(text: str) -> str:
    """Headers may hold bytes that are no text; where they are quoted, they are written out."""
    return text.encode("utf-8", "backslashreplace").decode()


class ProblemDocument(msgspec.Struct, omit_defaults=True):
    """An RFC 9457 problem document. Further members may follow."""

    type: Annotated[str, Meta(description="`about:blank`, or where this kind of problem is explained.")]
    title: Annotated[str, Meta(description="The kind of problem, the same each time.")]
    status: Annotated[int, Meta(description="The HTTP status.")]
    detail: Annotated[str, Meta(description="The cause, this time.")]
    remedy: Annotated[str, Meta(description="What to do.")] = ""
    instance: Annotated[str, Meta(description="The path that was asked for.")] = ""


def of_store(error: StoreError, reader: bool = False) -> Problem:
    """What a failure of the store is to the person who asked. `reader`: the statement was theirs."""
    text = _PREFIX.sub("", str(error)).split("\n")[0][:1000]
    if isinstance(error, StoreUnavailable):
        remedy = "ask again in some seconds; if it stays so: is the store running? (`k2 status`, `k2 up`, `k2 store`)"
        return Problem(503, "Store unavailable", text, remedy, "store-unavailable", headers={"Retry-After": "2"})
    if error.code == 202:
        remedy = "ask again, with fewer questions at once"
        return Problem(503, "Store busy", text, remedy, "store-busy", headers={"Retry-After": "1"})
    if error.code in _LIMITS:
        remedy = "ask for less at once: a shorter time, fewer symbols, fewer rows"
        return Problem(422, "Too much work", text, remedy, "too-much-work", code=error.code)
    if error.code in _REFUSED:
        remedy = "only reading is possible, of K2's own tables: see docs/SCHEMA.md"
        return Problem(403, "Statement refused", text, remedy, "statement-refused", code=error.code)
    if reader:
        return Problem(400, "Statement failed", text, "mend the statement", "statement-failed", code=error.code)
    remedy = "this is a fault of K2 or of its data: `k2 verify` and the store's log may tell more"
    return Problem(500, "Store refused", text, remedy, "store-refused", code=error.code)
