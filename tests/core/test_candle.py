"""Candles against a recomputation with fractions, straight from the definition."""

from decimal import Decimal
from fractions import Fraction
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.core.candle import INTERVALS, Candle, CandleBuilder, candles, scaled
from k2.core.types import Trade

T0 = 1_723_161_240


def trade(number: int, second: float, price: str = "1", quantity: str = "1", **other: object) -> Trade:
    fields = {"exchange": "binance", "symbol": "BTC-USDT", "side": "buy", "epoch": 0} | other
    return Trade(
        native_symbol="BTCUSDT",
        trade_id=number,
        price=price,
        quantity=quantity,
        exchange_ts=int((T0 + second) * 1_000_000_000),
        recv_ts=0,
        source="live",
        **fields,  # type: ignore[arg-type]
    )


amounts = st.one_of(
    st.decimals("0.000000000000000001", "99999999999999999999.999999999999999999", places=18),
    st.decimals("0.01", "70000", places=2),
).map(lambda number: format(number, "f"))


@st.composite
def trade_lists(draw: st.DrawFn) -> list[Trade]:
    numbers = draw(st.lists(st.integers(1, 60), unique=True, min_size=1, max_size=40))
    return [
        trade(
            number,
            draw(st.integers(0, 4_000)),
            draw(amounts),
            draw(amounts),
            side=draw(st.sampled_from(["buy", "sell"])),
            symbol=draw(st.sampled_from(["BTC-USDT", "ETH-USDT"])),
            epoch=draw(st.sampled_from([0, 0, 1])),
        )
        for number in numbers
    ]


def naive(trades: list[Trade], interval_s: int) -> list[Candle]:
    ids = {(t.symbol, t.epoch, t.trade_id) for t in trades}
    begins = {key: min(i for *k, i in ids if tuple(k) == key) for key in {(s, e) for s, e, _ in ids}}
    out = []
    order = sorted(trades, key=lambda t: (t.symbol, t.exchange_ts // (interval_s * 10**9)))
    for (symbol, index), group in groupby(order, key=lambda t: (t.symbol, t.exchange_ts // (interval_s * 10**9))):
        inside = sorted(group, key=lambda t: (t.epoch, t.trade_id))
        first, last = inside[0], inside[-1]
        prices = [Decimal(t.price) for t in inside]
        volume = sum(Fraction(t.quantity) for t in inside)
        quote = sum(Fraction(t.quantity) * Fraction(t.price) for t in inside)
        bought = sum((Fraction(t.quantity) for t in inside if t.side == "buy"), Fraction(0))
        dense = len(inside) == last.trade_id - first.trade_id + 1
        before = (symbol, first.epoch, first.trade_id - 1)
        joined = before in ids or begins[symbol, first.epoch] == first.trade_id
        out.append(
            Candle(
                "binance",
                symbol,
                index * interval_s,
                prices[0],
                max(prices),
                min(prices),
                prices[-1],
                _exactly(volume, 18),
                _exactly(quote, 36),
                _exactly(bought, 18),
                _exactly(Fraction(int(quote / volume * 10**18), 10**18), 18),
                len(inside),
                first.trade_id,
                last.trade_id,
                dense and joined,
            )
        )
    return out


def _exactly(number: Fraction, places: int) -> Decimal:
    units = number * 10**places
    assert units.denominator == 1
    sign, digits = int(units < 0), tuple(map(int, str(abs(units.numerator))))
    return Decimal((sign, digits, -places))


@given(trade_lists(), st.sampled_from(sorted(INTERVALS.values())))
def test_candles_equal_the_definition(trades: list[Trade], interval_s: int) -> None:
    assert candles(trades, interval_s) == naive(trades, interval_s)


@given(trade_lists(), st.randoms(use_true_random=False))
def test_order_and_repetition_change_nothing(trades: list[Trade], chance: object) -> None:
    again = trades + trades[::2]
    chance.shuffle(again)  # type: ignore[attr-defined]
    assert candles(again, 60) == candles(trades, 60)


@given(trade_lists())
def test_wide_candles_are_made_of_minutes(trades: list[Trade]) -> None:
    builder = CandleBuilder()
    for one in trades:
        builder.add(one)
    for interval_s in INTERVALS.values():
        assert builder.candles(interval_s) == candles(trades, interval_s)
    assert builder.candles() == candles(trades, 60)


def test_open_and_close_go_by_id_and_the_window_by_the_exchanges_time() -> None:
    (first, second) = candles([trade(3, 59.999999), trade(1, 10, "7"), trade(2, 5, "9"), trade(4, 60)], 60)
    assert (first.open, first.close, first.high, first.low) == (7, 1, 9, 1)
    assert (first.first_trade_id, first.last_trade_id, first.trade_count) == (1, 3, 3)
    assert (first.window_start, second.window_start) == (T0, T0 + 60)


@pytest.mark.parametrize(
    ("ids", "complete"),
    [
        ([(1, 0), (2, 1), (3, 61)], [True, True]),
        ([(1, 0), (3, 1), (4, 61)], [False, True]),  # 2 is missing inside
        ([(1, 0), (2, 1), (4, 61)], [True, False]),  # 3 is missing between the two
        ([(1, 0), (2, 61), (3, 1)], [False, True]),  # 2 fell in the next minute: the first one has a hole
    ],
)
def test_complete_means_dense_and_joined(ids: list[tuple[int, int]], complete: list[bool]) -> None:
    assert [candle.complete for candle in candles((trade(*one) for one in ids), 60)] == complete


def test_ids_from_elsewhere_join_a_candle_to_what_was_before() -> None:
    builder = CandleBuilder()
    builder.present("binance", "BTC-USDT").add_range(1, 3)
    builder.add(trade(5, 0))
    assert not builder.candles()[0].complete
    builder.present("binance", "BTC-USDT").add(4)
    assert builder.candles()[0].complete
    assert not builder.add(trade(4, 0))


def test_vwap_is_cut_off_after_eighteen_decimals() -> None:
    (candle,) = candles([trade(1, 0, "1", "1"), trade(2, 0, "2", "2")], 60)
    assert candle.vwap == Decimal("1.666666666666666666")


def test_numbers_that_the_scale_cannot_hold_are_refused() -> None:
    assert scaled("0.000000000000000001") == 1
    with pytest.raises(ValueError, match="more than 18 decimals"):
        scaled("0.0000000000000000001")
    with pytest.raises(ValueError, match="cannot be made"):
        CandleBuilder(60).candles(90)
