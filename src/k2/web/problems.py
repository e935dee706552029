"""What goes wrong, told as RFC 9457 problem documents: the cause, and what to do about it."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

MEDIA_TYPE = "application/problem+json"


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
        return {**found, **{name: value for name, value in self.extra.items() if name not in found}}

    def encoded(self, instance: str = "") -> bytes:
        """The document as JSON, in one line."""
        return msgspec.json.encode(self.document(instance))


class ProblemDocument(msgspec.Struct, omit_defaults=True):
    """An RFC 9457 problem document. Further members may follow."""

    type: Annotated[str, Meta(description="`about:blank`, or where this kind of problem is explained.")]
    title: Annotated[str, Meta(description="The kind of problem, the same each time.")]
    status: Annotated[int, Meta(description="The HTTP status.")]
    detail: Annotated[str, Meta(description="The cause, this time.")]
    remedy: Annotated[str, Meta(description="What to do.")] = ""
    instance: Annotated[str, Meta(description="The path that was asked for.")] = ""
