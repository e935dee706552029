"""The join, by property: whatever is appended when, however it is batched, filtered and bounded, a subscriber gets
exactly the log's records from its start on, in order, and what it gets after a cut is exactly the rest."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.web.stream_client import STREAMS, SYMBOLS, Client, all_of, append, positions, trade, until

from k2.config import EXCHANGES
from k2.core.codec import trades_stream
from k2.log.memory import MemoryLog
from k2.web.stream import Limits, follower
from k2.web.stream.hub import Hub
from k2.web.stream.selection import select


@dataclass
class Plan:
    """`early` and `late` are batches: (exchange, symbols of its trades). A client comes after `late[:comes_after]`."""

    early: list[tuple[int, list[int]]]
    late: list[tuple[int, list[int]]]
    clients: list[dict[str, Any]]
    limits: Limits
    pause: float


_batch = st.tuples(st.integers(0, 2), st.lists(st.integers(0, 3), min_size=1, max_size=12))
_filters = (["*"], ["BTC-USDT"], ["kraken:*", "binance:ETH-USDT"], ["binance:*"], ["coinbase:SOL-USDT", "ADA-USDT"])
_client = st.fixed_dictionaries(
    {
        "symbols": st.sampled_from(_filters),
        "start": st.sampled_from(("now", "earliest", "time", "positions")),
        "at": st.floats(0, 1),
        "comes_after": st.floats(0, 1),
        "bite": st.sampled_from((None, 300, 1_000, 5_000)),
        "cut": st.floats(0, 1),
        "encoding": st.sampled_from(("json", "json", "msgpack", "sse")),
    }
)
_plan = st.builds(
    Plan,
    st.lists(_batch, max_size=25),
    st.lists(_batch, min_size=1, max_size=40),
    st.lists(_client, min_size=1, max_size=4),
    st.fixed_dictionaries(
        {
            "buffer_bytes": st.sampled_from((500, 4_000, 1 << 20)),
            "recent_bytes": st.sampled_from((1, 2_000, 20_000, 8 << 20)),
            "chunk_bytes": st.sampled_from((1, 700, 5_000, 256 << 10)),
            "cache_bytes": st.sampled_from((1, 4_000, 16 << 20)),
            "behind_s": st.just(60.0),
            "look_s": st.just(0.0002),
            "linger_s": st.sampled_from(((0.0, 0.0), (0.0, 0.002))),
        }
    ).map(lambda bounds: Limits(**bounds)),
    st.sampled_from((0.0, 0.0005)),
)


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follower, "LOOK_S", 0.01)
        yield


class Writer:
    """Appends the plan's batches: some before, some while clients come."""

    def __init__(self, log: MemoryLog, plan: Plan) -> None:
        self.log, self.plan = log, plan
        self.made = 0
        self.times: list[int] = []
        self.done = 0
        self._go = threading.Condition()
        self._until = 0
        self._thread = threading.Thread(target=self._late)

    def append(self, batch: tuple[int, list[int]]) -> None:
        exchange = EXCHANGES[batch[0]]
        self.times.append(time.time_ns())
        append(self.log, exchange, [trade(exchange, SYMBOLS[s], self.made + n) for n, s in enumerate(batch[1])])
        self.made += len(batch[1])

    def start(self) -> None:
        self._thread.start()

    def _late(self) -> None:
        for batch in self.plan.late:
            self.append(batch)
            self.done += 1
            time.sleep(self.plan.pause)

    def join(self) -> None:
        self._thread.join()


def _start(wanted: dict[str, Any], log: MemoryLog, writer: Writer) -> Any:
    match wanted["start"]:
        case "time":
            return writer.times[int(wanted["at"] * (len(writer.times) - 1))] if writer.times else "now"
        case "positions":
            return {stream: int(wanted["at"] * log.bounds(stream)[1]) for stream in STREAMS[: len(STREAMS)]}
        case other:
            return other


