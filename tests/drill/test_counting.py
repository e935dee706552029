"""What was made against what is there, by id."""

from pathlib import Path

from k2.core.codec import encode_trade, trades_stream
from k2.core.islands import Islands
from k2.core.types import Trade
from k2.log import Entry
from k2.log.memory import MemoryLog
from k2.ops.drill.flow import Span, Tapes, behind
from k2.ops.drill.proof import Place, compare, of_log
from k2.sim.truth import Tape, flags, packed, tape_file, truth_dir

BTC = ("binance", "BTC-USDT", 0)
ETH = ("binance", "ETH-USDT", 0)


def trade(trade_id: int, epoch: int = 0) -> Trade:
    return Trade("binance", "BTC-USDT", "BTCUSDT", trade_id, "1.0", "2.0", "buy", trade_id, trade_id, "live", epoch)


def test_the_log_is_counted_record_by_record() -> None:
    log = MemoryLog()
    for ids in ([1, 2, 3], [3, 5], [9]):
        values = [encode_trade(trade(number)) for number in ids]
        log.append([Entry(trades_stream("binance"), ["BTC-USDT"] * len(ids), values)])
    log.append([Entry(trades_stream("binance"), ["BTC-USDT"], [encode_trade(trade(3, epoch=1))])])
    place = of_log(log)
    assert place.twice == 1
    assert place.ids[BTC].to_list() == [(1, 3), (5, 5), (9, 9)]
    found = compare({BTC: Islands([(1, 6)])}, place)
    assert (found.made, found.lost, found.twice, found.strange) == (6, 2, 1, 2)  # 9, and 3 of another epoch
    assert found.holes == ["binance BTC-USDT 4..4", "binance BTC-USDT 6..6"]


def test_a_place_without_a_symbol_has_lost_all_of_it() -> None:
    found = compare({BTC: Islands([(1, 10)]), ETH: Islands([(1, 5)])}, Place({BTC: Islands([(1, 10)])}, 0))
    assert (found.lost, found.ok) == (5, False)


def test_tapes_tell_what_was_made_while_it_is_written(tmp_path: Path) -> None:
    tape = Tape(tape_file(truth_dir(tmp_path), *BTC))
    tapes = Tapes(tmp_path)
    assert tapes.spans() == {}
    tape.append(packed([field for number in (7, 8) for field in (number, 1, 1, 1, flags(0, 0, 1))]))
    assert tapes.spans() == {BTC: Span(7, 8, 2, 2)}
    tape.append(packed([9, 1, 1, 1, flags(0, 0, 1)]))
    assert tapes.spans() == {BTC: Span(7, 9, 3, 3)}
    tape.close()


def test_behind_tells_newest_from_missing() -> None:
    made = {BTC: Span(1, 10, 10, 10), ETH: Span(1, 10, 10, 10)}
    whole = Span(1, 12, 12, 12)
    assert behind(made, {BTC: whole, ETH: whole}) == ({}, {})
    late, lacking = behind(made, {BTC: whole, ETH: Span(1, 9, 9, 9)})
    assert "up to 9" in late["binance"]
    assert lacking == late
    late, lacking = behind(made, {BTC: Span(1, 12, 10, 10), ETH: whole})
    assert late == {}
    assert lacking == {"binance": "BTC-USDT lacks 2 before 12"}
    assert "no trade of ETH-USDT" in behind(made, {BTC: whole})[0]["binance"]
    assert behind(made, {BTC: whole, ETH: Span(2, 12, 11, 11)})[1] != {}
