"""Times as people write them, to ns since 1970 UTC and back. The present is handed in."""

import re
from datetime import UTC, datetime, timedelta

from k2.ask import AskError

SECOND = 1_000_000_000
LATEST = 7_258_118_400 * SECOND  # the year 2200
UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RELATIVE = re.compile(r"(?:now)?-(\d{1,9})([smhdw])\Z")
_STAMP = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[Tt ](\d{2}:\d{2}(?::\d{2})?)(?:[.,](\d{1,9}))?\s*([Zz]|[+-]\d{2}:?\d{2})?)?\Z", re.ASCII
)
_REMEDY = "write RFC 3339 (2026-01-31T12:00:00Z), ns since 1970, how long ago (-15m, -24h, -7d), or now"


def parse_time(text: str, now_ns: int, parameter: str = "time") -> int:
    """A time in ns since 1970 UTC: RFC 3339 with any offset and up to 9 decimals (UTC where it names none; a date alone
    is its midnight), ns since 1970, how long ago (`-15m`: s, m, h, d, w), or `now`. Raises AskError."""
    text = text.strip()
    if text == "now":
        return now_ns
    if relative := _RELATIVE.match(text):
        return max(0, now_ns - int(relative[1]) * UNITS[relative[2]] * SECOND)
    if text.isascii() and text.isdigit():
        return _numbered(text, parameter)
    if stamp := _STAMP.match(text):
        return _stamped(text, stamp.groups(default=""), parameter)
    raise AskError(parameter, text, "it is no time", _REMEDY)


def _numbered(text: str, parameter: str) -> int:
    ns = int(text)
    if ns == 0 or 946_684_800 * SECOND <= ns < LATEST:
        return ns
    raise AskError(parameter, text, "as ns since 1970 it is no time from 2000 to 2200", _REMEDY)


def _stamped(text: str, stamp: tuple[str, ...], parameter: str) -> int:
    day, time, decimals, offset = stamp
    zone = "+00:00" if offset in ("", "Z", "z") else offset
    try:
        moment = datetime.fromisoformat(f"{day}T{time or '00:00'}{zone}")
        seconds = (moment - _EPOCH) // timedelta(seconds=1)
    except (ValueError, OverflowError) as error:
        raise AskError(parameter, text, f"it is no time ({error})", _REMEDY) from None
    ns = seconds * SECOND + int(decimals.ljust(9, "0") or 0)
    if not 0 <= ns < LATEST:
        raise AskError(parameter, text, "it is no time from 1970 to 2200", _REMEDY)
    return ns


def format_time(ns: int, decimals: int = 9) -> str:
    """RFC 3339 in UTC, with so many decimals (cut, not rounded)."""
    seconds, rest = divmod(ns, SECOND)
    stamp = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    return stamp + (f".{rest:09d}"[: decimals + 1] if decimals else "") + "Z"
