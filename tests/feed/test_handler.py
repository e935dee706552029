"""A whole handler against a venue on loopback: what ends in the log, whatever the venue does."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from feed_kit import Peer, VenueServer, eventually, gaps, page_payload, records, trade_payload, trades
from tests.patience import PATIENCE_S

from k2.config import Config, ExchangeConfig, ExchangesConfig, FeedConfig
from k2.core.codec import decode_frame
from k2.exchanges import venue
from k2.feed import line as line_module
from k2.feed.handler import Handler
from k2.log.memory import MemoryLog

TWO = 'binance = ["BTC-USDT", "ETH-USDT"]\n'


class Scene:
    """A venue's two servers, a log in memory, and a handler between them."""

    def __init__(self, tmp_path: Path, **feed: float) -> None:
        self.file = tmp_path / "instruments.toml"
        self.file.write_text(TWO)
        self.feed = FeedConfig(**{"backoff_first": 0.01, "heal_delay": 0.05, **feed})  # type: ignore[arg-type]
        self.log = MemoryLog()
        self.server = VenueServer()
        self.stop = asyncio.Event()
        self.pages: list[str] = []

    @property
    def config(self) -> Config:
        exchange = ExchangeConfig(ws_url=self.server.url, rest_url=f"http://127.0.0.1:{self.rest_port}")
        return Config(instruments=str(self.file), exchanges=ExchangesConfig(binance=exchange), feed=self.feed)

    async def _history(self, request: web.Request) -> web.Response:
        self.pages.append(request.path_qs)
        first, limit = int(request.query["fromId"]), int(request.query["limit"])
        body = page_payload(list(range(first, min(first + limit, 30))))
        return web.Response(body=body, content_type="application/json")

    async def __aenter__(self) -> "Scene":
        await self.server.start()
        app = web.Application()
        app.router.add_get("/api/v3/historicalTrades", self._history)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.rest_port = self._runner.addresses[0][1]
        self.start()
        return self

    def start(self) -> None:
        self.stop = asyncio.Event()
        self.handler = Handler(self.config, venue("binance"), self.log)
        self.task = asyncio.ensure_future(self.handler.run(self.stop))

    async def end(self) -> None:
        self.stop.set()
        await self.task

    async def __aexit__(self, *error: object) -> None:
        if not self.task.done():
            await self.end()
        await self.server.stop()
        await self._runner.cleanup()

    async def peer(self, number: int = 1) -> Peer:
        """The venue's end of the `number`th connection, once it has asked for its symbols."""
        await eventually(lambda: len(self.server.peers) >= number and self.server.peers[number - 1].received)
        return self.server.peers[number - 1]

    def ids(self) -> list[int]:
        return [trade.trade_id for trade in trades(self.log) if trade.symbol == "BTC-USDT"]


def play(tmp_path: Path, act: Callable[[Scene], Awaitable[None]], **feed: float) -> None:
    async def scene() -> None:
        async with asyncio.timeout(PATIENCE_S), Scene(tmp_path, **feed) as set_up:
            await act(set_up)

    asyncio.run(scene())


