"""Times as people write them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.ask import AskError
from k2.ask.times import LATEST, format_time, parse_time

NOW = 1_767_323_045_123_456_789  # 2026-01-02T03:04:05.123456789Z
SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("now", NOW),
        ("-15m", NOW - 900 * SECOND),
        ("now-15m", NOW - 900 * SECOND),
        ("-24h", NOW - 86_400 * SECOND),
        ("-7d", NOW - 7 * 86_400 * SECOND),
        ("-2w", NOW - 14 * 86_400 * SECOND),
        ("-0s", NOW),
        ("-999999999d", 0),
        (str(NOW), NOW),
        ("0", 0),
        ("2026-01-02T03:04:05.123456789Z", NOW),
        ("2026-01-02T03:04:05.1234567Z", NOW - 89),
        ("2026-01-02 03:04:05.123456789", NOW),
        ("2026-01-02T03:04:05,123456789+00:00", NOW),
        ("2026-01-02T05:34:05.123456789+02:30", NOW),
        ("2026-01-01T22:04:05.123456789-0500", NOW),
        ("2026-01-02T03:04Z", NOW - 5_123_456_789),
        ("2026-01-02", NOW - (3 * 3600 + 4 * 60 + 5) * SECOND - 123_456_789),
        (" 2026-01-02t03:04:05.123456789z ", NOW),
    ],
)
def test_what_may_be_written(text: str, ns: int) -> None:
    assert parse_time(text, NOW) == ns


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "-15", "15m", "-15y", "2026-13-01", "2026-02-30T00:00:00Z", "2026-01-02T25:00:00Z", "1767323045",
     "2026-01-02T03:04:05.1234567890Z", "-5", "1e18", "９", "2026-01-02T03:04:05+99:00", "1969-12-31", "2500-01-01",
     "99999999999999999999", "2026-01-02T03:04:05 Z;"],
)  # fmt: skip
def test_what_may_not(text: str) -> None:
    with pytest.raises(AskError) as error:
        parse_time(text, NOW, "from")
    assert error.value.parameter == "from"
    assert text.strip() in str(error.value)
    assert "RFC 3339" in error.value.remedy


@given(st.integers(0, LATEST - 1), st.integers(-23 * 60, 23 * 60))
def test_any_time_with_any_offset_comes_back(ns: int, offset: int) -> None:
    zone = timezone(timedelta(minutes=offset))
    there = datetime.fromtimestamp(ns // SECOND, UTC).astimezone(zone)
    clock = there.strftime("%H:%M:%S")
    sign = "-" if offset < 0 else "+"
    text = f"{there.date().isoformat()}T{clock}.{ns % SECOND:09}{sign}{abs(offset) // 60:02}:{abs(offset) % 60:02}"
    assert parse_time(text, 0) == ns
    assert parse_time(format_time(ns), 0) == ns
    assert parse_time(format_time(ns, 0), 0) == ns // SECOND * SECOND
