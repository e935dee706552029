"""Joining every trade's times, and what is figured out of them: exact."""

import json
from xml.etree import ElementTree

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.core.codec import encode_trade, trades_stream
from k2.core.islands import Islands
from k2.core.types import Trade
from k2.log import Batch
from k2.metrics import STAGE_BUCKETS
from k2.ops.bench.latency import target_ms
from k2.ops.bench.latency_candle import Seen, ids_behind, judge
from k2.ops.bench.latency_figures import identities, lost, of_series
from k2.ops.bench.latency_join import SEGMENTS, WAYS, Trades, buckets, lapses, slowest, untimed
from k2.ops.bench.latency_metrics import different, of_page
from k2.ops.bench.latency_page import drawing, page
from k2.ops.bench.latency_play import Series
from k2.ops.bench.rig import Ids, missing
from k2.ops.bench.samples import QUANTILES, spread
from k2.trace import Noted

MS = 1_000_000


def batch(offset, trades, append_ts=0, exchange="kraken"):
    """`trades`: (symbol, id, exchange_ts, recv_ts[, source])."""
    values = [
        encode_trade(Trade(exchange, symbol, symbol, trade_id, "1", "1", "buy", due, received, *(source or ["live"])))
        for symbol, trade_id, due, received, *source in trades
    ]
    return Batch(trades_stream(exchange), offset, append_ts, [""] * len(values), values)


def stretch():
    """Three trades at offsets 100 to 102 that were timed everywhere."""
    trades = Trades(
        "kraken",
        100,
        [
            batch(100, [("BTC-USD", 7, 1 * MS, 3 * MS), ("ETH-USD", 4, 2 * MS, 4 * MS)], 8 * MS),
            batch(102, [("BTC-USD", 8, 5 * MS, 6 * MS)], 12 * MS),
        ],
    )
    assert trades.join("decoded", "durable", [Noted(100, 2, 5 * MS, 9 * MS), Noted(102, 1, 7 * MS, 14 * MS)]) == 0
    assert trades.join("read", "visible", [Noted(90, 13, 20 * MS, 21 * MS)]) == 0
    assert trades.join("subscriber", "subscriber", [Noted(100, 3, 18 * MS, 18 * MS)]) == 0
    trades.join_sent({"kraken/BTC-USD/0": [Noted(7, 2, 0, 2 * MS)], "kraken/ETH-USD/0": [Noted(4, 1, 0, 3 * MS)]})
    return trades


def test_every_trade_has_its_own_times_at_every_stage():
    trades = stretch()
    assert (list(trades.ids), bytes(trades.live)) == ([7, 4, 8], b"\1\1\1")
    assert [lapses(trades.times, points) for points in SEGMENTS.values()] == [
        [2 * MS, 2 * MS, 1 * MS],
        [2 * MS, 1 * MS, 1 * MS],
        [4 * MS, 4 * MS, 7 * MS],
        [11 * MS, 11 * MS, 6 * MS],
        [1 * MS, 1 * MS, 1 * MS],
        [9 * MS, 9 * MS, 4 * MS],
    ]
    assert [lapses(trades.times, points) for points in WAYS.values()] == [
        [20 * MS, 19 * MS, 16 * MS],
        [18 * MS, 17 * MS, 15 * MS],
        [15 * MS, 14 * MS, 12 * MS],
    ]
    assert list(trades.times["sent"]) == [2 * MS, 3 * MS, 2 * MS]
    assert untimed(trades.times) == 0


def test_a_trade_that_a_stage_did_not_note_is_told_and_not_made_up():
    trades = Trades("kraken", 0, [batch(0, [("BTC-USD", 7, 1, 3), ("BTC-USD", 8, 2, 4)])])
    trades.join("decoded", "durable", [Noted(0, 2, 5, 9)])
    trades.join("read", "visible", [Noted(1, 1, 20, 21)])
    trades.join("subscriber", "subscriber", [Noted(0, 2, 11, 11)])
    assert untimed(trades.times) == 1
    assert lapses(trades.times, ("received", "visible")) == [17]


def test_of_two_notes_the_earlier_holds_and_the_second_is_counted():
    trades = Trades("kraken", 0, [batch(0, [("BTC-USD", i, 1, 2) for i in range(4)])])
    assert trades.join("read", "visible", [Noted(0, 3, 10, 11), Noted(2, 2, 5, 6)]) == 1
    assert list(trades.times["visible"]) == [11, 11, 6, 6]


