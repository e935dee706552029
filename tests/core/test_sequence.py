"""What the ids prove, under every order, loss and repetition; and after a crash."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from k2.core.sequence import Observation, Sequences, Verdict
from k2.core.types import Gap, Hole, Trade

SECOND = 1_000_000_000
SYMBOL = "BTC-USD"


def trade(number: int, ts: int | None = None, at: int | None = None, **other: object) -> Trade:
    ts = number * 10 * SECOND if ts is None else ts
    fields = {"source": "live", "epoch": 0, "symbol": SYMBOL} | other
    return Trade(
        exchange="kraken",
        native_symbol="BTC/USD",
        trade_id=number,
        price="1",
        quantity="1",
        side="buy",
        exchange_ts=ts,
        recv_ts=ts + 5 if at is None else at,
        **fields,  # type: ignore[arg-type]
    )


def feed(sequences: Sequences, numbers: list[int]) -> list[Observation]:
    return [sequences.observe(trade(number)) for number in numbers]


def states(events: list[Gap]) -> dict[tuple[int, int], str]:
    """The ledger's answer: the latest event of each (epoch, first id), starts left out."""
    return {(e.epoch, e.first_id): e.state for e in events if e.state not in ("start", "epoch")}


def test_the_first_trade_starts_the_capture_and_what_is_older_is_stale() -> None:
    sequences = Sequences("kraken")
    first, older, again, following = feed(sequences, [10, 9, 10, 11])
    at = 100 * SECOND + 5
    assert first == (Verdict.NEW, 0, (Gap("kraken", SYMBOL, 10, 10, "start", "the first trade seen", at, at),))
    assert [older.verdict, again.verdict] == [Verdict.STALE, Verdict.DUPLICATE]
    assert following == (Verdict.NEW, 0, ())


def test_a_hole_opens_shrinks_and_heals() -> None:
    sequences = Sequences("kraken")
    feed(sequences, [1, 2])
    (opened,) = sequences.observe(trade(6, at=77)).gaps
    assert opened == Gap("kraken", SYMBOL, 3, 5, "open", "trade ids were skipped", 77, 77)
    (hole,) = sequences.holes()
    assert hole == Hole(SYMBOL, "BTC/USD", 0, 3, 5, before_ts=20 * SECOND, after_ts=60 * SECOND)
    assert sequences.observe(trade(3)).gaps == ()
    assert sequences.holes() == [hole._replace(first_id=4)]
    assert sequences.missing(hole) == [(4, 5)]
    assert sequences.observe(trade(5, source="backfill")).gaps == ()
    assert sequences.missing(hole) == [(4, 4)]
    (healed,) = sequences.observe(trade(4, at=99)).gaps
    assert healed == replace(opened, state="healed", event_ts=99)
    assert sequences.holes() == []
    assert sequences.missing(hole) == []
    assert sequences.observe(trade(7)) == (Verdict.NEW, 0, ())


def test_a_heartbeat_shows_a_hole_at_the_end() -> None:
    sequences = Sequences("kraken")
    assert sequences.observe_last(SYMBOL, 5, 1) == ()  # nothing was captured yet
    feed(sequences, [1])
    (opened,) = sequences.observe_last(SYMBOL, 3, 50)
    assert (opened.first_id, opened.last_id, opened.state, opened.detected_ts) == (2, 3, "open", 50)
    assert sequences.observe_last(SYMBOL, 3, 51) == ()
    assert sequences.observe_last(SYMBOL, 2, 51) == ()
    assert [o.gaps for o in feed(sequences, [2])] == [()]
    assert [o.gaps[0].state for o in feed(sequences, [3])] == ["healed"]
    assert feed(sequences, [4]) == [Observation(Verdict.NEW, 0)]


