"""Questions that cannot be asked say so, and what is asked never becomes SQL."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.ask import AskError, Query
from k2.ask.candles import Candles
from k2.ask.completeness import Completeness
from k2.ask.ledger import Gaps, Proofs
from k2.ask.symbols import Symbols, exchanges
from k2.ask.trades import Trades

NOW = 1_767_323_045_123_456_789
MINUTE = 60_000_000_000
KINDS = (Trades, Candles, Gaps, Completeness, Symbols, Proofs)


def complete(query: Query) -> bool:
    """Whether exactly the parameters that the SQL names are given."""
    named = set(re.findall(r"{(\w+):", query.sql))
    return named <= set(query.params) and not re.search(r"{(?!\w+:)", query.sql)


@pytest.mark.parametrize(
    ("question", "parameter"),
    [
        (Trades(from_="soon"), "from"),
        (Trades(to="later"), "to"),
        (Candles(from_="-1h", to="-2h"), "from"),
        (Trades(first_id=5, last_id=4), "first_id"),
        (Gaps(first_id=5, last_id=4), "first_id"),
        (Completeness(from_="2026-01-02", to="2026-01-01"), "from"),
        (Proofs(cursor="x"), "cursor"),
    ],
)
def test_a_mistake_is_named(question: Trades, parameter: str) -> None:
    with pytest.raises(AskError) as error:
        question.query(NOW)
    assert error.value.parameter == parameter
    assert str(error.value).startswith(f"{parameter}=")
    assert error.value.remedy


@given(
    st.sampled_from(KINDS), st.lists(st.text(), max_size=3), st.lists(st.text(), max_size=3), st.integers(0, 1_000_000)
)
def test_names_are_parameters(kind: type, venues: list[str], symbols: list[str], limit: int) -> None:
    query = kind(exchange=tuple(venues), symbol=tuple(symbols), limit=limit).query(NOW)
    plain = kind(
        exchange=("binance",) * bool(venues),
        symbol=tuple(re.sub("[^:]", "x", name) for name in symbols),
        limit=limit,
    ).query(NOW)
    assert query.sql == plain.sql
    assert complete(query)


@given(st.integers(0, 4 * 10**18), st.integers(0, 4 * 10**18), st.sampled_from(("1m", "5m", "1h", "1d")))
def test_candles_are_of_whole_windows(a: int, b: int, interval: str) -> None:
    first, end = max(a, 946_684_800 * 10**9), max(b, 946_684_800 * 10**9)
    first, end = min(first, end), max(first, end)
    width = {"1m": 60, "5m": 300, "1h": 3600, "1d": 86_400}[interval]
    query = Candles(from_=str(first), to=str(end), interval=interval).query(NOW)
    low, high = query.params["low"], query.params["high"]
    assert low % width == high % width == 0
    assert 0 <= low * 10**9 - first < width * 10**9 or low == 4_294_944_000
    assert 0 <= high * 10**9 - end < width * 10**9 or high == 4_294_944_000
    assert complete(query)


def test_every_query_names_its_columns() -> None:
    for query in (*(kind().query(NOW) for kind in KINDS), exchanges()):
        assert set(query.key) <= set(query.columns)
        assert complete(query)
    assert Trades(limit=0).query(NOW).sql.endswith("trade_id")
    assert Trades(limit=7).query(NOW).sql.endswith("LIMIT 7")


def test_a_symbol_may_name_its_exchange() -> None:
    params = Trades(symbol=("kraken:BTC-USD", "ETH-USD")).query(NOW).params
    assert params["pairs"] == [("kraken", "BTC-USD")]
    assert params["plain"] == ["ETH-USD"]
    assert params["symbols"] == ["BTC-USD", "ETH-USD"]