async def _drain(client: Client, bite: int | None) -> None:
    while bite is not None:
        client.takes = 0
        client.take(bite)
        await asyncio.sleep(0)


async def _play(log: MemoryLog, plan: Plan) -> None:
    writer = Writer(log, plan)
    for batch in plan.early:
        writer.append(batch)
    hub = Hub(log, plan.limits)
    clients: list[tuple[Client, dict[str, Any]]] = []
    drains = []
    try:
        writer.start()
        for wanted in sorted(plan.clients, key=lambda one: one["comes_after"]):
            await until(lambda wanted=wanted: writer.done >= int(wanted["comes_after"] * len(plan.late)))
            client = Client(hub, wanted["encoding"], takes=None if wanted["bite"] is None else 0)
            clients.append((client, wanted))
            drains.append(asyncio.ensure_future(_drain(client, wanted["bite"])))
            start = _start(wanted, log, writer)
            if isinstance(start, dict):
                mine = {trades_stream(name) for name in select(wanted["symbols"]).exchanges()}
                start = {stream: offset for stream, offset in start.items() if stream in mine}
            await client.subscribe(symbols=tuple(wanted["symbols"]), start=start, id="a")
        await asyncio.to_thread(writer.join)
        ends = {stream: log.bounds(stream)[1] for stream in STREAMS}
        for client, _ in clients:
            (subscription,) = client.connection.subscriptions.values()
            cursors = subscription.cursors
            await until(lambda cursors=cursors: all(ends[s] == at for s, at in cursors.items()))
            assert client.most_unsent <= plan.limits.buffer_bytes + 2 * plan.limits.chunk_bytes * 2 + 8_000
        for client, wanted in clients:
            _judge(log, client.messages, wanted)
        await _resume(log, hub, clients)
    finally:
        for drain in drains:
            drain.cancel()
        writer.join()
        await hub.close()


def _judge(log: MemoryLog, messages: list[dict[str, Any]], wanted: dict[str, Any]) -> None:
    """Exactly the records of the log from the start on that were wanted, each stream's in order."""
    subscribed, *rest = messages
    assert subscribed["type"] == "subscribed"
    chosen = select(wanted["symbols"])
    assert set(subscribed["start"]) == {trades_stream(name) for name in chosen.exchanges()}
    for exchange in chosen.exchanges():
        stream = trades_stream(exchange)
        start, live = subscribed["start"][stream], subscribed["positions"][stream]
        got, at = [], start
        for message in rest:
            if message["type"] == "trades" and message["stream"] == stream:
                assert message["offset"] >= at
                assert message["live"] == (message["offset"] >= live)
                assert message["live"] or message["next"] <= live
                at = message["next"]
                got += message["trades"]
        all_ = all_of(log, exchange)[start:]
        assert got == [json.loads(record) for symbol, record in all_ if chosen.has(exchange, symbol)]


async def _resume(log: MemoryLog, hub: Hub, clients: list[tuple[Client, dict[str, Any]]]) -> None:
    """Cut a client's messages somewhere, subscribe again from there: together they are the whole."""
    for client, wanted in clients:
        whole = client.messages
        kept = whole[: 1 + int(wanted["cut"] * (len(whole) - 1))]
        again = Client(hub, wanted["encoding"])
        await again.subscribe(symbols=tuple(wanted["symbols"]), start=positions(kept))
        (subscription,) = again.connection.subscriptions.values()
        await until(lambda cursors=subscription.cursors: all(log.bounds(s)[1] == at for s, at in cursors.items()))
        for stream in subscription.cursors:

            def trades(messages: list[dict[str, Any]], stream: str = stream) -> list[Any]:
                return [one for m in messages if m.get("stream") == stream for one in m["trades"]]

            assert trades(kept) + trades(again.messages) == trades(whole)


@settings(max_examples=40)
@given(_plan)
def test_a_subscriber_gets_exactly_the_log_from_its_start(plan: Plan) -> None:
    log = MemoryLog()
    try:
        asyncio.run(_play(log, plan))
    finally:
        log.close()
