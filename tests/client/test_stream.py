"""The live stream of the client: history, live, and on again after every loss, each trade exactly once and in order."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import wraps
from itertools import islice
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from tests.web.serving import START, Served, trade

from k2.client import Client, InvalidQuestion, K2Error, TooSlow, Unavailable
from k2.client.api import Api
from k2.client.messages import Candle, Candles, Gap, Trades
from k2.client.messages import Trade as StreamTrade

KRAKEN = "kraken:BTC-USD"
TRADES = "market.crypto.trades.kraken"


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*fixtures: Any, **named: Any) -> None:
        asyncio.run(test(*fixtures, **named))

    return run


class Proxy:
    """Between client and server; `cut` ends every connection there is. `lives`: how many bytes of answers the first,
    second, ... connection gets before it ends, in mid-message."""

    def __init__(self, url: str, lives: Iterable[int] = ()) -> None:
        self._lives = iter(lives)
        host, _, port = url.removeprefix("http://").partition(":")
        self._target = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self.dialled = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(self._target)
                self.dialled += 1
                self._open |= {near, far}
                life = next(self._lives, 1 << 40)
                for source, sink, most in ((near, far, 1 << 40), (far, near, life)):
                    threading.Thread(target=self._copy, args=(source, sink, most), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, most: int) -> None:
        with suppress(OSError):
            while most and (data := source.recv(min(most, 65_536))):
                sink.sendall(data)
                most -= len(data)
            source.shutdown(socket.SHUT_RDWR)
            sink.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self._listening.close()
        self.cut()


@pytest.fixture
def proxy(served: Served) -> Iterator[Proxy]:
    between = Proxy(served.url)
    yield between
    between.close()


def ids(served: Served, exchange: str = "kraken") -> list[int]:
    return [t.trade_id for t in served.trades if t.exchange == exchange]


def more(served: Served, count: int) -> None:
    """So many further trades of kraken's BTC-USD."""
    last = max(ids(served))
    served.say([trade("kraken", "BTC-USD", last + n) for n in range(1, count + 1)])


def test_history_then_live(served: Served, api: Client) -> None:
    with api.stream("trades", KRAKEN, "earliest") as stream:
        rows = iter(stream.rows())
        count = len(ids(served))
        before = list(islice(rows, count))
        assert [row.trade_id for row in before if isinstance(row, StreamTrade)] == ids(served)
        more(served, 3)
        live = list(islice(rows, 3))
        assert [row.trade_id for row in live if isinstance(row, StreamTrade)] == ids(served)[-3:]
    first, said = before[0], next(t for t in served.trades if t.exchange == "kraken")
    assert isinstance(first, StreamTrade)
    assert (first.price, first.quantity) == (Decimal(said.price), Decimal(said.quantity))
    assert (first.exchange_ts, first.recv_ts, first.side) == (said.exchange_ts, said.recv_ts, said.side)


def test_messages_carry_positions_and_a_later_stream_goes_on_there(served: Served, api: Client) -> None:
    first = api.stream("trades", KRAKEN, "earliest")
    for message in first:
        assert isinstance(message, Trades)
        assert first.positions[TRADES] == message.next
        break
    first.close()
    with api.stream("trades", KRAKEN, first.positions) as second:
        more(served, 2)
        rows = [row.trade_id for row in islice(second.rows(), len(ids(served)) - len(message.trades))]
    assert [t.trade_id for t in message.trades] + rows == ids(served)


def test_breaking_off_in_the_midst_of_a_message_loses_and_repeats_nothing(served: Served, api: Client) -> None:
    found: list[Any] = []
    with api.stream("trades", KRAKEN, "earliest") as stream:
        for count in (1, 10, len(ids(served)) - 11):
            for row in stream.rows():
                found.append(row.trade_id)
                count -= 1  # noqa: PLW2901
                if not count:
                    break
            assert (TRADES in stream.positions and stream.positions[TRADES] > 0) is (len(found) == len(ids(served)))
        assert found == ids(served)
        more(served, 1)
        assert next(iter(stream)).trades[0].trade_id == found[-1] + 1


def test_a_lost_connection_loses_and_repeats_nothing(served: Served) -> None:
    lives = [6_000, 700, 5_000, 150_000, 300_000, 300_001, 270_000, 9_000]
    proxy = Proxy(served.url, lives)
    found: list[Any] = []
    with Client(Api(proxy.url)).stream("trades", "*", "earliest") as stream:
        rows = iter(stream.rows())
        found += islice(rows, len(served.trades))
        assert proxy.dialled > 3
        proxy.cut()
        more(served, 5)
        found += islice(rows, 5)
    proxy.close()
    for name in ("binance", "coinbase", "kraken"):
        assert [row.trade_id for row in found if row.exchange == name] == ids(served, name)


@in_a_loop
async def test_async_gives_the_same(served: Served, proxy: Proxy) -> None:
    found: list[int] = []
    async with Client(Api(proxy.url)).stream("trades", KRAKEN, datetime.fromtimestamp(START / 1e9 - 60, UTC)) as stream:
        async for row in stream.rows():
            found.append(row.trade_id)
            if len(found) == 100:
                proxy.cut()
            if len(found) == len(ids(served)):
                break
    assert found == ids(served)


