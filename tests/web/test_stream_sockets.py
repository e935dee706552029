"""The stream over real sockets, from a real log and a real store: WebSocket and server-sent events."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.patience import PATIENCE_S
from tests.web.serving import MARKETS, MISSING, Served
from tests.web.stream_client import append, positions, trade, until

from k2.core.codec import GAPS_STREAM, encode_gap, encode_trade, trades_stream
from k2.core.types import Gap
from k2.log import Entry

COINBASE = trades_stream("coinbase")


class Socket:
    """A WebSocket client that keeps what it hears."""

    def __init__(self, socket_: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket_
        self.messages: list[dict[str, Any]] = []

    async def say(self, **said: Any) -> None:
        await self.socket.send_str(json.dumps(said))

    async def hear(self, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Messages until one is as wanted."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                frame = await self.socket.receive()
                assert frame.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), frame
                decode = json.loads if frame.type is aiohttp.WSMsgType.TEXT else msgspec.msgpack.decode
                self.messages.append(decode(frame.data))
                if done(self.messages[-1]):
                    return self.messages[-1]

    async def ended(self) -> tuple[int | None, str]:
        """Hear until the server closes; with which code and words."""
        async with asyncio.timeout(PATIENCE_S):
            while (frame := await self.socket.receive()).type is aiohttp.WSMsgType.TEXT:
                self.messages.append(json.loads(frame.data))
        return self.socket.close_code, str(frame.extra)

    def trades(self, stream: str | None = None) -> list[dict[str, Any]]:
        found = [m for m in self.messages if m["type"] == "trades" and stream in (None, m["stream"])]
        return [one for message in found for one in message["trades"]]


@asynccontextmanager
async def opened(url: str, query: str = "") -> AsyncIterator[Socket]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/v1/stream{query}", max_msg_size=0) as socket_,
    ):
        yield Socket(socket_)


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def kind(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda message: bool(message["type"] == name)


def wire(served: Served, exchange: str, symbol: str) -> list[dict[str, Any]]:
    mine = [one for one in served.trades if one.exchange == exchange and one.symbol == symbol]
    return [json.loads(encode_trade(one)) for one in mine]


def test_history_then_live_as_they_stand_in_the_log(served: Served) -> None:
    async def scenario() -> None:
        async with opened(served.url, "?channels=trades&symbols=coinbase:BTC-USD,coinbase:NEW-USD&start=earliest") as s:
            accepted = await s.hear(kind("subscribed"))
            assert accepted["start"] == {COINBASE: 0}
            assert accepted["positions"] == {COINBASE: served.web.log.bounds(COINBASE)[1]}
            assert [column["name"] for column in accepted["schema"]["trades"]][:4] == [
                "exchange", "symbol", "native_symbol", "trade_id",
            ]  # fmt: skip
            new = [trade("coinbase", "NEW-USD", number) for number in range(1, 8)]
            append(served.web.log, "coinbase", new)
            served.trades.extend(new)
            await s.hear(lambda m: m.get("next", 0) >= accepted["positions"][COINBASE] + 7)
            assert s.trades() == wire(served, "coinbase", "BTC-USD") + wire(served, "coinbase", "NEW-USD")
            live_from = accepted["positions"][COINBASE]
            assert [m["live"] for m in s.messages[1:]] == [m["offset"] >= live_from for m in s.messages[1:]]
            assert (s.messages[1]["live"], s.messages[-1]["live"]) == (False, True)

    play(scenario())


def test_several_subscriptions_come_and_go_on_one_connection(served: Served) -> None:
    async def scenario() -> None:
        async with opened(served.url) as s:
            await s.say(op="subscribe", symbols=["binance:ETH-USDT"], start="earliest", id="eth")
            await s.say(op="subscribe", symbols=["binance:BTC-USDT"], start={trades_stream("binance"): 1990}, id=7)
            await s.say(op="subscribe", symbols=["BTC-USD"], id="eth")
            refused = await s.hear(kind("error"))
            assert (refused["status"], refused["id"]) == (409, "eth")
            await s.say(op="ping", id="p")
            assert (await s.hear(kind("pong")))["id"] == "p"
            while len(s.trades()) < 1010:
                await s.hear(kind("trades"))
            by_id = {
                ident: [t for m in s.messages if m["type"] == "trades" and m["id"] == ident for t in m["trades"]]
                for ident in ("eth", 7)
            }
            assert by_id["eth"] == wire(served, "binance", "ETH-USDT")
            assert [one["trade_id"] for one in by_id[7]] == list(range(1991, 2001))
            await s.say(op="unsubscribe", id=7)
            gone = await s.hear(kind("unsubscribed"))
            assert gone["positions"] == {trades_stream("binance"): served.web.log.bounds(trades_stream("binance"))[1]}
            await s.say(op="unsubscribe", id=7)
            assert (await s.hear(kind("error")))["status"] == 404

    play(scenario())


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("no json", "JSON"),
        ('{"op": "subscribe", "symbol": ["*"]}', "symbol"),
        ('{"op": "subscribe", "symbols": ["nasdaq:BTC-USDT"]}', "names no exchange"),
        ('{"op": "subscribe", "symbols": ["b!"]}', "no symbol"),
        ('{"op": "subscribe", "symbols": ["*"], "start": "yesterday"}', "no time"),
        ('{"op": "subscribe", "symbols": ["*"], "start": {"market.crypto.trades.ftx": 1}}', "no stream"),
        ('{"op": "subscribe", "symbols": ["*"], "start": {"market.crypto.trades.kraken": 99999999}}', "ends at offset"),
        ('{"op": "subscribe", "symbols": ["*"], "start": {"market.crypto.trades.kraken": -1}}', "begins at offset"),
        ('{"op": "buy"}', "buy"),
    ],
)
def test_what_is_wrong_is_told_and_the_connection_stays(served: Served, said: str, told: str) -> None:
    async def scenario() -> None:
        async with opened(served.url) as s:
            await s.socket.send_str(said)
            error = await s.hear(kind("error"))
            assert error["status"] in (400, 409, 410)
            assert told in error["detail"]
            await s.say(op="ping")
            await s.hear(kind("pong"))

    play(scenario())


def test_message_pack_has_the_same_members(served: Served) -> None:
    async def scenario() -> None:
        async with opened(served.url, "?encoding=msgpack") as s:
            await s.socket.send_bytes(
                msgspec.msgpack.encode({"op": "subscribe", "symbols": ["coinbase:BTC-USD"], "start": "earliest"})
            )
            while len(s.trades()) < 500:
                await s.hear(kind("trades"))
            assert s.trades() == wire(served, "coinbase", "BTC-USD")

    play(scenario())


def test_heartbeats_tell_positions_also_where_nothing_matches(served: Served) -> None:
    web = served.another(heartbeat_s=0.2)

    async def scenario() -> None:
        async with opened(web.url, "?symbols=coinbase:NONE-USD") as s:
            await s.hear(kind("subscribed"))
            new = [trade("coinbase", "BEAT-USD", 1)]
            append(served.web.log, "coinbase", new)
            served.trades.extend(new)
            end = served.web.log.bounds(COINBASE)[1]
            beat = await s.hear(lambda m: m["type"] == "heartbeat" and m["positions"] == {COINBASE: end})
            assert abs(beat["ts"] - time.time_ns()) < 60e9

    play(scenario())


def test_gaps(served: Served) -> None:
    async def scenario() -> None:
        async with opened(served.url, "?channels=gaps&symbols=kraken:BTC-USD&start=earliest") as s:
            gaps: list[dict[str, Any]] = []
            while len(gaps) < 3:
                gaps += (await s.hear(kind("gaps")))["gaps"]
            assert [gap["state"] for gap in gaps[:3]] == ["start", "open", "unavailable"]
            assert (gaps[2]["first_id"], gaps[2]["last_id"]) == MISSING[2:]
            gap = Gap("kraken", "BTC-USD", 1, 1, "start", "again", 1, 1)
            served.web.log.append([Entry(GAPS_STREAM, ["BTC-USD"], [encode_gap(gap)])])
            assert (await s.hear(kind("gaps")))["gaps"] == [json.loads(encode_gap(gap))]

    play(scenario())


def test_server_sent_events_resume_by_their_ids(served: Served) -> None:
    async def scenario() -> None:
        url = f"{served.url}/v1/stream?symbols=kraken:BTC-USD,coinbase:BTC-USD&start=earliest"
        wanted = wire(served, "coinbase", "BTC-USD") + wire(served, "kraken", "BTC-USD")
        first, ident = await _events(url, {}, lambda events: len(events) > 2)
        assert first[0]["type"] == "subscribed"
        again, _ = await _events(url, {"Last-Event-ID": ident}, lambda events: len(_trades(first + events)) >= 995)
        got = _trades(first) + _trades(again)
        assert sorted(got, key=_identity) == sorted(wanted, key=_identity)
        assert positions(again) == json.loads(ident) | positions(again)

    play(scenario())


def _trades(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for message in messages if message["type"] == "trades" for one in message["trades"]]


def _identity(one: dict[str, Any]) -> tuple[str, int]:
    return one["exchange"], one["trade_id"]


async def _events(
    url: str, headers: dict[str, str], done: Callable[[list[dict[str, Any]]], bool]
) -> tuple[list[dict[str, Any]], str]:
    """Events until there are enough, and the last one's id."""
    events: list[dict[str, Any]] = []
    ident = ""
    async with (
        asyncio.timeout(PATIENCE_S),
        aiohttp.ClientSession(read_bufsize=1 << 22) as session,
        session.get(url, headers={"Accept": "text/event-stream", **headers}) as answer,
    ):
        assert answer.content_type == "text/event-stream"
        async for line in answer.content:
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "id":
                ident = value
            elif field == "data":
                events.append(json.loads(value))
                if done(events):
                    return events, ident
    raise AssertionError("the stream ended")


