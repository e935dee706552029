from array import array

from k2.ops.bench.latency import Seen, Times, judge, noted
from k2.ops.bench.rig import Ids, missing


def answer(start, last, took=2):
    return {"start": start, "end": start + took, "last": {"binance:BTC-USDT": last}}


def trade(trade_id, recv_ts):
    return Seen("binance:BTC-USDT", trade_id, recv_ts - 1, recv_ts)


def test_a_trade_is_in_hand_with_the_first_answer_that_shows_it():
    answers = [answer(100, 4), answer(200, 5), answer(300, 9)]
    found, untrue = judge([trade(5, 90), trade(6, 120), trade(9, 250)], answers, {})
    assert (found, untrue) == ([202 - 90, 302 - 120, 302 - 250], 0)


def test_a_trade_noted_as_visible_and_not_shown_is_told():
    visible = {(89, 90): 150}
    assert judge([trade(5, 90)], [answer(140, 4), answer(200, 4), answer(300, 5)], visible)[1] == 1
    assert judge([trade(5, 90)], [answer(140, 4), answer(150, 4), answer(300, 5)], visible)[1] == 0


def test_a_trade_that_no_answer_shows_has_no_time_but_is_told():
    assert judge([trade(5, 90)], [answer(200, 4)], {(89, 90): 150}) == ([], 1)


def test_notes_are_read_and_a_torn_one_left_out(tmp_path):
    file = tmp_path / "latency.bin"
    file.write_bytes(array("q", [1, 2, 4, 7, 11]).tobytes() + b"torn")
    assert noted(file) == [Times(1, 2, 4, 7, 11)]
    assert noted(file)[0].stages() == (1, 2, 3, 4, 9)


def test_missing_counts_what_the_store_lacks():
    symbol, other = ("binance", "BTC-USDT", 0), ("kraken", "BTC-USD", 0)
    made = {symbol: Ids(3, 5, 7, 18), other: Ids(1, 1, 1, 1)}
    assert missing(made, made) == 0
    assert missing(made, {symbol: Ids(2, 5, 7, 12), other: Ids(1, 1, 1, 1)}) == 1
    assert missing(made, {symbol: Ids(3, 5, 8, 19)}) == 2
