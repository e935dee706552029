"""Each venue's WebSocket, as K2's own venue modules understand it."""

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest
import trustme
from sim_client import SYMBOLS, Session, heard, running, told

from k2.config import EXCHANGES
from k2.core.types import Confirmed, Fault, Heartbeat, Refused, Trade


@pytest.mark.parametrize("name", EXCHANGES)
def test_what_is_heard_is_the_truth(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, rate=2000, count=1500, paused=True) as session, session.socket(name) as socket:
            await socket.subscribe()
            await socket.read(lambda s: bool(s.of(Confirmed)))
            await session.control("resume")
            while not session.sim.drained:
                await asyncio.sleep(0.02)
            true = session.true(name)
            await socket.read(lambda s: len(s.trades) >= len(true))
            assert not socket.of(Fault)
            assert sorted(map(heard, socket.trades)) == sorted(map(told, true))
            assert session.sim.made == 1500
            assert {trade.symbol for trade in socket.trades} == set(SYMBOLS[name])

    asyncio.run(run())


@pytest.mark.parametrize("name", EXCHANGES)
def test_one_symbol_alone(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session, session.socket(name) as socket:
            wanted, other = SYMBOLS[name]
            await socket.subscribe([wanted])
            await socket.read(lambda s: bool(s.of(Confirmed)))
            await session.emit(name, 3, other)
            ids = await session.emit(name, 3, wanted)
            await socket.read(lambda s: len(s.trades) >= 3)
            assert socket.ids(wanted) == ids
            assert socket.ids(other) == []

    asyncio.run(run())


@pytest.mark.parametrize("name", EXCHANGES)
def test_unsubscribing_ends_the_trades(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session, session.socket(name) as socket:
            gone, kept = SYMBOLS[name]
            await socket.subscribe()
            await socket.read(lambda s: bool(s.of(Confirmed)))
            for message in socket.venue.unsubscribe([socket.venue.native(gone)], 50):
                await socket.ws.send_str(message.decode())
            answers = len(socket.of(Confirmed))
            await socket.read(lambda s: len(s.of(Confirmed)) > answers)
            await session.emit(name, 3, gone)
            ids = await session.emit(name, 2, kept)
            await socket.read(lambda s: len(s.trades) >= 2)
            assert (socket.ids(gone), socket.ids(kept)) == ([], ids)

    asyncio.run(run())


def test_coinbase_says_last_match_and_beats(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            ids = await session.emit("coinbase", 5)
            async with session.socket("coinbase") as socket:
                await socket.subscribe()
                await socket.read(lambda s: len(s.of(Heartbeat)) >= 2)
                assert b'"type":"last_match"' in socket.raw[0]
                assert socket.ids() == [ids[-1]]
                beats = {beat.native_symbol: beat.last_trade_id for beat in socket.of(Heartbeat)}
                assert beats["BTC-USD"] == ids[-1]

    asyncio.run(run())


def test_kraken_says_status_snapshot_and_beats_when_quiet(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            ids = await session.emit("kraken", 70)
            async with session.socket("kraken") as socket:
                await socket.subscribe()
                await socket.read(lambda s: bool(s.trades))
                assert b'"channel":"status"' in socket.raw[0]
                assert socket.ids() == ids[-50:]
                await socket.read(lambda s: bool(s.of(Heartbeat)))

    asyncio.run(run())


def test_kraken_sends_the_trades_of_an_order_in_one_frame(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session, session.socket("kraken") as socket:
            await socket.subscribe()
            await socket.read(lambda s: len(s.of(Confirmed)) == 2)
            await session.emit("kraken", 7)
            await socket.read(lambda s: bool(s.trades))
            assert len(socket.trades) == 7
            assert len({trade.exchange_ts for trade in socket.trades}) == 1

    asyncio.run(run())


def test_unknown_symbols_are_refused_each_in_the_venues_own_way(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            async with session.socket("kraken") as socket:
                await socket.subscribe(["NOT-USD", "BTC-USD"])
                await socket.read(lambda s: bool(s.of(Refused)) and bool(s.of(Confirmed)))
                assert socket.of(Refused)[0].native_symbol == "NOT/USD"
            async with session.socket("coinbase") as socket:
                await socket.subscribe(["NOT-USD", "BTC-USD"])
                await socket.read(lambda s: bool(s.of(Refused)))
                assert "NOT-USD" in socket.of(Refused)[0].reason
            async with session.socket("binance") as socket:
                await socket.subscribe(["NOT-USDT", "BTC-USDT"])
                await socket.read(lambda s: bool(s.of(Confirmed)))
                assert not socket.of(Refused)  # an unknown stream is accepted there, and silent

    asyncio.run(run())


def test_binance_closes_on_the_sixth_message_of_a_second(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session, session.socket("binance") as socket:
            for number in range(12):  # in two seconds' windows at most
                await socket.ws.send_str(f'{{"method":"LIST_SUBSCRIPTIONS","id":{number}}}')
            with pytest.raises(ConnectionError):
                await socket.read(lambda s: False)

    asyncio.run(run())


def test_connections_end_at_their_age(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, max_age=0.2) as session, session.socket("kraken") as socket:
            with pytest.raises(ConnectionError):
                await socket.read(lambda s: False)

    asyncio.run(run())


@pytest.mark.parametrize("name", EXCHANGES)
@pytest.mark.parametrize(
    "junk", ["", "{", "[]", "null", '"x"', '{"method":1}', '{"type":[]}', "\x00", '{"method":"subscribe"}']
)
def test_a_client_may_say_anything(name: str, junk: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session, session.socket(name) as socket:
            await socket.ws.send_str(junk)
            await socket.subscribe()
            await socket.read(lambda s: bool(s.of(Confirmed)))
            ids = await session.emit(name, 1)
            await socket.read(lambda s: bool(s.trades))
            assert socket.ids() == ids

    asyncio.run(run())


def test_unknown_paths_are_not_found(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await session.http.ws_connect(f"ws://127.0.0.1:{session.sim.ws_port}/nowhere")
            assert caught.value.status == 404

    asyncio.run(run())


def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)

    async def run() -> None:
        import ssl

        trust = ssl.create_default_context()
        authority.configure_trust(trust)
        async with running(tmp_path / "data", paused=True, cert=cert, key=key) as session:
            await session_over_tls(session, trust)

    asyncio.run(run())


async def session_over_tls(session: Session, trust: object) -> None:
    url = f"https://127.0.0.1:{session.sim.rest_port}/binance/api/v3/time"
    async with session.http.get(url, ssl=trust) as answer:
        assert abs((await answer.json())["serverTime"] / 1000 - time.time()) < 60
    async with session.socket("binance", "wss", ssl=trust) as socket:
        await socket.subscribe()
        await socket.read(lambda s: bool(s.of(Confirmed)))
        for instrument in session.sim.markets["binance"].instruments[:1]:
            ids = session.sim.emit("binance", instrument.symbol, 3, "sell")
        await socket.read(lambda s: len(s.of(Trade)) >= 3)
        assert socket.ids() == ids