def test_trades_reach_the_log_and_a_hole_is_healed_over_rest(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        peer = await scene.peer()
        assert json.loads(peer.received[0])["params"] == ["btcusdt@trade", "ethusdt@trade"]
        for number in (10, 11, 15):
            peer.send(trade_payload(number))
        await eventually(lambda: sorted(scene.ids())[:6] == list(range(10, 16)))
        await scene.end()
        states = [gap.state for gap in gaps(scene.log)]
        assert states == ["start", "open", "healed"]
        frames = [decode_frame(value) for value in records(scene.log, "market.crypto.trades.binance.raw")]
        assert {frame.kind for frame in frames if frame.kind != "ws"} == {"sent", "rest"}
        assert any(
            frame.request.startswith("200 /api/v3/historicalTrades?symbol=BTCUSDT&fromId=12") for frame in frames
        )

    play(tmp_path, act)


def test_after_a_stop_the_next_run_heals_what_was_missed(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        (await scene.peer()).send(trade_payload(10))
        await eventually(scene.ids)
        began = time.monotonic()
        await scene.end()
        assert time.monotonic() - began < 2
        scene.start()
        (await scene.peer(2)).send(trade_payload(20))
        await eventually(lambda: set(scene.ids()) >= set(range(10, 21)))
        await scene.end()
        assert len(scene.ids()) == len(set(scene.ids()))

    play(tmp_path, act)


def test_a_closed_connection_is_dialled_again_and_the_hole_healed(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        peer = await scene.peer()
        peer.send(trade_payload(10))
        await eventually(scene.ids)
        peer.transport.disconnect(graceful=False)
        (await scene.peer(2)).send(trade_payload(14))
        await eventually(lambda: set(scene.ids()) >= set(range(10, 15)))

    play(tmp_path, act)


def test_a_planned_reconnect_subscribes_the_new_connection_before_the_old_one_closes(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        first = await scene.peer()
        second = await scene.peer(2)
        assert not first.transport.is_disconnected
        first.send(trade_payload(10))
        second.send(trade_payload(10))
        second.send(trade_payload(11))
        await first.gone
        await eventually(lambda: scene.ids() == [10, 11])
        assert not second.transport.is_disconnected

    play(tmp_path, act, reconnect_after=0.5)


def test_a_silent_connection_is_replaced(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        scene.server.answers = lambda peer, message: []
        first = await scene.peer()
        await first.gone
        await scene.peer(2)

    play(tmp_path, act, silence=0.4)


def test_a_changed_instruments_file_is_followed_on_the_open_connection(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        peer = await scene.peer()
        scene.file.write_text('binance = ["BTC-USDT", "SOL-USDT"]\n')
        await eventually(lambda: len(peer.received) == 3)
        changes = [(m["method"], m["params"]) for m in map(json.loads, peer.received[1:])]
        assert changes == [("UNSUBSCRIBE", ["ethusdt@trade"]), ("SUBSCRIBE", ["solusdt@trade"])]
        assert len(scene.server.peers) == 1

    play(tmp_path, act)


def test_a_broken_instruments_file_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def act(scene: Scene) -> None:
        peer = await scene.peer()
        scene.file.write_text("binance = [")
        await eventually(lambda: "instruments file cannot be read" in caplog.text)
        peer.send(trade_payload(10))
        await eventually(scene.ids)
        assert len(peer.received) == 1

    play(tmp_path, act)


def test_a_refused_symbol_is_an_error_that_names_it_while_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse_ether(peer: Peer, message: bytes) -> list[bytes]:
        request = json.loads(message)
        bad = any(stream.startswith("eth") for stream in request["params"])
        verdict = {"code": 2, "msg": "Invalid request"} if bad else {"result": None}
        return [json.dumps({**verdict, "id": request["id"]}).encode()]

    async def act(scene: Scene) -> None:
        scene.server.answers = refuse_ether
        peer = await scene.peer()
        await eventually(lambda: any(record.levelno == logging.ERROR for record in caplog.records))
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert "ETHUSDT" in record.getMessage()
        peer.send(trade_payload(10))
        await eventually(scene.ids)

    play(tmp_path, act)


def test_an_unreachable_venue_is_told_once_and_dialled_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_module, "SAY_EVERY", 1000.0)

    async def act(scene: Scene) -> None:
        peer = await scene.peer()
        await scene.server.stop()
        peer.transport.disconnect(graceful=False)
        await eventually(lambda: scene.handler.line._dials > 4)
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1

    play(tmp_path, act, backoff_cap=0.05)


def test_an_error_inside_ends_the_handler_instead_of_leaving_it_standing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(scene: Scene) -> None:
        peer = await scene.peer()

        def broken(frames: object) -> None:
            raise ZeroDivisionError("a defect")

        monkeypatch.setattr(scene.handler.recorder.decoder, "run", broken)
        peer.send(trade_payload(10))
        with pytest.raises(ZeroDivisionError):
            await scene.task

    play(tmp_path, act)
