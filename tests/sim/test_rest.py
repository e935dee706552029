"""REST: history in pages, as the venues' own modules ask for it."""

import asyncio
import time
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from sim_client import SYMBOLS, Session, heard, running, told

from k2.config import EXCHANGES
from k2.core.types import Frame, Hole, Trade
from k2.exchanges import venue
from k2.sim.rest import Bucket


async def healed(session: Session, name: str, first: int, last: int, symbol: str = "") -> list[Trade]:
    """Ask for a hole as the feed's healer does; every trade in answer order."""
    speaks, symbol = venue(name), symbol or SYMBOLS[name][0]
    known = {trade.trade_id: trade.exchange_ts for trade in session.true(name) if trade.symbol == symbol}
    hole = Hole(symbol, speaks.native(symbol), 0, first, last, known.get(first - 1, 0), known.get(last + 1, 0))
    request = speaks.heal(hole)
    found: list[Trade] = []
    for _ in range(50):
        status, body, _headers = await session.get(f"/{name}{request.path}")
        frame = Frame(time.time_ns(), "rest", "rest", f"{status} {request.path}", body)
        page = speaks.decode(frame)
        trades = [event for event in page if isinstance(event, Trade)]
        assert len(trades) == len(page), page
        found += trades
        following = speaks.heal_next(hole, request, trades, frame)
        if following is None:
            return found
        request = following
    raise AssertionError("healing does not end")


@pytest.mark.parametrize("name", EXCHANGES)
def test_pages_give_every_trade_of_a_hole(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True, limits=False) as session:
            ids = [number for _ in range(130) for number in await session.emit(name, 23)]
            first, last = ids[40], ids[-30]
            got = {heard(trade) for trade in await healed(session, name, first, last)}
            wanted = {told(trade) for trade in session.true(name) if first <= trade.trade_id <= last}
            assert len(wanted) == last - first + 1
            assert wanted <= got

    asyncio.run(run())


