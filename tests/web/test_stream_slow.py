"""Who does not keep up: memory stays bounded, the chosen policy holds, and others notice nothing."""

import asyncio
import gc
import json
import time
import tracemalloc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.web.stream_client import Client, all_of, append, positions, trade, until

from k2.core.codec import trades_stream
from k2.log.memory import MemoryLog
from k2.web.problems import Problem
from k2.web.stream import Limits
from k2.web.stream.hub import Hub

BINANCE = trades_stream("binance")
QUICK = Limits(
    buffer_bytes=20_000, chunk_bytes=4_000, recent_bytes=50_000, cache_bytes=50_000, behind_s=0.4, stall_s=1.0,
    linger_s=(0.0, 0.001), heartbeat_s=0.1, look_s=0.002,
)  # fmt: skip


class Clock:
    """Turned by hand: seconds. Who is slow must not depend on how busy this machine is."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Market:
    """A memory log and its hub."""

    def __init__(self, limits: Limits = QUICK, clock: Callable[[], float] = time.monotonic) -> None:
        self.log = MemoryLog()
        self.hub = Hub(self.log, limits, clock=clock)
        self.made = 0

    def trade(self, number: int, symbol: str = "BTC-USDT", exchange: str = "binance") -> None:
        append(self.log, exchange, [trade(exchange, symbol, self.made + n) for n in range(1, number + 1)])
        self.made += number

    async def __aenter__(self) -> "Market":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hub.close()
        self.log.close()


def ids(messages: list[dict[str, Any]]) -> list[int]:
    return [one["trade_id"] for message in messages if message["type"] == "trades" for one in message["trades"]]


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_disconnect_is_told_with_positions_that_resume_exactly() -> None:
    clock = Clock()

    async def scenario() -> None:
        async with Market(clock=clock) as market:
            slow, quick = Client(market.hub, takes=0), Client(market.hub)
            await slow.subscribe()
            await quick.subscribe()
            for _ in range(50):
                market.trade(20)
                await asyncio.sleep(0.001)
            await until(lambda: len(ids(quick.messages)) == 1000)
            assert slow.ended is None
            assert slow.most_unsent < QUICK.buffer_bytes + 8_000
            clock.now += 2 * QUICK.behind_s
            await until(lambda: slow.ended is not None)
            assert slow.ended is not None
            assert slow.ended[0] == 1008
            *before, last = slow.messages
            assert last["type"] == "slow"
            assert positions(before) | last["positions"] == last["positions"]
            again = Client(market.hub)
            await again.subscribe(start=last["positions"])
            await until(lambda: len(ids(before)) + len(ids(again.messages)) == 1000)
            assert ids(before) + ids(again.messages) == list(range(1, 1001))
            assert quick.ended is None

    play(scenario())


def test_who_catches_up_in_time_misses_nothing() -> None:
    async def scenario() -> None:
        async with Market(QUICK._replace(behind_s=30.0)) as market:
            client = Client(market.hub, takes=0)
            await client.subscribe()
            market.trade(2000)
            await until(client.connection.full)
            client.take(1 << 30)
            await until(lambda: len(ids(client.messages)) == 2000)
            assert ids(client.messages) == list(range(1, 2001))

    play(scenario())


def test_conflate_goes_on_with_the_newest_of_each_symbol_and_counts_the_rest() -> None:
    clock = Clock()

    async def scenario() -> None:
        async with Market(clock=clock) as market:
            client = Client(market.hub, takes=0)
            await client.subscribe(slow="conflate", symbols=("binance:*",))
            for _ in range(100):
                market.trade(10, "BTC-USDT")
                market.trade(10, "ETH-USDT")
                market.trade(10, "ETH-USD", "kraken")
                await asyncio.sleep(0.001)
            await until(lambda: market.hub.recents[BINANCE].end == 2000)
            await until(client.connection.full)
            clock.now += 2 * QUICK.behind_s  # longer than a disconnecting client would be kept
            await asyncio.sleep(0.05)
            assert client.ended is None
            client.take(1 << 30)
            await until(lambda: positions(client.messages)[BINANCE] == 2000)
            (gathered,) = [m for m in client.of("trades") if "skipped" in m]
            told = [one for m in client.of("trades") for one in m["trades"]]
            assert [m["offset"] for m in client.of("trades")][1:] == [m["next"] for m in client.of("trades")][:-1]
            assert len(told) + gathered["skipped"] == 2000
            assert sum(gathered["skipped_symbols"].values()) == gathered["skipped"]
            newest = {symbol: json.loads(record) for symbol, record in all_of(market.log, "binance")}
            assert {one["symbol"]: one for one in gathered["trades"]} == newest
            market.trade(1)
            await until(lambda: positions(client.messages)[BINANCE] == 2001)

    play(scenario())


def test_who_takes_nothing_at_all_is_cut_off_whatever_it_asked_for() -> None:
    async def scenario() -> None:
        async with Market() as market:
            market.trade(3000)
            reader = Client(market.hub, takes=0)
            await reader.subscribe(start="earliest", slow="conflate")  # history: no policy applies
            await until(lambda: reader.ended is not None)
            assert reader.messages[-1]["type"] == "slow"

    play(scenario())


def test_a_slow_reader_of_history_is_not_hurried() -> None:
    clock = Clock()

    async def scenario() -> None:
        async with Market(QUICK._replace(stall_s=0.5), clock) as market:
            market.trade(3000)
            reader = Client(market.hub, takes=0)
            await reader.subscribe(start="earliest")
            for _ in range(60):  # 1.2 s: longer than a live one may be behind
                reader.take(2_000)
                clock.now += 0.02
                await asyncio.sleep(0.005)
            assert reader.ended is None
            reader.take(1 << 30)
            await until(lambda: len(ids(reader.messages)) == 3000)

    play(scenario())


def test_a_great_step_of_the_log_is_sent_in_pieces() -> None:
    async def scenario() -> None:
        async with Market(QUICK._replace(behind_s=60.0, stall_s=60.0)) as market:
            client = Client(market.hub, takes=0)
            await client.subscribe()
            append(market.log, "binance", [trade("binance", "BTC-USDT", n) for n in range(1, 3_001)])
            await until(client.connection.full)
            assert client.most_unsent < QUICK.buffer_bytes + 8_000
            client.take(1 << 30)
            await until(lambda: len(ids(client.messages)) == 3_000)

    play(scenario())


@pytest.mark.slow
def test_many_that_are_stuck_cost_no_more_than_their_buffers() -> None:
    async def scenario() -> None:
        async with Market(QUICK._replace(behind_s=60.0, stall_s=60.0)) as market:
            stuck = [Client(market.hub, takes=0) for _ in range(50)]
            for client in stuck:
                await client.subscribe()
            market.trade(5_000)
            await until(lambda: all(client.connection.full() for client in stuck))
            gc.collect()
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(40):
                market.trade(500)
                await asyncio.sleep(0.01)
            log = sum(len(record) for _, record in all_of(market.log, "binance")[5_000:])
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
            assert grown < 2.5 * log + 1_000_000  # the memory log's own: values and keys
            assert all(client.most_unsent < QUICK.buffer_bytes + 8_000 for client in stuck)

    play(scenario())


def test_what_retention_dropped_is_told_not_left_out() -> None:
    async def scenario() -> None:
        async with Market(QUICK._replace(behind_s=60.0, stall_s=60.0)) as market:
            client = Client(market.hub, takes=0)
            await client.subscribe()
            while not client.connection.full():
                market.trade(100)
                await asyncio.sleep(0.002)
            for _ in range(20):  # which it is not sent, and which are too many to be kept for all
                market.trade(100)
            await until(lambda: market.hub.recents[BINANCE].end == market.made)
            market.log.retain(BINANCE, None, 1_000, 0)
            client.take(1 << 30)
            await until(lambda: client.ended is not None)
            error = client.messages[-1]
            assert (error["type"], error["problem"]) == ("error", "/docs/problems#stream-broken")
            assert "begins at offset" in error["detail"]
            got = ids(client.messages)
            assert got == list(range(1, len(got) + 1))
            for start in ("-1h", {BINANCE: 5}):
                with pytest.raises(Problem, match="begins at offset") as caught:
                    await Client(market.hub).subscribe(start=start)
                assert caught.value.status == 410
            assert caught.value.extra["begins"] == market.log.bounds(BINANCE)[0]

    play(scenario())


def test_an_unreadable_log_ends_every_stream_and_is_told() -> None:
    async def scenario() -> None:
        async with Market() as market:
            clients = [Client(market.hub), Client(market.hub)]
            for client in clients:
                await client.subscribe()
            market.log.close()
            await until(lambda: all(client.ended is not None for client in clients))
            assert {client.messages[-1]["type"] for client in clients} == {"error"}
            with pytest.raises(Problem, match="closed"):
                await Client(market.hub).subscribe()

    play(scenario())


def test_nothing_follows_the_log_while_nobody_listens() -> None:
    async def scenario() -> None:
        async with Market() as market:
            client = Client(market.hub)
            await client.subscribe()
            market.trade(3)
            await until(lambda: len(ids(client.messages)) == 3)
            client.connection.end(1000, "")
            market.trade(3)
            later = Client(market.hub)
            await later.subscribe(start={BINANCE: 2})
            await until(lambda: len(ids(later.messages)) == 4)
            assert ids(later.messages) == [3, 4, 5, 6]
            assert ids(client.messages) == [1, 2, 3]

    play(scenario())