def test_a_hole_in_the_log_is_an_error():
    with pytest.raises(ValueError, match="does not follow 1"):
        Trades("kraken", 0, [batch(0, [("BTC-USD", 1, 1, 2)]), batch(2, [("BTC-USD", 2, 1, 2)])])


@given(st.data())
def test_joining_equals_looking_each_trade_up(data):
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=8))
    first = data.draw(st.integers(0, 50))
    number = sum(sizes)
    trades = Trades("kraken", first, [batch(first, [("BTC-USD", i, 1, 2) for i in range(number)])])
    times = data.draw(st.lists(st.integers(1, 99), min_size=len(sizes), max_size=len(sizes)))
    noted, at = [], first
    for size, time in zip(sizes, times, strict=True):
        noted.append(Noted(at, size, time, time + 100))
        at += size
    trades.join("read", "visible", data.draw(st.permutations(noted)))
    wanted = [time for size, time in zip(sizes, times, strict=True) for _ in range(size)]
    assert list(trades.times["read"]) == wanted
    assert list(trades.times["visible"]) == [time + 100 for time in wanted]


@given(st.lists(st.integers(-(10**9), 10**12), min_size=1, max_size=400))
def test_quantiles_are_those_of_numpy(samples):
    wanted = {name: numpy.quantile(samples, q, method="inverted_cdf") for name, q in QUANTILES}
    assert spread(samples) == {"count": len(samples), **wanted}


def test_where_the_slowest_spent_their_time():
    trades = stretch()
    assert slowest(trades.times, 0.3) == {  # one of three: the first trade, 20 ms
        "exchange_to_receive": 2 * MS,
        "receive_to_decoded": 2 * MS,
        "decoded_to_durable": 4 * MS,
        "log_to_loader": 11 * MS,
        "loader_to_visible": 1 * MS,
    }
    assert set(slowest({point: [] for point in trades.times}, 0.01).values()) == {0}


def test_histograms_and_trace_are_one_truth_told_twice():
    late = Trades("kraken", 0, [batch(0, [("BTC-USD", 1, 0, 1 * MS), ("BTC-USD", 2, 0, 9 * MS, "backfill")], 10 * MS)])
    late.join("decoded", "durable", [Noted(0, 2, 10 * MS, 11 * MS)])
    late.join("read", "visible", [Noted(0, 2, 13 * MS, 14 * MS)])
    expected = buckets(late)
    assert expected["exchange_to_receive"] == [1] + [0] * len(STAGE_BUCKETS)  # 1 ms is in the first; backfill is apart
    assert expected["log_to_loader"][STAGE_BUCKETS.index(0.003)] == 2  # from when the commit began
    assert expected["receive_to_visible"][STAGE_BUCKETS.index(0.005)] == 1
    assert expected["receive_to_visible"][STAGE_BUCKETS.index(0.015)] == 1
    found = of_page(
        'k2_stage_seconds_bucket{exchange="kraken",le="0.001",stage="x"} 1.0\n'
        'k2_stage_seconds_bucket{exchange="kraken",le="+Inf",stage="x"} 4.0\n'
        'k2_stage_seconds_bucket{exchange="kraken",le="0.002",stage="x"} 3.0\n'
        'k2_stage_seconds_sum{exchange="kraken",stage="x"} 3.0\n'
    )
    assert found == {("x", "kraken"): [1, 2, 1]}
    assert different({("x", "kraken"): [1, 2, 1]}, found) == 0
    assert different({("x", "kraken"): [2, 2, 0]}, found) == 1
    assert different({("x", "coinbase"): [0, 3, 0]}, found) == 3


def test_ids_are_accounted_for_one_by_one():
    known = {}
    trades = Trades("kraken", 0, [batch(0, [("BTC-USD", 5, 1, 2), ("BTC-USD", 7, 1, 2), ("BTC-USD", 5, 1, 2)])])
    assert identities([trades], known) == 1
    made = {("kraken", "BTC-USD", 0): Ids(3, 5, 7, 18), ("kraken", "ETH-USD", 0): Ids(2, 1, 2, 3)}
    assert lost(made, known) == 3
    assert lost({("kraken", "BTC-USD", 0): Ids(1, 7, 7, 7)}, {("kraken", "BTC-USD", 0): Islands([(7, 7)])}) == 0


