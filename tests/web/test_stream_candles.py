"""The channel `candles`: what subscribers are told equals what the store shows, late trades and all; replays."""

import asyncio
import json
import random
import time
from collections.abc import Coroutine
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.patience import PATIENCE_S
from tests.web.serving import START, Served
from tests.web.stream_client import trade
from tests.web.test_stream_sockets import Socket, kind, opened

from k2.ask import merge
from k2.ask.merge import Minute
from k2.core.candle import INTERVALS, SCALE, CandleBuilder
from k2.core.codec import encode_trade
from k2.core.types import Trade
from k2.web.stream import windows

DAY = 86_400 * 10**9
TIMES = [START + 10 * DAY + minute * 60 * 10**9 for minute in (0, 1, 2, 4, 5, 7, 31, 59, 60, 61, 62, 200)]
NUMBERS = ("trade_count", "first_trade_id", "last_trade_id")
AMOUNTS = ("open", "high", "low", "close", "volume", "quote_volume", "buy_volume", "vwap")


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def _trades(symbol: str, seed: int) -> list[Trade]:
    draw = random.Random(seed)
    found = []
    for number, base in enumerate(sorted(TIMES * 5), 1):
        price, quantity = f"{draw.randrange(1, 10**9)}.{draw.randrange(10**9):09}", f"0.{draw.randrange(1, 10**9):018}"
        side = draw.choice(("buy", "sell"))
        at = base + draw.randrange(10**10)
        found.append(trade("coinbase", symbol, number, at=at, price=price, quantity=quantity, side=side))
    return found


def _stored(served: Served, symbol: str, intervals: tuple[str, ...]) -> dict[tuple[str, str], dict[str, Any]]:
    """What the views show, by interval and window."""
    client = served.store.client(database="k2")
    found = {}
    columns = ("window_start", *AMOUNTS, *NUMBERS, "complete")
    try:
        for interval in intervals:
            sql = f"SELECT {', '.join(columns)} FROM ohlcv_{interval} WHERE symbol = {{symbol:String}}"
            for row in client.rows(sql, {"symbol": symbol}):
                start = datetime.fromisoformat(str(row[0]) + "+00:00").strftime("%Y-%m-%dT%H:%M:%SZ")
                found[interval, start] = _plain(dict(zip(columns[1:], row[1:], strict=True)))
    finally:
        client.close()
    return found


def _plain(candle: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: Decimal(str(candle[name])) for name in AMOUNTS},
        **{name: int(candle[name]) for name in NUMBERS},
        "complete": bool(candle["complete"]),
    }


def _told(socket: Socket) -> dict[tuple[str, str], dict[str, Any]]:
    """The newest candle of each window."""
    candles = [one for message in socket.messages if message["type"] == "candles" for one in message["candles"]]
    return {(one["interval"], one["window_start"]): one for one in candles}


async def _until_told(socket: Socket, served: Served, symbol: str, intervals: tuple[str, ...]) -> None:
    """Hear until the client has been told what the store shows, as final."""
    stored = await asyncio.to_thread(_stored, served, symbol, intervals)
    deadline = time.monotonic() + PATIENCE_S
    while {key: _plain(one) for key, one in _told(socket).items() if one["final"]} != stored:
        different = {
            key: (_told(socket).get(key), one)
            for key, one in stored.items()
            if key not in _told(socket) or _plain(_told(socket)[key]) != one or not _told(socket)[key]["final"]
        }
        assert time.monotonic() < deadline, different
        await socket.hear(lambda _: True)
        stored = await asyncio.to_thread(_stored, served, symbol, intervals)


def test_candles_come_to_equal_the_stores(served: Served) -> None:
    intervals = ("1m", "15m", "1h", "1d")
    made = _trades("CNDL-USD", 1)
    late = [one for one in made if one.trade_id in (3, 17, 18, 40)]
    batches = [[one for one in made[at : at + 12] if one not in late] for at in range(0, len(made), 12)]

    async def scenario() -> None:
        async with opened(
            served.url, f"?channels=candles&symbols=coinbase:CNDL-USD&intervals={','.join(intervals)}"
        ) as s:
            await s.hear(kind("subscribed"))
            for batch in batches:
                await asyncio.to_thread(served.say, batch)
            await s.hear(kind("candles"))
            await _until_told(s, served, "CNDL-USD", intervals)
            assert not all(one["complete"] for one in _told(s).values())
            await asyncio.to_thread(served.say, late)  # corrected, and complete at last
            await _until_told(s, served, "CNDL-USD", intervals)
            assert all(one["complete"] for one in _told(s).values())
            for interval in intervals:  # to the letter what the API answers
                path = f"/v1/candles/{interval}?exchange=coinbase&symbol=CNDL-USD&from=2026-01-01&to=2026-02-01"
                answered = (await asyncio.to_thread(served.get, path)).json()["data"]
                told = [one for (of, _), one in sorted(_told(s).items()) if of == interval]
                assert [{k: v for k, v in one.items() if k not in ("interval", "final")} for one in told] == answered

    play(scenario())


