import asyncio
import json

import picows
import pytest
from tests.patience import PATIENCE_S

from k2.core.types import Frame, Trade
from k2.exchanges import venue
from k2.ops.bench.lab import Lab
from k2.ops.bench.player import envelope, frame


def test_its_frames_are_trades_to_the_decoder():
    (trade,) = venue("binance").decode(Frame(5, "ws", "c1", "", frame("BTCUSDT", 4_000_000_007, 1_767_225_600_123)))
    assert isinstance(trade, Trade)
    assert (trade.symbol, trade.trade_id, trade.exchange_ts) == ("BTC-USDT", 4_000_000_007, 1_767_225_600_123_000_000)


@pytest.mark.parametrize(("size", "head"), [(0, b"\x81\x00"), (125, b"\x81\x7d"), (126, b"\x81\x7e\x00\x7e")])
def test_envelopes_say_the_payloads_length(size, head):
    assert envelope(b"x" * size) == head + b"x" * size


class Client(picows.WSListener):
    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def on_ws_frame(self, transport, frame) -> None:
        self.frames.append(frame.get_payload_as_bytes())


async def receive(port: int, count: int) -> list[bytes]:
    client = Client()
    transport, _ = await picows.ws_connect(lambda: client, f"ws://127.0.0.1:{port}/stream")
    subscription = {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "ethusdt@trade"], "id": 3}
    transport.send(picows.WSMsgType.TEXT, json.dumps(subscription).encode())
    async with asyncio.timeout(PATIENCE_S):
        while len(client.frames) < count:
            await asyncio.sleep(0.01)
    transport.disconnect()
    await transport.wait_disconnected()
    return client.frames


def test_plays_every_frame_once_and_goes_on_where_it_ended(tmp_path):
    from k2.config import Config

    with Lab(Config(), lambda line: None, tmp_path) as lab:
        player = lab.partner("k2.ops.bench.player")
        port = player.hear(20)["port"]
        player.tell({"symbols": 2})
        player.tell({"frames": 30, "rate": 3000, "tick_ms": 1})
        player.tell({"frames": 31, "rate": 3000, "tick_ms": 5})
        answer, *frames = asyncio.run(receive(port, 62))
        assert player.hear(5) == {"symbols": 2}
        assert [player.hear(5)["frames"], player.hear(5)["frames"]] == [30, 31]
    assert json.loads(answer) == {"result": None, "id": 3}
    ids: dict[str, list[int]] = {}
    for data in (json.loads(text)["data"] for text in frames):
        ids.setdefault(data["s"], []).append(data["t"])
    assert {symbol: len(found) for symbol, found in ids.items()} == {"BTCUSDT": 31, "ETHUSDT": 30}
    assert all(found == list(range(found[0], found[0] + len(found))) for found in ids.values())