def test_a_hole_that_was_given_up_heals_when_its_trades_come_after_all() -> None:
    sequences = Sequences("kraken")
    feed(sequences, [1, 5, 3])
    (hole,) = sequences.holes()
    given_up = sequences.unavailable(hole, "the venue does not have them", 42)
    assert given_up is not None
    assert (given_up.state, given_up.reason, given_up.event_ts) == ("unavailable", "the venue does not have them", 42)
    assert given_up.missing == ((2, 2), (4, 4))
    assert sequences.holes() == []
    assert sequences.holes(given_up=True) == [hole]
    assert [[g.state for g in o.gaps] for o in feed(sequences, [2, 4])] == [[], ["healed"]]
    assert sequences.unavailable(hole, "too late", 43) is None


def test_a_restarted_counter_is_a_new_epoch() -> None:
    sequences = Sequences("kraken")
    feed(sequences, [5_000, 5_003])
    young = 50_030 * SECOND + 2 * SECOND
    observation = sequences.observe(trade(1, young))
    assert (observation.verdict, observation.epoch) == (Verdict.NEW, 1)
    lost, began = observation.gaps
    assert (lost.first_id, lost.last_id, lost.state, lost.epoch) == (5_001, 5_002, "unavailable", 0)
    assert lost.missing == ((5_001, 5_002),)
    assert (began.first_id, began.state, began.epoch) == (1, "epoch", 1)
    assert sequences.observe(trade(2, young + 1)) == (Verdict.NEW, 1, ())
    assert sequences.epoch(SYMBOL) == 1
    assert sequences.observe(trade(5_002, 50_020 * SECOND)).verdict is Verdict.STALE  # left over from epoch 0
    assert sequences.observe(trade(5, young + 3)).gaps[0].epoch == 1