def test_a_plain_request_is_told_how_to_connect(served: Served) -> None:
    reply = served.get("/v1/stream")
    assert (reply.status, reply.json()["remedy"]) == (
        426,
        "connect with a WebSocket client, or send Accept: text/event-stream",
    )
    assert served.get("/v1/stream?start=whenever", {"Accept": "text/event-stream"}).body.count(b"no time") == 1
    assert served.get("/v1/stream", {"Accept": "text/event-stream", "Last-Event-ID": "x"}).status == 400


def test_no_more_streams_than_are_allowed(served: Served) -> None:
    web = served.another(subscribers=1)

    async def scenario() -> None:
        async with opened(web.url):
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                async with opened(web.url):
                    pass
            assert caught.value.status == 503
        for _ in range(500):  # the place is free again
            try:
                async with opened(web.url) as s:
                    await s.say(op="ping")
                    await s.hear(kind("pong"))
                    return
            except aiohttp.WSServerHandshakeError:
                await asyncio.sleep(0.01)
        raise AssertionError("the place was never free again")

    play(scenario())


def _stuck(url: str, query: str) -> socket.socket:
    """A WebSocket client that shakes hands and reads nothing more."""
    host, _, port = url.removeprefix("http://").partition(":")
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    found.connect((host, int(port)))
    found.sendall(
        f"GET /v1/stream{query} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    found.settimeout(PATIENCE_S)
    assert found.recv(12) == b"HTTP/1.1 101"
    return found


def test_who_does_not_read_holds_up_nobody(served: Served) -> None:
    web = served.another(stream_buffer_kb=64)
    stuck = [_stuck(web.url, "?symbols=*&start=now") for _ in range(3)]

    async def scenario() -> None:
        async with opened(web.url, "?symbols=coinbase:MANY-USD") as s:
            await s.hear(kind("subscribed"))
            new = [trade("coinbase", "MANY-USD", number) for number in range(1, 20_001)]
            for at in range(0, len(new), 500):
                append(served.web.log, "coinbase", new[at : at + 500])
            served.trades.extend(new)
            while len(s.trades()) < len(new):
                await s.hear(kind("trades"))
            assert [one["trade_id"] for one in s.trades()] == list(range(1, 20_001))

    try:
        play(scenario())
    finally:
        for one in stuck:
            one.close()


def test_the_server_says_goodbye_when_it_stops(served: Served) -> None:
    web = served.another()

    async def scenario() -> None:
        async with opened(web.url) as s:
            await s.say(op="ping")
            await s.hear(kind("pong"))
            closing = asyncio.create_task(asyncio.to_thread(web.close))
            assert (await s.ended())[0] == 1001
            await closing

    play(scenario())


def test_the_log_holds_nothing_from_other_symbols(served: Served) -> None:
    """Subscribing to what nobody trades costs no message but heartbeats."""

    async def scenario() -> None:
        async with opened(served.url, "?symbols=NOBODY-USD&start=earliest") as s:
            await s.hear(kind("subscribed"))
            await s.say(op="unsubscribe", id=1)
            left = await s.hear(kind("unsubscribed"))
            await until(lambda: True)
            assert set(left["positions"]) == {trades_stream(name) for name in MARKETS}
            assert not s.trades()

    play(scenario())