def test_candles_and_gaps(served: Served, api: Client) -> None:
    with api.stream("gaps", "*", "earliest") as stream:
        gaps = list(islice(stream.rows(), 6))
    assert all(isinstance(gap, Gap) for gap in gaps)
    assert gaps[-1].missing == ((201, 205),)
    with api.stream("candles", KRAKEN, intervals=["1m", "1h"]) as stream:
        messages = iter(stream)
        threading.Timer(0.3, more, (served, 2)).start()
        message = next(messages)
    assert isinstance(message, Candles)
    candle = message.candles[0]
    assert isinstance(candle, Candle)
    assert candle.window_start.tzinfo is not None
    assert candle.high >= candle.low > 0
    assert candle.interval in ("1m", "1h")


def test_closing_from_elsewhere_ends_a_silent_stream(api: Client) -> None:
    stream = api.stream("trades", KRAKEN)
    threading.Timer(0.3, stream.close).start()
    assert list(stream) == []
    assert not [t for t in threading.enumerate() if t.name == "k2-stream" and not t.daemon]


def test_wrong_questions(served: Served, api: Client, direct: Client) -> None:
    with pytest.raises(InvalidQuestion, match="mtgox"):
        next(iter(api.stream("trades", "mtgox:BTC-USD")))
    with pytest.raises(InvalidQuestion, match="999999999"):
        next(iter(api.stream("trades", KRAKEN, {TRADES: 999_999_999})))
    with pytest.raises(K2Error, match="k2 web"):
        direct.stream()


@asynccontextmanager
async def scripted(*connections: list[dict[str, Any]]) -> AsyncIterator[tuple[str, list[Any]]]:
    """A server that says these messages on each connection in turn, then ends it; what it was asked."""
    asked: list[Any] = []
    left = iter(connections)

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        message = await socket.receive()
        assert message.type is WSMsgType.TEXT
        asked.append(message.json())
        for said in next(left, []):
            await socket.send_json(said)
        await socket.close(code=1008)
        return socket

    app = web.Application()
    app.router.add_get("/v1/stream", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    await runner.cleanup()


def records(first: int, count: int) -> dict[str, Any]:
    rows = [
        {
            "exchange": "kraken", "symbol": "BTC-USD", "native_symbol": "BTC/USD", "trade_id": n, "price": "1.5",
            "quantity": "1", "side": "buy", "exchange_ts": 1, "recv_ts": 2, "source": "live",
        }
        for n in range(first, first + count)
    ]  # fmt: skip
    return {"type": "trades", "id": 1, "stream": TRADES, "offset": first, "next": first + count, "trades": rows}


SUBSCRIBED = {"type": "subscribed", "id": 1, "schema": {}, "start": {TRADES: 5}, "positions": {TRADES: 9}}
SLOW = {"type": "slow", "id": 1, "positions": {TRADES: 99}}


@in_a_loop
async def test_a_slow_reader_resumes_where_it_is_and_not_where_the_server_was() -> None:
    async with scripted([SUBSCRIBED, records(5, 2), SLOW], [SUBSCRIBED, records(5, 2), records(7, 2)]) as (url, asked):
        stream = Client(Api(url)).stream("trades", KRAKEN, "earliest")
        found: list[int] = []
        async for row in stream.rows():
            found.append(row.trade_id)
            if len(found) == 4:
                break
    assert found == [5, 6, 7, 8]  # what came twice was given once
    assert asked[0]["start"] == "earliest"
    assert asked[1]["start"] == {TRADES: 7}


@in_a_loop
async def test_a_slow_reader_is_told_where_it_asked_for_that() -> None:
    async with scripted([SUBSCRIBED, records(5, 2), SLOW]) as (url, asked):
        stream = Client(Api(url)).stream("trades", KRAKEN, slow="disconnect")
        with pytest.raises(TooSlow) as raised:
            async for _ in stream:
                pass
    assert raised.value.extra["positions"] == {TRADES: 7}
    assert asked[0]["slow"] == "disconnect"


@in_a_loop
async def test_conflated_messages_say_what_they_left_out() -> None:
    async with scripted([SUBSCRIBED, {**records(5, 1), "skipped": 7, "skipped_symbols": {"BTC-USD": 7}}]) as (
        url,
        asked,
    ):
        async for message in Client(Api(url)).stream("trades", KRAKEN, slow="conflate"):
            assert isinstance(message, Trades)
            assert (message.skipped, len(message.trades)) == (7, 1)
            break
    assert asked[0]["slow"] == "conflate"


@in_a_loop
async def test_heartbeats_move_positions_over_what_was_not_wanted() -> None:
    beat = {"type": "heartbeat", "id": 1, "ts": 1, "positions": {TRADES: 50}}
    async with scripted([SUBSCRIBED, beat, {"type": "new kind of message"}]) as (url, _):
        stream = Client(Api(url)).stream("trades", KRAKEN)
        with pytest.raises(K2Error, match="not understood"):
            async for _ in stream:
                pass
    assert stream.positions == {TRADES: 50}


@in_a_loop
async def test_it_gives_up_in_the_end() -> None:
    async with scripted([SUBSCRIBED]) as (url, _):
        stream = Client(Api(url)).stream("trades", KRAKEN, patience=0.2)
        began = time.monotonic()
        with pytest.raises(Unavailable):
            async for _ in stream:
                pass
    assert time.monotonic() - began < 30
    with pytest.raises(Unavailable, match="k2 web"):
        next(iter(Client(Api(url)).stream()))


@in_a_loop
async def test_a_running_loop_is_no_obstacle_to_for(served: Served, api: Client) -> None:
    rows = await asyncio.to_thread(lambda: next(iter(api.stream("trades", KRAKEN, "earliest").rows())))
    assert rows == next(iter(api.stream("trades", KRAKEN, "earliest").rows()))  # as in a notebook's cell