def test_what_a_restarted_counter_gave_before_it_was_noticed_is_missing_until_rest_brings_it() -> None:
    sequences = Sequences("kraken")
    feed(sequences, [5_000])
    newest = 50_000 * SECOND
    early = trade(1, newest + SECOND // 2)
    assert sequences.observe(early).verdict is Verdict.STALE  # too soon to tell from an old trade sent again
    began, opened = sequences.observe(trade(3, newest + 2 * SECOND)).gaps
    assert (began.first_id, began.state, began.epoch) == (3, "epoch", 1)
    assert (opened.first_id, opened.last_id, opened.state, opened.epoch) == (1, 2, "open", 1)
    again = Sequences.load("kraken", sequences.dump())
    old = trade(1, newest - SECOND, source="backfill")
    assert again.observe(old).verdict is Verdict.STALE  # the old epoch's trade 1, as REST may still tell it
    assert again.observe(trade(1, newest + SECOND // 2, source="backfill")) == (Verdict.NEW, 1, ())
    (healed,) = again.observe(trade(2, newest + SECOND, source="backfill")).gaps
    assert (healed.first_id, healed.state) == (1, "healed")
    assert again.holes() == []


@pytest.mark.parametrize(
    ("number", "late_s", "source"),
    [
        (4_999, 5, "live"),  # too near
        (10, 0.9, "live"),  # not younger
        (10, 5, "backfill"),  # not live
    ],
)
def test_what_is_no_restart(number: int, late_s: float, source: str) -> None:
    sequences = Sequences("kraken")
    feed(sequences, [3, 10, 4_999, 5_000])
    observation = sequences.observe(trade(number, 50_000 * SECOND + int(late_s * SECOND), source=source))
    assert observation.epoch == 0


def test_the_youngest_trade_may_be_one_that_fills_a_hole() -> None:
    sequences = Sequences("kraken")
    feed(sequences, [10, 5_000, 5_002])
    assert sequences.observe(trade(5_001, 60_000 * SECOND)).epoch == 0
    assert sequences.observe(trade(10, 60_000 * SECOND + 1)).verdict is Verdict.DUPLICATE


def test_trades_read_back_from_the_log_bring_their_epoch_with_them() -> None:
    sequences = Sequences("kraken")
    assert sequences.observe(trade(7, epoch=2)).epoch == 2
    assert sequences.observe(trade(1, epoch=3)).gaps[0].state == "epoch"
    assert sequences.last_id(SYMBOL) == 1


def test_symbols_do_not_touch_each_other() -> None:
    sequences = Sequences("kraken")
    feed(sequences, [1, 5])
    assert sequences.observe(trade(2, symbol="ETH-USD")).gaps[0].state == "start"
    assert [hole.symbol for hole in sequences.holes()] == [SYMBOL]


arrivals = st.lists(st.integers(1, 25), min_size=1, max_size=60)


@given(arrivals)
def test_every_trade_is_kept_once_and_every_hole_is_in_the_ledger(numbers: list[int]) -> None:
    sequences = Sequences("kraken")
    events: list[Gap] = []
    seen: set[int] = set()
    start = numbers[0]
    for number in numbers:
        verdict, _, gaps = sequences.observe(trade(number, SECOND))
        events += gaps
        if number < start:
            assert verdict is Verdict.STALE
        else:
            assert (verdict is Verdict.NEW) == (number not in seen)
            seen.add(number)
    absent = set(range(start, max(seen) + 1)) - seen
    missing = {n for hole in sequences.holes() for a, b in sequences.missing(hole) for n in range(a, b + 1)}
    assert missing == absent
    open_spans = [(e.first_id, e.last_id) for e in sequences.ledger() if e.state == "open"]
    assert all(any(a <= n <= b for a, b in open_spans) for n in absent)
    assert {key[1] for key, state in states(events).items() if state == "open"} == {a for a, _ in open_spans}


@given(st.integers(1, 20), st.sets(st.integers(2, 29)))
def test_dropping_any_trade_but_the_last_shows(first: int, dropped: set[int]) -> None:
    sequences = Sequences("kraken")
    feed(sequences, [n for n in range(first, 31) if n not in dropped or n in (first, 30)])
    missing = {n for hole in sequences.holes() for a, b in sequences.missing(hole) for n in range(a, b + 1)}
    assert missing == {n for n in dropped if first < n < 30}


@given(arrivals, st.integers(0, 60))
def test_a_checkpoint_carries_everything(numbers: list[int], cut: int) -> None:
    whole, before = Sequences("kraken"), Sequences("kraken")
    expected = feed(whole, numbers)
    head = feed(before, numbers[:cut])
    after = Sequences.load("kraken", before.dump())
    assert after.dump() == before.dump()
    assert head + feed(after, numbers[cut:]) == expected
    assert after.dump() == whole.dump()
    assert after.ledger() == whole.ledger()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("trade"), st.integers(1, 25)),
        st.tuples(st.just("heartbeat"), st.integers(1, 27)),
        st.tuples(st.just("give up"), st.integers(0, 3)),
    ),
    max_size=50,
)


@given(steps, st.integers(0, 50))
def test_after_a_crash_the_ledger_agrees_with_the_trades_again(run: list[tuple[str, int]], kept: int) -> None:
    """The trade stream survives; heartbeats do not, and of the ledger only its first `kept` events."""
    sequences, written, ledger = Sequences("kraken"), list[Trade](), list[Gap]()
    for step, value in run:
        if step == "trade":
            one = trade(value, SECOND)
            verdict, _, gaps = sequences.observe(one)
            written += [one] if verdict is Verdict.NEW else []
            ledger += gaps
        elif step == "heartbeat":
            ledger += sequences.observe_last(SYMBOL, value, 9)
        elif value < len(sequences.holes()):
            event = sequences.unavailable(sequences.holes()[value], "given up", 10)
            ledger += [event] if event else []
    ledger = ledger[:kept]
    again = Sequences("kraken")
    for one in written:
        observed = again.observe(one)
        assert observed.verdict is Verdict.NEW
        ledger += observed.gaps
    latest = {(e.epoch, e.first_id): e for e in ledger if e.state not in ("start", "epoch")}
    for event in latest.values():
        if event.state in ("open", "unavailable"):
            ledger += again.adopt(event)
    ledger += again.ledger()
    unhealed = {key for key, state in states(ledger).items() if state != "healed"}
    assert unhealed == {(e.epoch, e.first_id) for e in again.ledger() if e.state in ("open", "unavailable")}
    tracked = [hole for given_up in (False, True) for hole in again.holes(given_up=given_up)]
    missing = [n for hole in tracked for a, b in again.missing(hole) for n in range(a, b + 1)]
    assert len(missing) == len(set(missing))
    if written:
        start, seen = written[0].trade_id, {t.trade_id for t in written}
        assert set(missing) >= set(range(start, max(seen) + 1)) - seen
        spans = [(e.first_id, e.last_id) for e in again.ledger() if e.state in ("open", "unavailable")]
        assert spans == sorted(spans)
        assert all(a[1] < b[0] for a, b in pairwise(spans))
        for number in sorted(missing):
            ledger += again.observe(trade(number, SECOND)).gaps
    assert "open" not in states(ledger).values()


