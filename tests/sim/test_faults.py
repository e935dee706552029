"""Every fault does what it says, and the truth knows better."""

import asyncio
import random
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sim_client import SYMBOLS, Session, Socket, heard, running, told

from k2.config import EXCHANGES
from k2.core.types import Confirmed, Fault, Heartbeat, Refused, Trade
from k2.exchanges import venue
from k2.sim.faults import FAULTS, FaultError, Faults, Order, Shaper, parse_order
from k2.sim.framing import frame, payload_of

every_venue = pytest.mark.parametrize("name", EXCHANGES)


async def subscribed(session: Session, socket: Socket) -> Socket:
    await socket.subscribe()
    wanted = len(SYMBOLS[socket.venue.name]) if socket.venue.name == "kraken" else 1
    await socket.read(lambda s: len(s.of(Confirmed)) >= wanted)
    return socket


async def orders(session: Session, name: str, count: int) -> list[int]:
    """Taker orders of one trade each, so that each is a frame; all at once."""
    return [session.sim.emit(name, SYMBOLS[name][0], 1, "buy")[0] for _ in range(count)]


@every_venue
def test_drop(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session, session.socket(name) as socket:
            await subscribed(session, socket)
            await session.fault("drop", name, probability=0.5, count=5)
            ids = await orders(session, name, 40)
            await socket.read(lambda s: len(s.trades) >= 35)
            assert len(set(ids) - set(socket.ids())) == 5
            assert [trade.trade_id for trade in session.true(name)] == ids
            listed = await session.control("faults", method="GET")
            assert listed["played"] == {f"{name}/drop": 5}
            assert listed["standing"] == []

    asyncio.run(run())


@every_venue
def test_duplicate(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session, session.socket(name) as socket:
            await subscribed(session, socket)
            await session.fault("duplicate", name)
            ids = await orders(session, name, 5)
            await socket.read(lambda s: len(s.trades) >= 10)
            assert socket.ids() == [number for number in ids for _ in range(2)]

    asyncio.run(run())


@every_venue
def test_reorder(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session, session.socket(name) as socket:
            await subscribed(session, socket)
            await session.fault("reorder", name, count=1)
            ids = await orders(session, name, 4)
            await socket.read(lambda s: len(s.trades) >= 4)
            assert socket.ids() == [ids[1], ids[0], *ids[2:]]

    asyncio.run(run())


@every_venue
def test_reorder_does_not_hold_the_last_frame_for_ever(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session, session.socket(name) as socket:
            await subscribed(session, socket)
            await session.fault("reorder", name, count=1)
            ids = await orders(session, name, 1)
            await socket.read(lambda s: bool(s.trades))
            assert socket.ids() == ids

    asyncio.run(run())


@every_venue
def test_delay(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session, session.socket(name) as socket:
            await subscribed(session, socket)
            await session.fault("delay", name, count=2, amount=0.2)
            ids = await orders(session, name, 4)
            await socket.read(lambda s: len(s.trades) >= 4)
            assert socket.ids() == [*ids[2:], *ids[:2]]

    asyncio.run(run())


@every_venue
@pytest.mark.parametrize("fault", ["truncate", "corrupt"])
def test_hurt_frames_are_right_or_recognised(fault: str, name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session, session.socket(name) as socket:
            await subscribed(session, socket)
            await session.fault(fault, name, count=30)
            await orders(session, name, 30)
            last = (await orders(session, name, 1))[0]
            before = len(socket.raw)
            await socket.read(lambda s: last in s.ids())
            assert len(socket.raw) - before == 31
            true = {told(trade) for trade in session.true(name)}
            assert {heard(trade) for trade in socket.trades} <= true
            assert len(socket.of(Fault)) >= 20

    asyncio.run(run())


@every_venue
def test_junk(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session, session.socket(name) as socket:
            await subscribed(session, socket)
            await session.fault("junk", name, count=30)
            ids = await orders(session, name, 30)
            await socket.read(lambda s: len(s.trades) >= 30)
            assert socket.ids() == ids
            assert len(socket.raw) >= 60

    asyncio.run(run())


@every_venue
def test_close_happens_once(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            async with session.socket(name) as socket:
                await subscribed(session, socket)
                await session.fault("close", name)
                with pytest.raises(ConnectionError):
                    await socket.read(lambda s: False)
            async with session.socket(name) as socket:
                await subscribed(session, socket)
                ids = await orders(session, name, 1)
                await socket.read(lambda s: s.ids()[-1:] == ids)

    asyncio.run(run())


def test_close_at_a_frame_loses_what_follows_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session, session.socket("binance") as socket:
            await subscribed(session, socket)
            await session.fault("close", "binance", symbol="BTC-USDT")
            ids = await session.emit("binance", 3)
            with pytest.raises(ConnectionError):
                await socket.read(lambda s: False)
            assert socket.ids() == ids[:1]

    asyncio.run(run())


@every_venue
def test_close_loop(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            await session.fault("close-loop", name, amount=0.05)
            for _ in range(2):
                async with session.socket(name) as socket:
                    with pytest.raises(ConnectionError):
                        await socket.read(lambda s: False)

    asyncio.run(run())


@every_venue
def test_silent_and_silent_channel(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session, session.socket(name) as socket:
            await subscribed(session, socket)
            (fault,) = await session.fault("silent", name)
            with pytest.raises(TimeoutError):
                await socket.read(lambda s: False, timeout=0.2)  # what was under way before
            heard_before = len(socket.raw)
            await orders(session, name, 3)
            with pytest.raises(TimeoutError):
                await socket.read(lambda s: False, timeout=1.5)
            assert len(socket.raw) == heard_before
            await session.control(f"faults?id={fault}", method="DELETE")
            await session.fault("silent-channel", name)
            await orders(session, name, 3)
            if name != "binance":
                await socket.read(lambda s: bool(s.of(Heartbeat)))
            assert not socket.trades
            assert (await session.control("faults", method="DELETE")) == {"cleared": 1}
            ids = await orders(session, name, 2)
            await socket.read(lambda s: len(s.trades) >= 2)
            assert socket.ids() == ids
            assert len(session.true(name)) == 8

    asyncio.run(run())


@every_venue
def test_no_handshake(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            await session.fault("no-handshake", name, count=1)
            reader, writer = await asyncio.open_connection("127.0.0.1", session.sim.ws_port)
            path = session.sim.markets[name].venue.path
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.5)
            writer.close()
            async with session.socket(name) as socket:
                await subscribed(session, socket)

    asyncio.run(run())


@every_venue
def test_refuse(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session, session.socket(name) as socket:
            refused, accepted = SYMBOLS[name]
            await session.fault("refuse", name, symbol=refused)
            await socket.subscribe([refused])
            await socket.read(lambda s: bool(s.of(Refused)))
            await socket.subscribe([accepted])
            await socket.read(lambda s: bool(s.of(Confirmed)))
            await session.emit(name, 1, refused)
            ids = await session.emit(name, 1, accepted)
            await socket.read(lambda s: bool(s.trades))
            assert (socket.ids(refused), socket.ids(accepted)) == ([], ids)

    asyncio.run(run())


HISTORY = {
    "binance": "/binance/api/v3/historicalTrades?symbol=BTCUSDT&fromId=0",
    "coinbase": "/coinbase/products/BTC-USD/trades",
    "kraken": "/kraken/0/public/Trades?pair=BTC/USD&since=0",
}


def listed(name: str, body: bytes) -> list[int]:
    rows: Any = msgspec.json.decode(body)
    if name == "kraken":
        return [row[6] for row in rows["result"]["XXBTZUSD"]]
    return [row["id" if name == "binance" else "trade_id"] for row in rows]


@every_venue
def test_rest_refusals(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            ids = await session.emit(name, 2)
            for fault, expected in (("rest-429", 429), ("rest-418", 418), ("rest-5xx", 503)):
                await session.fault(fault, name, count=1, amount=7)
                status, body, headers = await session.get(HISTORY[name])
                if name == "kraken" and expected != 503:
                    assert (status, len(msgspec.json.decode(body)["error"])) == (200, 1)
                else:
                    assert status == expected
                    assert headers.get("Retry-After", "7") == "7"
            _, body, _ = await session.get(HISTORY[name])
            assert sorted(listed(name, body)) == ids

    asyncio.run(run())


@every_venue
def test_rest_slow_and_rest_timeout(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            await session.fault("rest-slow", name, count=1, amount=0.3)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(session.get(HISTORY[name]), 0.1)
            await session.fault("rest-timeout", name, count=1)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(session.get(HISTORY[name]), 0.5)
            assert (await session.get(HISTORY[name]))[0] == 200

    asyncio.run(run())


@every_venue
def test_rest_empty_and_missing_range(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            ids = await session.emit(name, 6)
            await session.fault("rest-empty", name, count=1)
            assert listed(name, (await session.get(HISTORY[name]))[1]) == []
            await session.fault("rest-empty", name, first_id=ids[2], last_id=ids[3])
            assert sorted(listed(name, (await session.get(HISTORY[name]))[1])) == [*ids[:2], *ids[4:]]

    asyncio.run(run())


@every_venue
def test_overlapping_pages(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            ids = await orders(session, name, 10)
            await session.fault("overlap", name, amount=2)
            times = {trade.trade_id: trade.exchange_ts for trade in session.true(name)}
            path, expected = {
                "binance": (f"/binance/api/v3/historicalTrades?symbol=BTCUSDT&fromId={ids[5]}", ids[3:]),
                "coinbase": (f"/coinbase/products/BTC-USD/trades?after={ids[5]}", ids[:7]),
                "kraken": (f"/kraken/0/public/Trades?pair=BTC/USD&since={times[ids[5]]}", ids[4:]),
            }[name]
            assert sorted(listed(name, (await session.get(path))[1])) == expected

    asyncio.run(run())


@every_venue
@pytest.mark.parametrize("skew", [30.0, -30.0])
def test_clock_skew_from_the_start(name: str, skew: float, tmp_path: Path) -> None:
    async def run() -> None:
        order = Order(fault="clock-skew", exchange=name, amount=skew)
        async with running(tmp_path, paused=True, orders=(order,)) as session:
            await orders(session, name, 1)
            (trade,) = session.true(name)
            assert abs((trade.exchange_ts - session.sim.now_ns()) / 1e9 - skew) < 10

    asyncio.run(run())


@every_venue
def test_epoch(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session, session.socket(name) as socket:
            await subscribed(session, socket)
            old = await orders(session, name, 2)
            await session.fault("epoch", name, symbol=SYMBOLS[name][0])
            await session.until(lambda: session.sim.markets[name].instruments[0].epoch)
            new = await orders(session, name, 3)
            assert new == [1, 2, 3]
            await socket.read(lambda s: len(s.trades) >= 5)
            assert socket.ids() == old + new
            assert [(trade.epoch, trade.trade_id) for trade in session.true(name)] == [
                *((0, number) for number in old),
                *((1, number) for number in new),
            ]
            assert sorted(listed(name, (await session.get(HISTORY[name]))[1])) == new

    asyncio.run(run())


def test_every_fault_is_tested_here() -> None:
    text = Path(__file__).read_text()
    assert [name for name in FAULTS if f'"{name}"' not in text] == []


def test_a_fault_ends_by_its_time() -> None:
    faults = Faults(1)
    faults.order(Order(fault="drop", exchange="all", seconds=5))
    faults.expire(4.9)
    assert len(faults.standing) == 3
    faults.expire(5.0)
    assert faults.standing == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("drop:binance:p=0.01", Order(fault="drop", exchange="binance", probability=0.01)),
        ("close", Order(fault="close", exchange="all", count=1)),
        ("delay:kraken:amount=2,seconds=9,symbol=BTC-USD", None),
    ],
)
def test_flags(text: str, expected: Order | None) -> None:
    assert parse_order(text) == (
        expected or Order(fault="delay", exchange="kraken", amount=2.0, seconds=9.0, symbol="BTC-USD")
    )


@pytest.mark.parametrize(
    "text", ["", "dropp:binance", "drop:nasdaq", "drop:binance:p", "drop:binance:p=x", "drop:all:q=1"]
)
def test_wrong_flags_say_so(text: str) -> None:
    with pytest.raises(FaultError, match=r"\w{4}"):
        parse_order(text)


@given(st.binary(max_size=70_000), st.sampled_from([0x81, 0x82]))
def test_framing(payload: bytes, opcode: int) -> None:
    data = frame(payload, opcode)
    assert data[0] == opcode
    assert payload_of(data) == payload


@given(st.integers(0, 1 << 30), st.lists(st.sampled_from(["A", "B", "C"]), min_size=1, max_size=60))
def test_reordered_and_delayed_frames_all_arrive(seed: int, symbols: list[str]) -> None:
    faults = Faults(seed)
    for name in ("reorder", "delay", "duplicate"):
        faults.order(Order(fault=name, exchange="kraken", probability=0.3, amount=0.4))
    shaper, out = Shaper("kraken", faults, str), []
    frames = [frame(b"%d" % number) for number in range(len(symbols))]
    clock = random.Random(seed)
    for symbol, data in zip(symbols, frames, strict=True):
        faults.now += clock.random() * 0.2
        out += shaper.shape([symbol], [data])[1]
    faults.now += 10
    out += shaper.shape([], [])[1]
    assert set(out) == set(frames)
    assert not shaper.pending()


def test_a_corrupted_trade_is_never_another_trade(tmp_path: Path) -> None:
    """Thousands of corruptions: what still decodes is the trade that was sent."""
    payload = (
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,'
        b'"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}'
    )
    from k2.core.types import Frame

    speaks = venue("binance")
    (true,) = speaks.decode(Frame(1, "ws", "c1", "", payload))
    faults = Faults(3)
    faults.order(Order(fault="corrupt", exchange="binance"))
    shaper = Shaper("binance", faults, str)
    for _ in range(3000):
        _, (data,), _ = shaper.shape(["BTC-USDT"], [frame(payload)])
        for event in speaks.decode(Frame(1, "ws", "c1", "", payload_of(data))):
            assert not isinstance(event, Trade) or event == true


def test_aiohttp_is_told_of_a_closed_door(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            port = session.sim.ws_port
        async with aiohttp.ClientSession() as http:
            with pytest.raises(aiohttp.ClientError):
                await http.ws_connect(f"ws://127.0.0.1:{port}/kraken/v2")

    asyncio.run(run())


def test_every_fault_is_documented() -> None:
    page = Path(__file__).parents[2].joinpath("docs/SIMULATOR.md").read_text()
    assert [name for name in FAULTS if f"| `{name}` |" not in page] == []