@pytest.mark.parametrize("name", EXCHANGES)
def test_a_hole_with_no_trade_after_it(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            ids = await session.emit(name, 10)
            assert {trade.trade_id for trade in await healed(session, name, ids[3], ids[-1])} >= set(ids[3:])

    asyncio.run(run())


def test_binance_forms(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            ids = await session.emit("binance", 3)
            _, body, _ = await session.get(f"/binance/api/v3/historicalTrades?symbol=BTCUSDT&fromId={ids[1]}&limit=1")
            row = msgspec.json.decode(body)[0]
            assert list(row) == ["id", "price", "qty", "quoteQty", "time", "isBuyerMaker", "isBestMatch"]
            assert row["id"] == ids[1]
            status, body, _ = await session.get("/binance/api/v3/historicalTrades?symbol=NOTUSDT")
            assert (status, msgspec.json.decode(body)["code"]) == (400, -1121)
            status, body, _ = await session.get("/binance/api/v3/historicalTrades?symbol=BTCUSDT&limit=x")
            assert status == 400
            _, body, _ = await session.get("/binance/api/v3/exchangeInfo")
            assert [one["symbol"] for one in msgspec.json.decode(body)["symbols"]] == ["BTCUSDT", "DOGEUSDT"]

    asyncio.run(run())


def test_coinbase_forms(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            ids = await session.emit("coinbase", 6)
            _, body, headers = await session.get(f"/coinbase/products/BTC-USD/trades?after={ids[4]}&limit=3")
            rows = msgspec.json.decode(body)
            assert [row["trade_id"] for row in rows] == [ids[3], ids[2], ids[1]]
            assert (headers["CB-BEFORE"], headers["CB-AFTER"]) == (str(ids[3]), str(ids[1]))
            assert rows[0]["side"] == "sell"  # the maker's: the taker bought
            _, body, headers = await session.get(f"/coinbase/products/BTC-USD/trades?after={ids[0]}")
            assert (body, "CB-AFTER" in headers) == (b"[]", False)
            status, body, _ = await session.get("/coinbase/products/NOT-USD/trades")
            assert (status, body) == (404, b'{"message":"NotFound"}')
            _, body, _ = await session.get("/coinbase/products")
            assert [one["id"] for one in msgspec.json.decode(body)] == ["BTC-USD", "DOGE-USD"]

    asyncio.run(run())


@pytest.mark.parametrize("pair", ["XBTUSD", "XXBTZUSD", "XBT/USD", "BTC/USD"])
def test_kraken_forms(pair: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            first, second = await session.emit("kraken", 3), await session.emit("kraken", 3)
            _, body, _ = await session.get(f"/kraken/0/public/Trades?pair={pair}&since=0&count=3")
            result = msgspec.json.decode(body)["result"]
            assert [row[6] for row in result["XXBTZUSD"]] == first
            _, body, _ = await session.get(f"/kraken/0/public/Trades?pair={pair}&since={result['last']}")
            result = msgspec.json.decode(body)["result"]
            assert [row[6] for row in result["XXBTZUSD"]] == second
            _, body, _ = await session.get(f"/kraken/0/public/Trades?pair={pair}&since={result['last']}")
            assert msgspec.json.decode(body)["result"] == {"XXBTZUSD": [], "last": result["last"]}
            status, body, _ = await session.get("/kraken/0/public/Trades?pair=NOPE")
            assert (status, msgspec.json.decode(body)) == (200, {"error": ["EQuery:Unknown asset pair"]})
            _, body, _ = await session.get("/kraken/0/public/AssetPairs")
            pairs = msgspec.json.decode(body)["result"]
            assert {name: one["wsname"] for name, one in pairs.items()} == {"XXBTZUSD": "XBT/USD", "XDGUSD": "XDG/USD"}

    asyncio.run(run())


def test_a_page_may_end_among_trades_of_one_time(tmp_path: Path) -> None:
    """Kraken's trap: `last` then skips the rest of them."""

    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            ids = await session.emit("kraken", 5)
            _, body, _ = await session.get("/kraken/0/public/Trades?pair=XBTUSD&since=0&count=2")
            result = msgspec.json.decode(body)["result"]
            assert [row[6] for row in result["XXBTZUSD"]] == ids[:2]
            _, body, _ = await session.get(f"/kraken/0/public/Trades?pair=XBTUSD&since={result['last']}")
            assert msgspec.json.decode(body)["result"]["XXBTZUSD"] == []

    asyncio.run(run())


def test_limits_are_the_venues_own(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            answers = [await session.get("/kraken/0/public/Time") for _ in range(20)]
            assert {status for status, _, _ in answers} == {200}
            assert b'{"error":["EAPI:Rate limit exceeded"]}' in [body for _, body, _ in answers]
            codes = [await session.get("/coinbase/products/BTC-USD/trades") for _ in range(60)]
            limited = [headers for status, _, headers in codes if status == 429]
            assert limited
            assert int(limited[0]["Retry-After"]) >= 1

    asyncio.run(run())


def test_bucket() -> None:
    bucket = Bucket(refill=1e-9, burst=10)
    assert bucket.take(6) == 0
    assert bucket.take(6) > 0
    assert bucket.take(4) == 0


def test_control_says_what_is_wrong(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            wrong = [
                ("rate", {"rate": -1}, "rate"),
                ("rate", {"speed": 1}, "speed"),
                ("emit", {"exchange": "nowhere", "symbol": "BTC-USD"}, "nowhere"),
                ("emit", {"exchange": "kraken", "symbol": "NOT-USD"}, "NOT-USD"),
                ("faults", {"fault": "dropp", "exchange": "kraken"}, "drop"),
                ("faults", {"fault": "drop", "exchange": "krakn"}, "kraken"),
                ("faults", {"fault": "drop", "exchange": "kraken", "probability": 2}, "probability"),
            ]
            for verb, body, named in wrong:
                assert named in (await session.control(verb, body))["error"]

    asyncio.run(run())


def test_rate_and_pause_at_run_time(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, rate=1) as session:
            await session.control("rate", {"rate": 3000})
            await session.until(lambda: session.sim.made >= 200)
            paused = await session.control("pause")
            assert paused["paused"]
            assert paused["rate"] == 3000
            await asyncio.sleep(0.1)
            held = session.sim.made
            await asyncio.sleep(0.1)
            assert session.sim.made == held
            await session.control("resume")
            await session.until(lambda: session.sim.made > held)

    asyncio.run(run())


def test_a_changed_instruments_file_is_picked_up(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            file = tmp_path / "instruments.toml"
            file.write_text(file.read_text().replace("'DOGE-USDT'", "'DOGE-USDT', 'NEW-USDT'"))
            await session.until(lambda: "NEWUSDT" in session.sim.markets["binance"].by_native)
            assert await session.emit("binance", 1, "NEW-USDT")

    asyncio.run(run())


def test_paths_are_those_that_the_venue_modules_ask(tmp_path: Path) -> None:
    hole = Hole("BTC-USD", "BTC/USD", 0, 5, 9, 1_700_000_000_000_000_000, 0)
    for name in EXCHANGES:
        path = urlsplit(venue(name).heal(hole).path).path
        assert path.startswith(("/api/v3/", "/products/", "/0/public/"))