def ledger_gap(first: int, last: int, state: str = "open") -> Gap:
    return Gap("kraken", SYMBOL, first, last, state, "from the ledger", 8, 7)  # type: ignore[arg-type]


def test_what_a_heartbeat_announced_before_a_crash_is_taken_over() -> None:
    sequences = Sequences("kraken")
    feed(sequences, [1, 2])
    assert sequences.adopt(ledger_gap(3, 9)) == ()
    assert [(h.first_id, h.last_id, h.before_ts) for h in sequences.holes()] == [(3, 9, 20 * SECOND)]
    assert ledger_gap(3, 9) in sequences.ledger()


def test_a_gap_of_the_ledger_that_trades_have_shown_to_be_wider_is_cut_in_two() -> None:
    sequences = Sequences("kraken")
    feed(sequences, [1, 8])
    events = sequences.adopt(ledger_gap(5, 7))
    assert [(e.first_id, e.last_id, e.state) for e in events] == [(2, 4, "open"), (5, 7, "open")]
    assert [g.state for o in feed(sequences, [2, 3, 4, 5, 6, 7]) for g in o.gaps] == ["healed", "healed"]


def test_a_gap_of_the_ledger_whose_beginning_arrived_is_healed_as_far_as_it_goes() -> None:
    sequences = Sequences("kraken")
    feed(sequences, [1, 2, 3, 6])
    (healed,) = sequences.adopt(ledger_gap(2, 5))
    assert (healed.first_id, healed.last_id, healed.state) == (2, 3, "healed")
    (healed,) = sequences.adopt(ledger_gap(1, 3))
    assert (healed.first_id, healed.last_id, healed.state) == (1, 3, "healed")
    assert [(h.first_id, h.last_id) for h in sequences.holes()] == [(4, 5)]


def test_a_gap_that_the_ledger_has_given_up_stays_given_up() -> None:
    sequences = Sequences("kraken")
    feed(sequences, [1, 4])
    assert sequences.adopt(ledger_gap(2, 3, "unavailable")) == ()
    assert sequences.holes() == []
    (gap,) = (event for event in sequences.ledger() if event.state == "unavailable")
    assert gap == replace(ledger_gap(2, 3, "unavailable"), missing=((2, 3),))


def test_gaps_of_other_epochs_symbols_and_times_before_the_start_are_left_alone() -> None:
    sequences = Sequences("kraken")
    feed(sequences, [10, 11])
    before = sequences.dump()
    for gap in (
        replace(ledger_gap(12, 13), epoch=1),
        replace(ledger_gap(12, 13), symbol="ETH-USD"),
        ledger_gap(2, 9),
    ):
        assert sequences.adopt(gap) == ()
    assert sequences.dump() == before


def test_bytes_that_are_no_checkpoint_are_refused() -> None:
    with pytest.raises(ValueError, match="not a checkpoint of kraken"):
        Sequences.load("kraken", b'[{"symbol":1}]')
    assert Sequences.load("kraken", b"").ledger() == []