def test_updates_are_few_and_the_current_windows_come_first(served: Served) -> None:
    async def scenario() -> None:
        now = time.time_ns()
        first = [trade("coinbase", "NOWC-USD", 1, at=now)]
        await asyncio.to_thread(served.say, first)
        async with opened(served.url, "?channels=candles&symbols=coinbase:*&intervals=1h,1d") as s:
            await s.hear(lambda m: m["type"] == "candles" and "NOWC-USD" in {one["symbol"] for one in m["candles"]})
            before, began = len(s.messages), time.monotonic()
            for number in range(2, 40):
                await asyncio.to_thread(served.say, [trade("coinbase", "NOWC-USD", number, at=now)])
            seconds = time.monotonic() - began
            await s.hear(
                lambda m: m["type"] == "candles" and m["candles"][-1]["trade_count"] == 39 and len(m["candles"]) == 2
            )
            updates = [m for m in s.messages[before:] if m["type"] == "candles"]
            assert len(updates) <= seconds / 0.4 + 3
            assert {one["final"] for m in updates for one in m["candles"]} == {False}

    play(scenario())


_minute = st.tuples(
    st.integers(0, 300), st.integers(1, 10**30), st.integers(1, 10**30), st.booleans()
)  # minute, price, quantity, buy


@settings(max_examples=40)
@given(st.lists(_minute, min_size=1, max_size=40), st.sampled_from(tuple(INTERVALS)))
def test_merging_minutes_is_exact(minutes: list[tuple[int, int, int, bool]], interval: str) -> None:
    """Against an independent recomputation from the trades."""
    builder = CandleBuilder(60)
    parts: dict[int, list[Minute]] = {}
    for number, (minute, price, quantity, buy) in enumerate(minutes, 1):
        said = merge.text(price, SCALE), merge.text(quantity, SCALE)
        side = "buy" if buy else "sell"
        builder.add(
            trade("kraken", "A-B", number, at=minute * 60 * 10**9 + 1, price=said[0], quantity=said[1], side=side)
        )
        key = (0, number)
        single = Minute(price, price, price, price, quantity, price * quantity, quantity * buy, 1, key, key, False)
        start = minute * 60 // INTERVALS[interval] * INTERVALS[interval]
        parts.setdefault(start, []).append(single)
    market = windows.Market("kraken", "A-B")
    ours = [
        windows.candle(windows.Window(market, interval, start), windows.merge(some), False)
        for start, some in sorted(parts.items())
    ]
    for one, other in zip(ours, builder.candles(INTERVALS[interval]), strict=True):
        for name in AMOUNTS:
            assert Decimal(getattr(one, name)) == getattr(other, name)
        assert tuple(getattr(one, name) for name in NUMBERS) == tuple(getattr(other, name) for name in NUMBERS)


# -- replay ------------------------------------------------------------------------------------------------------------


def _record(one: Trade) -> dict[str, Any]:
    return {"epoch": 0, **json.loads(encode_trade(one))}


def _exact(record: dict[str, Any]) -> dict[str, Any]:
    return record | {name: Decimal(record[name]) for name in ("price", "quantity")}


def _expected(served: Served, first: int, end: int, symbols: tuple[str, ...]) -> list[dict[str, Any]]:
    trades = [one for one in served.trades if first <= one.exchange_ts < end and one.symbol in symbols]
    trades.sort(key=lambda one: (one.exchange_ts, one.exchange, one.symbol, one.epoch, one.trade_id))
    return [_exact(_record(one)) for one in trades]


def test_a_replay_is_the_range_in_order_and_ends_with_a_summary(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k2.web.stream.replay.pages.__defaults__", (300,))  # several pages
    first, end = START + 30 * 10**9, START + 90 * 10**9
    reply = served.get(f"/v1/replay?from={first}&to={end}&speed=max&symbol=BTC-USDT,BTC-USD")
    *lines, summary = [json.loads(line) for line in reply.body.splitlines()]
    assert [_exact(one) for one in lines] == _expected(served, first, end, ("BTC-USDT", "BTC-USD"))
    assert (summary["type"], summary["trades"], summary["speed"]) == ("summary", len(lines), "max")
    assert (summary["first_ts"], summary["last_ts"]) == (lines[0]["exchange_ts"], lines[-1]["exchange_ts"])


def test_a_replay_keeps_the_pace(served: Served) -> None:
    first, end = START, START + 60 * 10**9
    began = time.monotonic()
    reply = served.get(f"/v1/replay?from={first}&to={end}&speed=100&symbol=binance:ETH-USDT&format=sse")
    assert time.monotonic() - began > 0.55
    events = [json.loads(line[6:]) for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    trades = [one for event in events[:-1] for one in event["trades"]]
    expected = [one for one in _expected(served, first, end, ("ETH-USDT",)) if one["exchange"] == "binance"]
    assert [_exact(one) for one in trades] == expected
    assert events[-1]["type"] == "summary"
    assert len(events) > 100


@pytest.mark.parametrize(
    ("query", "told"),
    [("speed=0", "speed=0"), ("from=yesterday", "no time"), ("from=-1m&to=-2m", "later"), ("format=csv", "csv")],
)
def test_a_replay_that_cannot_be(served: Served, query: str, told: str) -> None:
    reply = served.get(f"/v1/replay?{query}")
    assert reply.status == 400
    assert told in reply.json()["detail"]


def test_who_leaves_a_replay_leaves_nothing_behind(served: Served) -> None:
    async def scenario() -> None:
        import aiohttp

        async with aiohttp.ClientSession() as session:
            for _ in range(3):
                url = f"{served.url}/v1/replay?from={START}&to={START + DAY}&speed=1"
                async with session.get(url) as answer:
                    await answer.content.readany()

    play(scenario())
    assert served.get("/v1/replay?from=-1s&speed=max").status == 200
