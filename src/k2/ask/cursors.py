"""Cursors: where a walk through an answer stands. Opaque to people, and good for the question they came from alone."""

import base64
import binascii
import hashlib
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from k2.ask import AskError

_REMEDY = "take the cursor of the page before, with the same parameters but limit, or leave it out to begin anew"


_Int64 = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`key` identifies the last row that was seen. What was relative when the walk began (`-15m`) holds for all of it:
    `bounds` are its times (ns), `as_of` its moment (ms)."""

    fingerprint: str
    key: tuple[_Int64 | str, ...]
    bounds: tuple[_Int64 | None, _Int64 | None] = (None, None)
    as_of: _Int64 | None = None


_decode = msgspec.json.Decoder(Cursor).decode


def fingerprint(*parts: Any) -> str:
    """Of a question: the same for the same question, whatever page of it is asked for."""
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=9).hexdigest()


def encode(cursor: Cursor) -> str:
    """As text that needs no escaping in a URL."""
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).rstrip(b"=").decode()


def decode(text: str, expected: str, kinds: tuple[type, ...]) -> Cursor:
    """The cursor, if it belongs to the question with the fingerprint `expected` and its key has these types. Raises
    AskError."""
    shown = text if len(text) <= 40 else text[:40] + "..."
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = _decode(raw)
    except (binascii.Error, ValueError, msgspec.MsgspecError):  # UnicodeEncodeError is a ValueError
        raise AskError("cursor", shown, "it is no cursor", _REMEDY) from None
    if cursor.fingerprint != expected:
        raise AskError("cursor", shown, "it belongs to another question", _REMEDY)
    if tuple(map(type, cursor.key)) != kinds:
        raise AskError("cursor", shown, "it is no cursor", _REMEDY)
    return cursor
