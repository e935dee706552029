"""Cursors: opaque, theirs alone, and no way in."""

import base64
import json
import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.ask import AskError
from k2.ask.candles import Candles
from k2.ask.completeness import Completeness
from k2.ask.cursors import Cursor, decode, encode, fingerprint
from k2.ask.ledger import Gaps, Proofs
from k2.ask.symbols import Symbols
from k2.ask.trades import Trades

NOW = 1_767_323_045_123_456_789
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
MAYBE = st.none() | INT64
LAST_ROWS = {
    Trades: ("2026-01-02T03:04:05.123456789Z", "kraken", "BTC-USD", 0, 17),
    Candles: ("2026-01-02T03:04:00Z", "kraken", "BTC-USD"),
    Gaps: ("2026-01-02T03:04:05.123456789Z", "kraken", "BTC-USD", 0, 17),
    Completeness: ("2026-01-02T03:00:00Z", "kraken", "BTC-USD"),
    Symbols: ("kraken", "BTC-USD"),
    Proofs: ("2026-01-02", "kraken", "BTC-USD", 0),
}


@given(st.lists(INT64 | st.text(), max_size=6), st.tuples(MAYBE, MAYBE), MAYBE)
def test_comes_back_as_it_went(key: list[int | str], bounds: tuple[int | None, int | None], moment: int | None) -> None:
    cursor = Cursor(fingerprint("a"), tuple(key), bounds, moment)
    text = encode(cursor)
    assert set(text) <= set(string.ascii_letters + string.digits + "-_")
    assert decode(text, fingerprint("a"), tuple(map(type, key))) == cursor
    with pytest.raises(AskError, match="another question"):
        decode(text, fingerprint("b"), tuple(map(type, key)))


def forged(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).rstrip(b"=").decode()


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_junk_is_refused(text: str) -> None:
    with pytest.raises(AskError) as error:
        decode(text, fingerprint("a"), (int,))
    assert error.value.parameter == "cursor"


@pytest.mark.parametrize(
    "parts",
    [
        ([1 << 63],),
        (["1"],),
        ([1.5],),
        ([True],),
        ([1, 2],),
        ([],),
        ([[1]],),
        ([1], [None, 1 << 64]),
        ([1], ["0", None]),
        ([1], [None, None], "x"),
        ([1], [None, None], 1, 2),
    ],
)
def test_forgeries_are_refused(parts: tuple[object, ...]) -> None:
    with pytest.raises(AskError):
        decode(forged(fingerprint("a"), *parts), fingerprint("a"), (int,))


@pytest.mark.parametrize("kind", LAST_ROWS, ids=lambda kind: kind.__name__)
def test_a_walk_goes_on_with_the_same_question_alone(kind: type) -> None:
    question = kind(symbol=("BTC-USD",), limit=5)
    cursor = question.query(NOW).cursor(LAST_ROWS[kind])
    following = msgspec.structs.replace(question, cursor=cursor)
    again = following.query(NOW + 10**12)
    assert again.columns == question.query(NOW).columns
    assert again.params["symbols"] == ["BTC-USD"]
    assert msgspec.structs.replace(following, limit=9).query(NOW).limit == 9
    for other in ({"symbol": ("ETH-USD",)}, {"exchange": ("kraken",)}):
        with pytest.raises(AskError, match="another question"):
            msgspec.structs.replace(following, **other).query(NOW)


@pytest.mark.parametrize("kind", [kind for kind in LAST_ROWS if kind is not Symbols], ids=lambda kind: kind.__name__)
def test_what_was_relative_holds_for_the_whole_walk(kind: type) -> None:
    question = kind(from_="-1h", to="now", limit=5)
    first = question.query(NOW)
    cursor = first.cursor(LAST_ROWS[kind])
    later = msgspec.structs.replace(question, cursor=cursor).query(NOW + 10**15)
    name = "until" if "until" in first.params else "high"
    assert later.params[name] == first.params[name]
    with pytest.raises(AskError, match="another question"):
        msgspec.structs.replace(question, cursor=cursor, order="desc").query(NOW)


def test_as_of_holds_for_the_whole_walk() -> None:
    for kind in (Trades, Candles):
        question = kind(as_of="-1d", limit=5)
        cursor = question.query(NOW, 1234).cursor(LAST_ROWS[kind])
        assert msgspec.structs.replace(question, cursor=cursor).query(NOW).settings["iceberg_timestamp_ms"] == "1234"
