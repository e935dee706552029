"""Healing against venues in miniature: whatever a venue has of a hole is fetched, and asking ends."""

import json
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.core.exchange import Exchange
from k2.core.types import Frame, Hole, RestRequest, Trade
from k2.exchanges import binance, coinbase, kraken

T0 = 1_763_880_000_000_000_000


class Past(NamedTuple):
    number: int
    ts: int  # ns


def stamp(ts: int) -> str:
    minute, rest = divmod((ts - T0) // 1_000, 60_000_000)
    return f"2025-11-23T{6 + (40 + minute) // 60:02}:{(40 + minute) % 60:02}:{rest / 1e6:09.6f}Z"


def binance_page(trades: list[Past], path: str, most: int, overlap: int = 0) -> str:
    query = parse_qs(urlsplit(path).query)
    first, limit = int(query["fromId"][0]), min(int(query["limit"][0]), most)
    begin = sum(t.number < first for t in trades)
    rows = trades[max(0, begin - overlap) :][:limit]
    fields = {"price": "1", "qty": "1", "isBuyerMaker": True}
    return json.dumps([{"id": t.number, "time": t.ts // 1_000_000} | fields for t in rows])


def coinbase_page(trades: list[Past], path: str, most: int, overlap: int = 0) -> str:
    query = parse_qs(urlsplit(path).query)
    after, limit = int(query["after"][0]), min(int(query["limit"][0]), most)
    end = sum(t.number < after for t in trades)
    rows = trades[: end + overlap][::-1][:limit]
    fields = {"price": "1", "size": "1", "side": "buy"}
    return json.dumps([{"trade_id": t.number, "time": stamp(t.ts)} | fields for t in rows])


def kraken_page(trades: list[Past], path: str, most: int, overlap: int = 0) -> str:
    query = parse_qs(urlsplit(path).query)
    since, limit = int(query["since"][0]), min(int(query["count"][0]), most)
    begin = sum(t.ts <= since for t in trades)
    rows = trades[max(0, begin - overlap) :][:limit]
    last = rows[-1].ts if rows else since
    listed = ",".join(f'["1","1",{t.ts // 10**9}.{t.ts % 10**9:09},"b","l","",{t.number}]' for t in rows)
    return f'{{"error":[],"result":{{"XXBTZUSD":[{listed}],"last":"{last}"}}}}'


Page = Callable[..., str]
VENUES: dict[str, tuple[Exchange, str, Page]] = {
    "binance": (binance.EXCHANGE, "BTCUSDT", binance_page),
    "coinbase": (coinbase.EXCHANGE, "BTC-USD", coinbase_page),
    "kraken": (kraken.EXCHANGE, "BTC/USD", kraken_page),
}


def heal(name: str, hole: Hole, answer: Callable[[RestRequest], str], most_requests: int) -> set[int]:
    """The ids that the venue's pages brought, asking as the feed asks."""
    exchange = VENUES[name][0]
    request: RestRequest | None = exchange.heal(hole)
    found: set[int] = set()
    for _ in range(most_requests):
        assert request is not None
        frame = Frame(T0, "rest", "rest", f"200 {request.path}", answer(request).encode())
        page = exchange.decode(frame)
        assert all(isinstance(event, Trade) for event in page), page
        trades = [event for event in page if isinstance(event, Trade)]
        assert {trade.native_symbol for trade in trades} <= {hole.native_symbol}
        found |= {trade.trade_id for trade in trades}
        request = exchange.heal_next(hole, request, trades, frame)
        if request is None:
            return found
    raise AssertionError(f"still asking after {most_requests} requests: {request}")


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Past], int, int]:
    """Ids 1..n at times that never fall and often repeat; some are missing at the venue; and a hole within."""
    steps = draw(st.lists(st.sampled_from([0, 0, 1_000_000, 5_000_000, 900_000_000]), min_size=4, max_size=60))
    ts, trades = T0, []
    for number, step in enumerate(steps, 1):
        ts += step
        trades.append(Past(number, ts))
    first = draw(st.integers(2, len(steps) - 1))
    return trades, first, draw(st.integers(first, len(steps) - 1))


@pytest.mark.parametrize("name", VENUES)
@given(
    history=histories(), most=st.integers(12, 20), overlap=st.sampled_from([0, 0, 5]), lost=st.sets(st.integers(1, 60))
)
def test_what_the_venue_has_of_a_hole_is_fetched(
    name: str, history: tuple[list[Past], int, int], most: int, overlap: int, lost: set[int]
) -> None:
    trades, first, last = history
    if name == "kraken":  # a page must reach past the trades of one nanosecond: with 1,000 a page it does
        most = max(most, 2 + overlap + max(sum(t.ts == u.ts for u in trades) for t in trades))
    exchange, native, page = VENUES[name]
    hole = Hole(exchange.canonical(native), native, 0, first, last, trades[first - 2].ts, trades[last].ts)
    there = [t for t in trades if t.number not in lost or not first <= t.number <= last]
    found = heal(name, hole, lambda request: page(there, request.path, most, overlap), 3 * len(trades) + 5)
    assert found >= {t.number for t in there if first <= t.number <= last}


@pytest.mark.parametrize("name", VENUES)
def test_a_hole_wider_than_a_page_takes_few_requests(name: str) -> None:
    exchange, native, page = VENUES[name]
    trades = [Past(number, T0 + number * 1_000_000) for number in range(1, 5_003)]
    hole = Hole(exchange.canonical(native), native, 0, 2, 5_001, trades[0].ts, trades[-1].ts)
    asked: list[RestRequest] = []

    def answer(request: RestRequest) -> str:
        asked.append(request)
        return page(trades, request.path, 1_000)

    assert heal(name, hole, answer, 10) >= set(range(2, 5_002))
    assert 5 <= len(asked) <= 6


@pytest.mark.parametrize("name", VENUES)
def test_a_small_hole_takes_one_request(name: str) -> None:
    exchange, native, page = VENUES[name]
    trades = [Past(number, T0 + number * 1_000_000) for number in range(1, 500)]
    hole = Hole(exchange.canonical(native), native, 0, 40, 42, trades[38].ts, trades[42].ts)
    assert heal(name, hole, lambda request: page(trades, request.path, 1_000), 1) >= {40, 41, 42}


@pytest.mark.parametrize("name", VENUES)
def test_asking_ends_at_a_venue_that_always_answers_the_same(name: str) -> None:
    exchange, native, page = VENUES[name]
    trades = [Past(number, T0 + number * 1_000_000) for number in range(50, 60)]
    first = exchange.heal(Hole(exchange.canonical(native), native, 0, 5, 90, T0, T0 + 10**9))
    for spans in ((5, 90), (52, 55), (58, 400), (1, 52)):
        hole = Hole(exchange.canonical(native), native, 0, *spans, T0, T0 + 10**9)
        heal(name, hole, lambda _: page(trades, first.path, 1_000), 5)
        heal(name, hole, lambda request: page([], request.path, 1_000), 1)


def test_kraken_is_asked_by_its_old_names_and_from_before_the_trade_ahead_of_the_hole() -> None:
    hole = Hole("DOGE-USD", "DOGE/USD", 0, 5, 6, T0, T0 + 7)
    assert kraken.EXCHANGE.heal(hole).path == f"/0/public/Trades?pair=XDGUSD&since={T0 - 1_000}&count=1000"
    assert "pair=XBTUSD&since=" in kraken.EXCHANGE.heal(hole._replace(native_symbol="BTC/USD")).path


def test_kraken_without_any_time_is_asked_for_its_latest_trades_once() -> None:
    hole = Hole("BTC-USD", "BTC/USD", 0, 5, 9)
    request = kraken.EXCHANGE.heal(hole)
    assert request.path == "/0/public/Trades?pair=XBTUSD&count=1000"
    body = kraken_page([Past(6, T0)], "/0/public/Trades?since=0&count=5", 5)
    frame = Frame(T0, "rest", "rest", f"200 {request.path}", body.encode())
    page = [event for event in kraken.EXCHANGE.decode(frame) if isinstance(event, Trade)]
    assert [trade.trade_id for trade in page] == [6]
    assert kraken.EXCHANGE.heal_next(hole, request, page, frame) is None
    assert "since" in kraken.EXCHANGE.heal(hole._replace(after_ts=T0)).path


def test_binance_pays_the_weight_of_history() -> None:
    assert binance.EXCHANGE.heal(Hole("BTC-USDT", "BTCUSDT", 0, 5, 9)) == RestRequest(
        "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=5&limit=105", 25
    )
