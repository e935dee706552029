"""From frames to records: what the trade stream and the gap ledger say about any delivery of the same trades."""

import itertools

from feed_kit import frame, page_frame, trade_frame
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from k2.core.codec import decode_trade
from k2.core.sequence import Sequences
from k2.core.session import Decoded, Decoder
from k2.core.types import Frame
from k2.exchanges import venue

BINANCE = venue("binance")


def decoder() -> Decoder:
    return Decoder(BINANCE, Sequences("binance"))


def ids(decoded: Decoded) -> list[int]:
    return [decode_trade(value).trade_id for value in decoded.values]


def test_a_trade_becomes_one_record() -> None:
    out = decoder().run([trade_frame(7)])
    assert [gap.state for gap in out.gaps] == ["start"]
    assert out.keys == ["BTC-USDT"]
    assert decode_trade(out.values[0]).price == "61837.63000000"
    assert [trade.recv_ts - trade.exchange_ts for trade in out.fresh] == [5_000_000]
    assert out.traded == {"c1"}


def test_what_we_sent_says_nothing() -> None:
    sent = Frame(1, "sent", "c1", "", trade_frame(7).payload)
    assert not decoder().run([sent]).values


def test_junk_is_a_fault_and_stops_nothing() -> None:
    out = decoder().run([trade_frame(1), frame(b"\xff{"), trade_frame(2)])
    assert ids(out) == [1, 2]
    assert [fault.payload for fault in out.faults] == [b"\xff{"]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_no_delivery_is_silent_about_what_it_lacks(delivered: list[int]) -> None:
    """Dropped, repeated, reordered: each id from the first seen to the highest is recorded once or in an open gap."""
    tracker = decoder()
    out = tracker.run([trade_frame(number) for number in delivered])
    start = delivered[0]
    kept = [number for number in dict.fromkeys(delivered) if number >= start]
    assert ids(out) == kept
    missing = set(range(start, max(kept) + 1)) - set(kept)
    holes = tracker.sequences.holes()
    told = {n for hole in holes for a, b in tracker.sequences.missing(hole) for n in range(a, b + 1)}
    assert told == missing
    open_now = {}
    for gap in out.gaps:
        open_now[gap.first_id, gap.state == "start"] = gap
    spans = [range(g.first_id, g.last_id + 1) for g in open_now.values() if g.state == "open"]
    assert all(any(n in span for span in spans) for n in missing)
    assert all(any(n in missing for n in span) for span in spans)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_where_the_frames_are_split_does_not_matter(delivered: list[int], cuts: list[int]) -> None:
    frames = [trade_frame(number) for number in delivered]
    whole = decoder().run(frames)
    edges = [0, *sorted(min(cut, len(frames)) for cut in cuts), len(frames)]
    tracker = decoder()
    parts = [tracker.run(frames[a:b]) for a, b in itertools.pairwise(edges)]
    assert [value for part in parts for value in part.values] == whole.values
    assert [gap for part in parts for gap in part.gaps] == whole.gaps


@given(st.lists(st.binary(max_size=200), max_size=20), st.sampled_from(["binance", "coinbase", "kraken"]))
def test_no_bytes_raise(payloads: list[bytes], name: str) -> None:
    frames = [frame(payload) for payload in payloads]
    frames += [Frame(1, "rest", "rest", "200 /api/v3/historicalTrades?symbol=BTCUSDT", payload) for payload in payloads]
    out = Decoder(venue(name), Sequences(name)).run(frames)
    assert len(out.pages) == len(payloads)


def test_a_rest_page_fills_the_hole_as_backfill() -> None:
    tracker = decoder()
    out = tracker.run([trade_frame(1), trade_frame(5), page_frame(2, [2, 3, 4, 5, 6])])
    assert [(decode_trade(v).trade_id, decode_trade(v).source) for v in out.values] == [
        (1, "live"),
        (5, "live"),
        (2, "backfill"),
        (3, "backfill"),
        (4, "backfill"),
        (6, "backfill"),
    ]
    assert [gap.state for gap in out.gaps] == ["start", "open", "healed"]
    assert out.duplicates == 1
    assert not tracker.sequences.holes()


def test_a_restarted_counter_is_a_new_epoch_and_loses_nothing() -> None:
    tracker = decoder()
    late = (1_760_000_000_000 + 5_000 * 10 + 60_000) * 1_000_000
    restarted = replace(trade_frame(1), payload=trade_frame(1).payload.replace(b"1760000000010", b"1760000110000"))
    out = tracker.run([trade_frame(5_000), replace(restarted, recv_ts=late)])
    assert [(decode_trade(v).epoch, decode_trade(v).trade_id) for v in out.values] == [(0, 5_000), (1, 1)]
    assert [gap.state for gap in out.gaps] == ["start", "epoch"]


def test_a_heartbeat_that_knows_a_later_trade_opens_a_gap() -> None:
    coinbase = venue("coinbase")
    match = (
        b'{"type":"match","trade_id":10,"maker_order_id":"a","taker_order_id":"b","side":"sell","size":"0.5",'
        b'"price":"100.1","product_id":"BTC-USD","sequence":5,"time":"2025-10-06T17:35:55.440295Z"}'
    )
    beat = (
        b'{"type":"heartbeat","last_trade_id":12,"product_id":"BTC-USD","sequence":9,'
        b'"time":"2025-10-06T17:35:56.440295Z"}'
    )
    tracker = Decoder(coinbase, Sequences("coinbase"))
    out = tracker.run([frame(match), frame(beat)])
    assert [(gap.state, gap.first_id, gap.last_id) for gap in out.gaps] == [("start", 10, 10), ("open", 11, 12)]
    assert [name for name, _ in out.signals] == ["c1"]
