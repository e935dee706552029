"""Captures: the format, and how they are played."""

import asyncio
import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from sim_client import running

from k2.sim.capture import CaptureError, Header, Recorded, captures, load, recorded, symbols, write


def binance_trade(symbol: str, number: int, ms: int = 1_723_161_255_342) -> str:
    data = (
        f'{{"e":"trade","E":{ms + 1},"s":"{symbol}","t":{number},"p":"61837.63000000","q":"0.02000000",'
        f'"T":{ms},"m":true,"M":true}}'
    )
    return f'{{"stream":"{symbol.lower()}@trade","data":{data}}}'


BOOK = '{"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT","b":"1.0","B":"2","a":"3","A":"4"}}'
START = 1_723_161_254_000_000_000
FRAMES = [
    binance_trade("BTCUSDT", 10),
    BOOK,
    '{"result":null,"id":1}',
    binance_trade("BTCUSDT", 11),
    binance_trade("ETHUSDT", 5),
    binance_trade("BTCUSDT", 11),
    binance_trade("BTCUSDT", 14),
    binance_trade("BTCUSDT", 12),
]


def capture(folder: Path, frames: list[str] = FRAMES, **header: Any) -> Path:
    folder.mkdir(exist_ok=True)
    every = [recorded(START + n * 20_000_000, text.encode()) for n, text in enumerate(frames)]
    write(folder / "one.jsonl.gz", Header(1, "binance", **header), every)
    return folder


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    frames = [recorded(1, b'{"a":"\xc3\xa9"}'), recorded(2, b"\xff\x00"), recorded(3, b"{}", "rest", "200 /x?y=1")]
    write(tmp_path / name, Header(1, "kraken", note="n"), frames)
    (opened,) = captures(tmp_path)
    assert opened.header.exchange == "kraken"
    assert list(opened.frames()) == frames
    assert [one.payload for one in frames] == [b'{"a":"\xc3\xa9"}', b"\xff\x00", b"{}"]


def test_the_format_is_the_documented_one(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl.gz", Header(1, "binance"), [Recorded(7, "ws", data="{}"), recorded(8, b"\xff")])
    lines = gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()).decode().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"k2_capture": 1, "exchange": "binance"},
        {"recv_ts": 7, "kind": "ws", "data": "{}"},
        {"recv_ts": 8, "kind": "ws", "base64": base64.b64encode(b"\xff").decode()},
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "is no capture"),
        ("nonsense\n", "is no capture"),
        ('{"k2_capture":2,"exchange":"binance"}\n', "version 2"),
        ('{"k2_capture":1,"exchange":"nasdaq"}\n', "nasdaq"),
    ],
)
def test_what_is_no_capture_is_named(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(CaptureError, match=named) as caught:
        captures(tmp_path)
    assert "x.jsonl" in str(caught.value)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"k2_capture":1,"exchange":"binance"}\n{"recv_ts":1,"kind":"ws","data":"{}"}\n{"recv\n')
    with pytest.raises(CaptureError, match="line 3"):
        list(load(file).frames())


def test_an_empty_folder_says_what_it_should_hold(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"NAME\.jsonl"):
        captures(tmp_path)


def test_symbols_are_those_traded(tmp_path: Path) -> None:
    assert symbols(capture(tmp_path)) == {"binance": ("BTC-USDT", "ETH-USDT")}
    assert symbols(capture(tmp_path, symbols=["BTCUSDT"])) == {"binance": ("BTC-USDT",)}


@pytest.mark.parametrize("all_channels", [False, True])
def test_frames_are_played_verbatim(all_channels: bool, tmp_path: Path) -> None:
    folder = capture(tmp_path / "captures")
    expected = [text for text in FRAMES if "result" not in text and (all_channels or text != BOOK)]

    async def run() -> None:
        options = {"captures": folder, "speed": 0.0, "all_channels": all_channels}
        async with running(tmp_path / "data", **options) as session, session.socket("binance") as socket:
            await socket.subscribe(["BTC-USDT"])
            await asyncio.sleep(0.1)
            assert not socket.trades
            assert not session.sim.drained
            await socket.subscribe(["ETH-USDT"])
            await socket.read(lambda s: len(s.raw) >= 2 + len(expected))
            assert [raw.decode() for raw in socket.raw if b'"result"' not in raw] == expected
            await session.until(lambda: session.sim.drained)
            status = await session.control("status", method="GET")
            assert status["drained"]
            _, body, _ = await session.get("/binance/api/v3/historicalTrades?symbol=BTCUSDT&fromId=1")
            assert [row["id"] for row in json.loads(body)] == [10, 11, 12, 14]
            assert json.loads(body)[0]["price"] == "61837.63000000"
            assert [trade.trade_id for trade in session.true("binance")] == [10, 11, 12, 14, 5]

    asyncio.run(run())


def test_rest_knows_only_what_was_played(tmp_path: Path) -> None:
    folder = capture(tmp_path / "captures")

    async def run() -> None:
        async with running(tmp_path / "data", captures=folder) as session:
            _, body, _ = await session.get("/binance/api/v3/historicalTrades?symbol=BTCUSDT&fromId=1")
            assert body == b"[]"

    asyncio.run(run())


def test_the_recorded_pace(tmp_path: Path) -> None:
    folder = capture(tmp_path / "captures", [binance_trade("BTCUSDT", 1), *[BOOK] * 20, binance_trade("BTCUSDT", 2)])

    async def run() -> None:
        options = {"captures": folder, "speed": 2.0}
        async with running(tmp_path / "data", **options) as session, session.socket("binance") as socket:
            began = asyncio.get_running_loop().time()
            await socket.subscribe(["BTC-USDT"])
            await socket.read(lambda s: len(s.trades) == 2)
            assert asyncio.get_running_loop().time() - began > 0.15  # recorded over 0.42 s

    asyncio.run(run())


def test_faults_strike_captures_too(tmp_path: Path) -> None:
    folder = capture(tmp_path / "captures", [binance_trade("BTCUSDT", n) for n in range(1, 31)])

    async def run() -> None:
        async with running(tmp_path / "data", captures=folder, speed=0.0) as session:
            await session.fault("drop", "binance", count=7)
            async with session.socket("binance") as socket:
                await socket.subscribe(["BTC-USDT"])
                await socket.read(lambda s: len(s.trades) >= 23)
                assert socket.ids("BTC-USDT") == list(range(8, 31))
                assert len(session.true("binance")) == 30

    asyncio.run(run())
