from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.core import reading
from k2.core.reading import ReadingError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2025-10-06T17:35:55.440295Z", 1_759_772_155_440_295_000),
        ("2025-10-06T17:35:55Z", 1_759_772_155_000_000_000),
        ("2025-10-06T17:35:55.4Z", 1_759_772_155_400_000_000),
        ("2025-10-06T17:35:55.123456789Z", 1_759_772_155_123_456_789),
        ("2025-10-06T17:35:55.123456789000Z", 1_759_772_155_123_456_789),
        ("2025-10-06T17:35:55.440295+00:00", 1_759_772_155_440_295_000),
        ("2000-01-01T00:00:00.000000Z", 946_684_800_000_000_000),
    ],
)
def test_times_keep_every_digit(text: str, ns: int) -> None:
    assert reading.rfc3339_ns(text) == ns


@given(st.integers(reading.MIN_NS // 1_000, reading.MAX_NS // 1_000 - 1))
def test_times_equal_the_calendar(microseconds: int) -> None:
    moment = EPOCH + timedelta(microseconds=microseconds)
    assert reading.rfc3339_ns(moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")) == microseconds * 1_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2025-10-06",
        "2025-10-06T17:35:55.440295",
        "2025-10-06T17:35:55.440295+02:00",
        "2025-13-06T17:35:55.440295Z",
        "2025-10-06T17:35:60.440295Z",
        "2025-10-06T17:35:55.4402٣٤Z",
        "2025-10-06T17:35:55.-40295Z",
        "2025-10-06T17:35:55.0000000001Z",
        "1999-12-31T23:59:59.999999Z",
        "2200-01-01T00:00:00.000000Z",
    ],
)
def test_what_is_no_time_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ReadingError) as error:
        reading.rfc3339_ns(text)
    assert error.value.reason == reading.BAD_TIME


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1688669597.8277369", 1_688_669_597_827_736_900),
        ("1688669597", 1_688_669_597_000_000_000),
        ("1688669597.123456789", 1_688_669_597_123_456_789),
        ("1.6886695978277369e9", 1_688_669_597_827_736_900),
    ],
)
def test_seconds_become_nanoseconds_without_a_float(text: str, ns: int) -> None:
    assert reading.unix_ns(text) == ns


@pytest.mark.parametrize("text", ["-1", "1688669597.1234567891", "16886695978", "true", '"1688669597"', "null"])
def test_what_is_no_number_of_seconds(text: str) -> None:
    with pytest.raises(ReadingError) as error:
        reading.unix_ns(text)
    assert error.value.reason == reading.BAD_TIME


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("0.01577160", "0.01577160"),
        ("105944.20", "105944.20"),
        ("63000", "63000"),
        ("1e-8", "0.00000001"),
        ("1.50E-9", "0.00000000150"),
        ("2.5e3", "2500"),
        ("99999999999999999999.999999999999999999", "99999999999999999999.999999999999999999"),
    ],
)
def test_amounts_keep_their_text(text: str, kept: str) -> None:
    assert reading.amount(text) == kept
    assert Decimal(kept) == Decimal(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0", reading.NOT_A_TRADE),
        ("0.00000000", reading.NOT_A_TRADE),
        ("-0.0", reading.NOT_A_TRADE),
        ("0e9", reading.NOT_A_TRADE),
        ("-1", reading.BAD_NUMBER),
        ("NaN", reading.BAD_NUMBER),
        ("Infinity", reading.BAD_NUMBER),
        ("1e99", reading.BAD_NUMBER),
        ("1e-19", reading.BAD_NUMBER),
        ("0.0000000000000000001", reading.BAD_NUMBER),
        ("100000000000000000000", reading.BAD_NUMBER),
        ("1,5", reading.BAD_NUMBER),
        ("1.", reading.BAD_NUMBER),
        (".5", reading.BAD_NUMBER),
        (" 1", reading.BAD_NUMBER),
        ("1\n", reading.BAD_NUMBER),
        ("１", reading.BAD_NUMBER),
        ("1_0", reading.BAD_NUMBER),
        ("", reading.BAD_NUMBER),
        ("9" * 1_000_000, reading.BAD_NUMBER),
    ],
)
def test_what_is_no_amount(text: str, reason: str) -> None:
    with pytest.raises(ReadingError) as error:
        reading.amount(text)
    assert error.value.reason == reason


@given(st.decimals("0.000000000000000001", "1e20", allow_nan=False))
def test_every_form_of_a_number_is_kept_exactly_or_refused(number: Decimal) -> None:
    for text in (str(number), format(number, "f"), format(number, "E")):
        try:
            kept = reading.amount(text)
        except ReadingError:
            continue
        assert Decimal(kept) == number
        assert set(kept) <= set("0123456789.")


@pytest.mark.parametrize("number", [0, -1, 2**63])
def test_ids_fit_the_store(number: int) -> None:
    with pytest.raises(ReadingError):
        reading.trade_id(number)
    assert reading.trade_id(2**63 - 1) == 2**63 - 1


def test_a_request_is_read_back() -> None:
    assert reading.request_of("200 /a/b?c=1&d=2") == (200, "/a/b", {"c": "1", "d": "2"})
    for request, reason in (("429 /a", "rest-429"), ("", reading.UNKNOWN_SHAPE), ("x /a", reading.UNKNOWN_SHAPE)):
        with pytest.raises(ReadingError) as error:
            reading.request_of(request)
        assert error.value.reason == reason
