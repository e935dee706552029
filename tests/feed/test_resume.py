"""Crash after any append, start again: the trade stream and the ledger come out as if nothing had happened."""

import pytest
from feed_kit import gaps, page_frame, trade_frame, trades
from hypothesis import given
from hypothesis import strategies as st

from k2.core.codec import GAPS_STREAM, encode_frames, encode_gap
from k2.core.session import Decoder
from k2.core.types import Frame, Gap
from k2.exchanges import venue
from k2.feed.replay import replay
from k2.feed.resume import consumer, resume
from k2.log import Entry, Position
from k2.log.memory import MemoryLog

BINANCE = venue("binance")
TRADES = "market.crypto.trades.binance"


class Life:
    """One process's life: it resumes, then records frames until it is left."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        found = resume(log, "binance")
        self.decoder = Decoder(BINANCE, found.sequences)
        self.amends = list(found.amends)
        self._ledger(self.amends)

    def record(self, frames: list[Frame], lose_ledger: bool = False) -> None:
        out = self.decoder.run(frames)
        entries = [Entry(TRADES + ".raw", [""] * len(frames), encode_frames(frames))]
        if out.values:
            entries.append(Entry(TRADES, out.keys, out.values))
        self.log.append(entries)
        if not lose_ledger:
            self._ledger(out.gaps)

    def checkpoint(self) -> None:
        self.log.commit(
            consumer("binance"),
            {
                TRADES: Position(self.log.bounds(TRADES)[1], self.decoder.sequences.dump()),
                GAPS_STREAM: Position(self.log.bounds(GAPS_STREAM)[1]),
            },
        )

    def _ledger(self, events: list[Gap]) -> None:
        if events:
            self.log.append([Entry(GAPS_STREAM, [g.symbol for g in events], [encode_gap(g) for g in events])])


def ledger_now(log: MemoryLog) -> dict[tuple[str, int, bool], Gap]:
    return {(gap.symbol, gap.first_id, gap.state == "start"): gap for gap in gaps(log)}


delivery = st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["BTCUSDT", "ETHUSDT"])), min_size=1, max_size=40)


@given(delivery, st.sets(st.integers(0, 40), max_size=4), st.sets(st.integers(0, 40), max_size=4))
def test_a_crash_anywhere_changes_nothing(
    delivered: list[tuple[int, str]], crashes: set[int], checkpoints: set[int]
) -> None:
    frames = [trade_frame(number, symbol, recv_ts=i + 1) for i, (number, symbol) in enumerate(delivered)]
    calm = MemoryLog()
    life = Life(calm)
    for one in frames:
        life.record([one])
    stormy = MemoryLog()
    life = Life(stormy)
    for i, one in enumerate(frames):
        life.record([one], lose_ledger=i in crashes)
        if i in crashes:
            life = Life(stormy)
        if i in checkpoints:
            life.checkpoint()
    assert trades(stormy) == trades(calm)
    assert {key: gap.state for key, gap in ledger_now(stormy).items()} == {
        key: gap.state for key, gap in ledger_now(calm).items()
    }
    assert Life(stormy).amends == []
    assert replay(stormy, BINANCE).different == 0


def test_a_resumed_handler_sees_the_hole_of_its_absence() -> None:
    log = MemoryLog()
    life = Life(log)
    life.record([trade_frame(1), trade_frame(2)])
    life.checkpoint()
    life = Life(log)
    life.record([trade_frame(9)])
    assert [(g.state, g.first_id, g.last_id) for g in gaps(log)] == [("start", 1, 1), ("open", 3, 8)]


def test_a_hole_that_only_a_heartbeat_told_of_survives_a_crash() -> None:
    log = MemoryLog()
    life = Life(log)
    life.record([trade_frame(1)])
    life.checkpoint()
    life._ledger(list(life.decoder.sequences.observe_last("BTC-USDT", 5, 77)))
    assert [(h.first_id, h.last_id) for h in Life(log).decoder.sequences.holes()] == [(2, 5)]


def test_a_hole_that_was_given_up_stays_so_and_can_still_heal() -> None:
    log = MemoryLog()
    life = Life(log)
    life.record([trade_frame(1), trade_frame(4)])
    life.checkpoint()
    (hole,) = life.decoder.sequences.holes()
    event = life.decoder.sequences.unavailable(hole, "gone", 99)
    assert event is not None
    life._ledger([event])
    life = Life(log)
    assert life.amends == []
    assert life.decoder.sequences.holes() == []
    assert len(life.decoder.sequences.holes(given_up=True)) == 1
    life.record([page_frame(2, [2, 3])])
    assert ledger_now(log)["BTC-USDT", 2, False].state == "healed"


def test_a_log_cut_back_behind_the_checkpoint_is_read_anew() -> None:
    log = MemoryLog()
    life = Life(log)
    life.record([trade_frame(1), trade_frame(2)])
    log.commit(consumer("binance"), {TRADES: Position(5, b"[]"), GAPS_STREAM: Position(1)})
    assert Life(log).decoder.sequences.last_id("BTC-USDT") == 2


def test_replay_shows_what_differs() -> None:
    log = MemoryLog()
    Life(log).record([trade_frame(1), trade_frame(2)])
    log.append([Entry(TRADES, ["BTC-USDT"], [b'{"forged":1}'])])
    result = replay(log, BINANCE)
    assert (result.frames, result.trades, result.different) == (2, 2, 1)
    assert result.differences[0].recorded == b'{"forged":1}'
    assert result.differences[0].replayed is None


def test_replay_begins_where_the_retained_frames_do() -> None:
    log = MemoryLog()
    life = Life(log)
    for i, number in enumerate([5, 6, 9, 3, 7, 10, 8, 11]):
        life.record([trade_frame(number, recv_ts=i + 1)])
    log.retain(TRADES + ".raw", max_age=None, max_bytes=600, now_ns=1)
    assert log.bounds(TRADES + ".raw")[0] > 0
    result = replay(log, BINANCE)
    assert result.different == 0
    assert result.trades > 0
    assert result.note


@pytest.mark.parametrize("appends", [[range(1, 11)], [range(1, 9), range(9, 10), range(10, 40)]])
def test_replay_of_a_range_compares_that_range(appends: list[range]) -> None:
    log = MemoryLog()
    life = Life(log)
    for numbers in appends:
        life.record([trade_frame(number, recv_ts=number) for number in numbers])
    result = replay(log, BINANCE, 4, 8)
    assert (result.frames, result.trades, result.first_offset, result.different) == (4, 4, 4, 0)


def test_replay_beside_a_handler_that_goes_on_compares_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    log = MemoryLog()
    life = Life(log)
    life.record([trade_frame(1), trade_frame(2)])
    bounds = log.bounds

    def bounds_then_more(stream: str) -> tuple[int, int]:
        found = bounds(stream)
        life.record([trade_frame(found[1] + 1)])
        life.record([trade_frame(number) for number in range(found[1] + 2, found[1] + 20)])
        return found

    monkeypatch.setattr(log, "bounds", bounds_then_more)
    result = replay(log, BINANCE)
    assert result.frames > 2
    assert (result.trades, result.different) == (2, 0)