def test_missing_counts_what_the_store_lacks():
    symbol, other = ("binance", "BTC-USDT", 0), ("kraken", "BTC-USD", 0)
    made = {symbol: Ids(3, 5, 7, 18), other: Ids(1, 1, 1, 1)}
    assert missing(made, made) == 0
    assert missing(made, {symbol: Ids(2, 5, 7, 12), other: Ids(1, 1, 1, 1)}) == 1
    assert missing(made, {symbol: Ids(3, 5, 8, 19)}) == 2


def answer(start, last, took=2, kind="candle"):
    return {"kind": kind, "start": start, "end": start + took, "last": {"binance:BTC-USDT": last}}


def judged(trades, answers):
    return judge({"binance:BTC-USDT": trades}, answers)


def test_a_trade_is_in_hand_with_the_first_answer_that_shows_it():
    trades = [Seen(5, 90, 95), Seen(6, 120, 130), Seen(9, 250, 260)]
    found = judged(trades, [answer(94, 4), answer(200, 6), answer(300, 9)])
    assert found == ([202 - 90, 202 - 120, 302 - 250], [0, 0, 0], 0)


def test_how_far_a_candle_is_behind_is_the_age_of_the_oldest_trade_that_it_lacks():
    trades = [Seen(5, 90, 150), Seen(6, 90, 160), Seen(7, 90, 152)]
    found = judged(trades, [answer(150, 4), answer(170, 4), answer(180, 5), answer(200, 7)])
    assert found.behind == [0, 20, 28, 0]  # one that becomes visible in the moment of the question may be missing
    assert found.untrue == 3 + 2


def test_a_trade_that_no_answer_shows_has_no_time_but_is_told():
    assert judged([Seen(5, 90, 150)], [answer(200, 4)]) == ([], [50], 1)


def test_candles_are_held_against_the_silver_asked_for_before():
    answers = [answer(1, 9, kind="silver"), answer(2, 9), answer(3, 12, kind="silver"), answer(4, 10), answer(5, 3)]
    assert ids_behind(answers) == [0, 2]


@pytest.mark.parametrize(
    ("rate", "target"), [(50, 15), (500, 15), (501, 40), (5_000, 40), (20_000, 150), (50_000, 150)]
)
def test_every_rate_has_its_target(rate, target):
    assert target_ms(rate) == target


def report():
    """A report of one series with the three trades."""
    series = Series(500, 2 * MS, 5 * MS, 6 * MS, {}, {"store": 0.25}, [], 0.0, 1500)
    one = of_series(series, [stretch(), Trades("binance", 0, [])], 1.0)
    proof = {place: {"lost": 0, "twice": 0} for place in ("log", "silver", "stream")}
    name = "exchange to silver at 500 trades/s, p99"
    return {
        "commit": "0123456789abcdef",
        "machine": {"cores": 2},
        "parameters": {"seconds": 1.0},
        "results": {"series": [one], "proof": {"made": 3, **proof}},
        "checks": [{"name": name, "value": 19.0, "unit": "ms", "target": "<= 15", "ok": False}],
    }


def test_no_trade_is_left_out_of_the_phases():
    one = report()["results"]["series"][0]
    assert (one["trades"], one["ways"]["exchange_to_visible"]["max"]) == (1, 19.0)
    assert {name: phase["trades"] for name, phase in one["phases"].items()} == {
        "warm_up": 1, "counted": 1, "with_reader": 1, "until_the_end": 0,
    }  # fmt: skip
    assert one["phases"]["warm_up"]["max"] == 20.0
    assert one["venues"]["kraken"]["trades"] == 1


def test_the_page_says_what_was_missed_and_the_drawing_is_well_formed():
    found = report()
    json.dumps(found)
    written = page(found, "latency.svg")
    assert "| exchange to silver at 500 trades/s, p99 | 19.0 ms | <= 15 ms | missed |" in written
    assert "| log → loader | 11.0 | 11.0 | 11.0 | 11.0 | 11.0 |" in written
    assert "![Exchange to silver at every rate](latency.svg)" in written
    drawn = ElementTree.fromstring(drawing(found))
    assert {"500", "500/s"} <= {element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert len(ElementTree.fromstring(drawing({**found, "results": {"series": []}}))) == 1
