"""The market: seeded, dense, at the rate that was asked for."""

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sim_client import heard, running, told

from k2.config import EXCHANGES
from k2.core.types import Confirmed
from k2.sim.generator import LEVELS, LONGEST_BURST, Arrivals, Instrument, VenueClock, reference_price
from k2.sim.truth import RECORD, Made, packed
from k2.sim.venues.rfc3339 import parse, stamp

SECOND = 1_000_000_000


@pytest.mark.parametrize("burst", [1.0, 1.5, 4.0])
def test_rate_and_shares(burst: float) -> None:
    arrivals = Arrivals([3, 1], 10_000, burst, "seed")
    made = [0, 0]
    largest = 0
    for _at, index, count, _word in arrivals.due(20 * SECOND, 10**9):
        made[index] += count
        largest = max(largest, count)
    assert sum(made) == pytest.approx(200_000, rel=0.03)
    assert made[0] / made[1] == pytest.approx(3, rel=0.1)
    assert largest <= LONGEST_BURST
    assert (largest == 1) == (burst == 1.0)


def test_arrivals_are_poisson() -> None:
    """Counts in equal windows: variance equal to the mean."""
    counts = [0] * 2000
    for at, _, count, _ in Arrivals([1], 20_000, 1.0, "seed").due(2 * SECOND - 1, 10**9):
        counts[at // 1_000_000] += count
    mean = sum(counts) / len(counts)
    variance = sum((count - mean) ** 2 for count in counts) / len(counts)
    assert variance == pytest.approx(mean, rel=0.15)


def test_the_same_seed_gives_the_same_market() -> None:
    first, second = (Arrivals([5, 1, 1], 1000, 2.0, "7:0").due(SECOND, 10**6) for _ in range(2))
    other = Arrivals([5, 1, 1], 1000, 2.0, "8:0").due(SECOND, 10**6)
    assert first == second
    assert first != other


def test_room_bounds_a_batch_and_nothing_is_skipped() -> None:
    whole = Arrivals([1], 5000, 1.5, "s").due(SECOND, 10**9)
    pieces = Arrivals([1], 5000, 1.5, "s")
    found = []
    while batch := pieces.due(SECOND, 50):
        assert sum(count for _, _, count, _ in batch) < 50 + LONGEST_BURST
        found += batch
    assert found == whole


@settings(max_examples=20)
@given(st.integers(0, 1 << 60), st.sampled_from(["BTC-USDT", "DOGE-USD", "NOBODYKNOWS-USD", "SKL-BTC"]))
def test_ids_are_dense_and_prices_stay_near(seed: int, symbol: str) -> None:
    instrument = Instrument(symbol, symbol, 8, 4, 8, random.Random(seed))
    first = instrument.last_id + 1
    assert first > 1_000_000
    rng = random.Random(seed)
    instrument.row = lambda trade_id, level, size, head, tail: b"%d %d" % (trade_id, instrument.levels[level])
    rows = [
        row for n in range(200) for row in instrument.trade(n, n & 1, rng.randint(1, 6), rng.getrandbits(40), b"", b"")
    ]
    made = [tuple(map(int, row.split())) for row in rows]
    assert [number for number, _ in made] == list(range(first, first + len(made)))
    reference = reference_price(symbol) * 10**8
    assert all(reference * 0.9 < price < reference * 1.1 or price < 3 * LEVELS for _, price in made)
    records = [Made(*fields) for fields in RECORD.iter_unpack(packed(instrument.pending))]
    assert [(record.trade_id, record.price) for record in records] == made
    assert all(record.quantity > 0 and record.price_scale == record.quantity_scale == 8 for record in records)


@given(
    st.lists(st.tuples(st.integers(0, 10 * SECOND), st.none() | st.integers(-60 * SECOND, 60 * SECOND)), max_size=60)
)
def test_a_venues_time_never_runs_back(steps: list[tuple[int, int | None]]) -> None:
    clock = VenueClock()
    clock.start(0, 0)
    now, last = 0, 0
    for passed, skew in steps:
        now += passed
        if skew is not None:
            clock.turn(skew)
        shown = clock.at(now)
        assert shown >= last
        last = shown
    assert clock.at(now + 500 * SECOND) - now - 500 * SECOND == clock.skew


@given(st.integers(0, 4_000_000_000 * SECOND))
def test_times_as_text(ns: int) -> None:
    assert parse(stamp(ns).decode()) == ns // 1000 * 1000


@pytest.mark.parametrize("rate", [-1, 2_000_000])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        Arrivals([1], rate, 1.5, "s")


def test_many_trades_all_arrive(tmp_path: Path) -> None:
    """20,000 a second, three venues, one client each: everything is heard, in order, exactly."""

    async def run() -> None:
        async with running(tmp_path, rate=20_000, count=12_000, paused=True) as session, AsyncExitStack() as open_ones:
            sockets = []
            for name in EXCHANGES:
                socket = await open_ones.enter_async_context(session.socket(name))
                await socket.subscribe()
                await socket.read(lambda s: bool(s.of(Confirmed)))
                sockets.append(socket)
            await session.control("resume")
            while not session.sim.drained:
                await asyncio.sleep(0.02)
            for socket in sockets:
                true = session.true(socket.venue.name)
                wanted = len(true)
                await socket.read(lambda s, wanted=wanted: len(s.trades) >= wanted)
                assert sorted(map(heard, socket.trades)) == sorted(map(told, true))
                for symbol in {trade.symbol for trade in socket.trades}:
                    assert socket.ids(symbol) == sorted(socket.ids(symbol))

    asyncio.run(run())
