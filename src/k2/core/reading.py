"""Reading what a venue sent: exact numbers and times out of its text, and junk into faults instead of exceptions.

The bounds are those of what comes after: a price or quantity fits ClickHouse's Decimal(38, 18), an id and a time in
nanoseconds fit an Int64.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, TypeVar
from urllib.parse import parse_qsl

import msgspec

from k2.core.types import Event, Fault, Trade

T = TypeVar("T")

MAX_ID = 2**63 - 1
MIN_NS = 946_684_800_000_000_000  # 2000-01-01
MAX_NS = 7_258_118_400_000_000_000  # 2200-01-01

NOT_JSON = "not-json"  # cut off, not UTF-8, or no JSON at all
UNKNOWN_SHAPE = "unknown-shape"  # JSON, but no message that the venue documents
BAD_FIELD = "bad-field"  # a field is missing or has the wrong type
BAD_NUMBER = "bad-number"  # not a plain decimal number, or more digits than 20 before and 18 after the point
NOT_A_TRADE = "not-a-trade"  # price or quantity zero
BAD_ID = "bad-id"  # outside 1..2^63-1
BAD_TIME = "bad-time"  # not a time, or outside 2000..2200
UNKNOWN_SYMBOL = "unknown-symbol"
REST_ERROR = "rest-error"  # an error told in the body; told by the status, it is `rest-<status>`
RATE_LIMITED = "rate-limited"  # an error told in the body that means: too many requests

MAX_TEXT = 40  # no number, symbol or time is longer; what is cached is bounded by it
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]

JSON_ERRORS = (msgspec.MsgspecError, UnicodeError, RecursionError)

_amount = re.compile(r"(?![0.]*\Z)[0-9]{1,20}(?:\.[0-9]{1,18})?\Z").match
_exponent = re.compile(r"[0-9]{1,40}(?:\.[0-9]{1,40})?[eE][+-]?[0-9]{1,2}\Z").match
_zero = re.compile(r"-?0+(?:\.0*)?(?:[eE][+-]?[0-9]*)?\Z").match
_zone = re.compile(r"(.{19})(?:\.([0-9]+))?(?:Z|[+-]00:00)\Z", re.DOTALL).match
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ReadingError(Exception):
    """Internal to decoders: becomes a Fault of this reason before anybody outside sees it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def fault(self, exchange: str, payload: bytes) -> Fault:
        return Fault(exchange, self.reason, self.detail, payload)


@lru_cache(maxsize=16384)
def is_amount(text: str) -> bool:
    """Is this plain decimal text of a number above zero, with at most 20 digits before the point and 18 after it?"""
    return _amount(text) is not None


def amount(text: str) -> str:
    """A price or quantity as it stands in the JSON, unchanged; exponent forms (`1e-8`) written out, equally exact."""
    if len(text) <= MAX_TEXT and is_amount(text):
        return text
    if _zero(text):
        raise ReadingError(NOT_A_TRADE, f"zero is no price or quantity of a trade: {text[:60]!r}")
    if _exponent(text):
        written_out = format(Decimal(text), "f")
        if is_amount(written_out):
            return written_out
    raise ReadingError(BAD_NUMBER, f"not a price or quantity: {text[:60]!r}")


def trade_id(number: int) -> int:
    if 1 <= number <= MAX_ID:
        return number
    raise ReadingError(BAD_ID, f"not a trade id: {number}"[:200])


def in_range(ns: int, text: object) -> int:
    """The time, if it lies in the years 2000 to 2199."""
    if MIN_NS <= ns < MAX_NS:
        return ns
    raise ReadingError(BAD_TIME, f"not a time between 2000 and 2200: {text!r}"[:200])


@lru_cache(maxsize=4096)
def _second(text: str) -> int:
    """`2026-11-23T06:47:08.` to ns."""
    if len(text) != 20 or not text.isascii() or text[10] not in "Tt " or text[19] != ".":
        raise ReadingError(BAD_TIME, f"not an RFC 3339 time: {text!r}")
    try:
        seconds = (datetime.fromisoformat(text[:19]).replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)
    except ValueError as error:
        raise ReadingError(BAD_TIME, f"not an RFC 3339 time: {text!r}: {error}") from None
    return in_range(seconds * 1_000_000_000, text)


def rfc3339_ns(text: str) -> int:
    """An RFC 3339 time in UTC, with any number of fraction digits, to ns."""
    fraction = text[20:26]
    if len(text) == 27 and text[26] == "Z" and fraction.isdigit() and fraction.isascii():
        return _second(text[:20]) + int(fraction) * 1000
    match = _zone(text)
    if match is None:
        raise ReadingError(BAD_TIME, f"not an RFC 3339 time in UTC: {text[:60]!r}")
    return _second(f"{match[1]}.") + _fraction_ns(match[2] or "")


def unix_ns(text: str) -> int:
    """Seconds since 1970 as a JSON number (`1688669597.8277369`) to ns, exactly."""
    try:
        seconds, _, fraction = amount(text).partition(".")
    except ReadingError:
        raise ReadingError(BAD_TIME, f"not a time in seconds: {text[:60]!r}") from None
    return in_range(int(seconds) * 1_000_000_000 + _fraction_ns(fraction), text)


def _fraction_ns(digits: str) -> int:
    if digits[9:].strip("0"):
        raise ReadingError(BAD_TIME, f"a time finer than a nanosecond: .{digits[:60]}")
    return int(digits[:9].ljust(9, "0"))


def why(error: Exception) -> ReadingError:
    """What a failed decoding means: no JSON, or JSON of the wrong types."""
    reason = BAD_FIELD if isinstance(error, msgspec.ValidationError) else NOT_JSON
    return ReadingError(reason, str(error)[:200] or type(error).__name__)


def parse(payload: bytes | msgspec.Raw, decode: Callable[[bytes | msgspec.Raw], T]) -> T:
    """Decode JSON, or raise ReadingError."""
    try:
        return decode(payload)
    except JSON_ERRORS as error:
        raise why(error) from None


_decode_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode


def trades(
    exchange: str,
    payload: bytes | msgspec.Raw,
    decode_row: Callable[[bytes | msgspec.Raw], T],
    to_trade: Callable[[T], Trade],
) -> list[Event]:
    """A JSON list of trades, read row by row: the good ones by ascending id, then a Fault for each bad one.

    Raises ReadingError if it is no list.
    """
    good: list[Trade] = []
    bad: list[Event] = []
    for raw in parse(payload, _decode_rows):
        try:
            good.append(to_trade(parse(raw, decode_row)))
        except ReadingError as error:
            bad.append(error.fault(exchange, bytes(raw)))
    good.sort(key=_id_of)
    return [*good, *bad]


def _id_of(trade: Trade) -> int:
    return trade.trade_id


def request_of(request: str) -> tuple[int, str, dict[str, str]]:
    """A `rest` frame's "<status> <path?query>" to status, path and query. Raises ReadingError."""
    status, _, target = request.partition(" ")
    path, _, query = target.partition("?")
    if not (len(status) == 3 and status.isdecimal() and path.startswith("/")):
        raise ReadingError(UNKNOWN_SHAPE, f"not an answered request: {request[:200]!r}")
    if int(status) >= 400:
        raise ReadingError(f"rest-{int(status)}", f"{path} answered {int(status)}")
    return int(status), path, dict(parse_qsl(query))


def query_of(path: str) -> dict[str, str]:
    """The query of a request's path."""
    return dict(parse_qsl(path.partition("?")[2]))
