"""/v1/trades, candles and what there is to know of them, over a real store with a loader."""

import io
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa
import pytest
from tests.store.conftest import start
from tests.store.history import DAY, History
from tests.store.history import START as DAY_ONE
from tests.store.history import trade as day_trade
from tests.web.serving import FLUSH_S, MARKETS, READER_PASSWORD, START, STEP, Served, WebThread, begin, trade, until

from k2.ask.times import format_time
from k2.config import load
from k2.core.candle import INTERVALS, Candle, CandleBuilder
from k2.core.types import Trade
from k2.web.candles import LOOK_S

MINUTE = 60_000_000_000
LATER = START + 3_600_000_000_000  # of trades that these tests add


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A platform of these tests' own: they add trades of all markets."""
    platform = begin(tmp_path_factory.mktemp("market"))
    yield platform
    platform.close()


def get(web: Served | WebThread, path: str, **params: object) -> Any:
    said = {name.rstrip("_"): text for name, text in params.items()}
    reply = web.get(f"{path}?{urlencode(said)}" if said else path)
    assert reply.status == 200, reply.body
    return reply.json()


def walk(web: Served | WebThread, path: str, **params: object) -> list[dict[str, Any]]:
    """All pages of an answer."""
    rows: list[dict[str, Any]] = []
    page = get(web, path, **params)
    while True:
        rows += page["data"]
        if not page["next"]:
            return rows
        page = get(web, path, **params, cursor=page["next"])


def decimal(text: str | Decimal) -> str:
    """As JSON answers show a number."""
    plain = f"{Decimal(text):f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def shown(one: Trade) -> dict[str, Any]:
    return {
        "exchange": one.exchange,
        "symbol": one.symbol,
        "native_symbol": one.native_symbol,
        "trade_id": one.trade_id,
        "price": decimal(one.price),
        "quantity": decimal(one.quantity),
        "side": one.side,
        "exchange_ts": format_time(one.exchange_ts),
        "recv_ts": format_time(one.recv_ts),
        "source": one.source,
        "epoch": one.epoch,
    }


def drawn(one: Candle) -> dict[str, Any]:
    prices = ("open", "high", "low", "close", "volume", "quote_volume", "buy_volume", "vwap")
    return {
        **one._asdict(),
        **{name: decimal(getattr(one, name)) for name in prices},
        "window_start": format_time(one.window_start * 1_000_000_000, 0),
    }


def in_order(trades: list[Trade]) -> list[Trade]:
    return sorted(trades, key=lambda one: (one.exchange_ts, one.exchange, one.symbol, one.epoch, one.trade_id))


def candles(trades: list[Trade], interval: str) -> list[dict[str, Any]]:
    builder = CandleBuilder(60)
    for one in trades:
        builder.add(one)
    found = builder.candles(INTERVALS[interval])
    return [drawn(one) for one in sorted(found, key=lambda one: (one.window_start, one.exchange, one.symbol))]


def test_trades_of_everything_page_by_page(served: Served) -> None:
    wanted = [shown(one) for one in in_order(served.trades)]
    assert walk(served, "/v1/trades", limit=1700) == wanted
    assert walk(served, "/v1/trades", limit=2000, order="desc") == wanted[::-1]


def test_trades_by_time_symbol_and_id(served: Served) -> None:
    low, high = START + 500 * STEP, START + 900 * STEP + 1
    one = [t for t in in_order(served.trades) if t.symbol == "BTC-USDT" and low <= t.exchange_ts < high]
    times = {"from_": format_time(low), "to": str(high), "exchange": "binance", "symbol": "BTC-USDT"}
    assert walk(served, "/v1/trades", **times, limit=100) == [shown(t) for t in one]
    ids = [t for t in one if 600 <= t.trade_id <= 610]
    assert get(served, "/v1/trades", **times, first_id=600, last_id=610)["data"] == [shown(t) for t in ids]
    few = walk(served, "/v1/trades", symbol="kraken:BTC-USD,ETH-USDT", to=str(START + 9 * STEP), limit=5)
    assert {(row["exchange"], row["symbol"]) for row in few} == {("kraken", "BTC-USD"), ("binance", "ETH-USDT")}
    assert len(few) == 16
    assert get(served, "/v1/trades", symbol="NO-SUCH") == {"data": [], "next": None}


def test_a_walk_is_right_while_trades_arrive(served: Served) -> None:
    before = [shown(one) for one in in_order(served.trades)]
    stop = threading.Event()

    def more() -> None:
        for number in range(10_001, 10_400):
            if stop.wait(0.02):
                return
            served.say([trade("coinbase", "BTC-USD", number, LATER + number)])

    saying = threading.Thread(target=more)
    saying.start()
    try:
        seen = walk(served, "/v1/trades", limit=321)
    finally:
        stop.set()
        saying.join()
    added = [row["trade_id"] for row in seen if row["symbol"] == "BTC-USD" and row["trade_id"] > 10_000]
    assert added == list(range(10_001, 10_001 + len(added)))
    assert [row for row in seen if row["symbol"] != "BTC-USD" or row["trade_id"] <= 10_000] == before


@pytest.mark.parametrize("interval", list(INTERVALS))
def test_candles_are_those_of_the_trades(served: Served, interval: str) -> None:
    wanted = candles(served.trades, interval)
    assert walk(served, f"/v1/candles/{interval}", limit=3) == wanted
    assert walk(served, f"/v1/candles/{interval}", limit=4, order="desc") == wanted[::-1]
    reply = served.get(f"/v1/candles/{interval}?format=arrow&limit=0")
    table = pa.ipc.open_stream(io.BytesIO(reply.body)).read_all()
    assert [decimal(value) for value in table["vwap"].to_pylist()] == [row["vwap"] for row in wanted]
    assert table["complete"].to_pylist() == [row["complete"] for row in wanted]


def test_candles_follow_the_tail(served: Served) -> None:
    where = {"exchange": "binance", "symbol": "ETH-USDT", "from_": str(LATER), "to": str(LATER + 3 * MINUTE)}
    for number in range(20_000, 20_012):
        served.say([trade("binance", "ETH-USDT", number, LATER + number % 3 * MINUTE + number)])
        time.sleep(LOOK_S)
        own = [t for t in served.trades if t.symbol == "ETH-USDT" and LATER <= t.exchange_ts < LATER + 3 * MINUTE]
        rows = get(served, "/v1/candles/1m", **where)["data"]
        names = ("window_start", "open", "high", "low", "close", "volume", "vwap", "trade_count", "last_trade_id")
        assert [[row[name] for name in names] for row in rows] == [
            [row[name] for name in names] for row in candles(own, "1m")
        ]


def test_a_closed_range_has_a_validator_that_late_trades_change(served: Served) -> None:
    at, number = LATER + 600 * MINUTE, 30_000
    served.say([trade("kraken", "BTC-USD", number, at)])
    ranges = [
        f"{path}?symbol=BTC-USD&from={at}&to={at + 120 * MINUTE}&format={form}"
        for path in ("/v1/trades", "/v1/candles/1m", "/v1/candles/1h")
        for form in ("json", "csv")
    ]
    firsts = {asked: served.get(asked) for asked in ranges}

    def all_stand() -> bool:  # not before the trade is committed: that may change the validator of the same answer
        for asked, first in firsts.items():
            again = served.get(asked, {"If-None-Match": first.headers["etag"]})
            if again.status != 304:
                firsts[asked] = again
                return False
            assert (again.body, again.headers["etag"]) == (b"", first.headers["etag"])
        return True

    until(all_stand)
    time.sleep(2 * FLUSH_S)
    until(all_stand)
    served.say([trade("kraken", "BTC-USD", number + 1, at + 1)])
    for asked, first in firsts.items():
        changed = served.get(asked, {"If-None-Match": first.headers["etag"]})
        assert changed.status == 200
        assert changed.headers["etag"] != first.headers["etag"]
        assert changed.body != first.body


def test_an_open_range_has_none(served: Served) -> None:
    for path in ("/v1/trades", "/v1/candles/1m"):
        for times in ("", "?to=now", "?from=-1h"):
            reply = served.get(path + times)
            assert (reply.status, "etag" in reply.headers, reply.headers["cache-control"]) == (200, False, "no-store")


def test_symbols_and_exchanges(served: Served) -> None:
    rows = {(row["exchange"], row["symbol"]): row for row in walk(served, "/v1/symbols", limit=2)}
    for exchange, symbols in MARKETS.items():
        for symbol, (native, _, _) in symbols.items():
            own = [t for t in served.trades if (t.exchange, t.symbol) == (exchange, symbol)]
            row = rows[exchange, symbol]
            assert row["native_symbol"] == native
            assert row["first_trade_id"] == 1
            assert row["first_trade_ts"] == format_time(min(t.exchange_ts for t in own))
            assert row["last_trade_ts"] <= format_time(max(t.exchange_ts for t in own))
            assert 0 < row["trade_count"] <= len(own)
            assert Decimal(row["last_price"]) in {Decimal(t.price) for t in own}
    venues = {row["exchange"]: row for row in get(served, "/v1/exchanges")["data"]}
    assert set(venues) >= set(MARKETS)
    assert venues["binance"]["symbols"] >= 2


def test_gaps(served: Served) -> None:
    (gap,) = get(served, "/v1/gaps", state="open,unavailable", symbol="BTC-USD", exchange="kraken")["data"]
    assert (gap["first_id"], gap["last_id"], gap["missing"]) == (201, 205, [[201, 205]])
    every = get(served, "/v1/gaps")["data"]
    assert walk(served, "/v1/gaps", limit=1) == every
    assert walk(served, "/v1/gaps", limit=2, order="desc") == every[::-1]
    assert [g["first_id"] for g in get(served, "/v1/gaps", first_id=205, last_id=300)["data"]] == [201]
    assert get(served, "/v1/gaps", from_=gap["detected_ts"])["data"] == [gap]


@pytest.mark.parametrize("form", ["ndjson", "csv"])
@pytest.mark.parametrize("interval", ["1m", "1h"])
def test_candles_as_text_are_the_same_from_both_ways(served: Served, form: str, interval: str) -> None:
    times = f"from={format_time(START)}&to={format_time(START + 180 * MINUTE)}"
    path = f"/v1/candles/{interval}?{times}&format={form}"
    whole = served.get(f"{path}&limit=20000")
    quick = served.get(f"{path}&limit=1500")
    assert (quick.status, quick.body) == (200, whole.body)
    assert quick.body.count(b"\n") > 3
    assert {"content-type", "etag"} <= quick.headers.keys()
    assert quick.headers["content-type"] == whole.headers["content-type"]
    assert served.get(f"{path}&limit=1500", {"If-None-Match": quick.headers["etag"]}).status == 304
    lines, at = [], f"{path}&limit=2"
    while at:
        page = served.get(at)
        head = page.body.startswith(b'"exchange"')
        lines += page.body.splitlines()[int(head) :]
        link = page.headers.get("link", "")
        at = link.partition("<")[2].partition(">")[0]
    assert lines == quick.body.splitlines()[int(form == "csv") :]


def test_completeness(served: Served) -> None:
    day = {"from_": format_time(START), "to": format_time(START + 10 * MINUTE)}
    rows = {(r["exchange"], r["symbol"]): r for r in walk(served, "/v1/completeness", **day, limit=1)}
    kraken = rows["kraken", "BTC-USD"]
    assert (kraken["trades"], kraken["expected"], kraken["missing"], kraken["share"]) == (495, 500, 5, 0.99)
    assert (rows["binance", "BTC-USDT"]["missing"], rows["binance", "BTC-USDT"]["share"]) == (0, 1)


def test_ids_between_two_windows_count_where_the_later_begins(served: Served) -> None:
    at = LATER + 6000 * MINUTE // MINUTE * MINUTE
    at -= at % (60 * MINUTE)
    first = [trade("coinbase", "BTC-USD", number, at + number) for number in range(50_000, 50_010)]
    second = [trade("coinbase", "BTC-USD", number, at + 180 * MINUTE + number) for number in range(50_030, 50_040)]
    served.say(first + second)
    times = {"from_": str(at), "to": str(at + 240 * MINUTE), "symbol": "BTC-USD", "exchange": "coinbase"}
    rows = get(served, "/v1/completeness", **times)["data"]
    assert [(row["trades"], row["first_trade_id"]) for row in rows] == [(10, 50_000), (10, 50_030)]
    assert rows[1]["missing"] == 20
    (later,) = get(served, "/v1/completeness", **{**times, "from_": str(at + 180 * MINUTE)})["data"]
    assert later == rows[1]


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/v1/trades?from=soon", "from"),
        ("/v1/trades?exchange=mtgox", "exchange"),
        ("/v1/trades?limit=0", "limit"),
        ("/v1/trades?limit=1000001", "limit"),
        ("/v1/trades?first_id=3&last_id=2", "first_id"),
        ("/v1/trades?cursor=zzz", "cursor"),
        ("/v1/candles/1m?from=-1h&to=-2h", "from"),
        ("/v1/candles/7m", "interval"),
        ("/v1/candles/1m?limit=0", "limit"),
        ("/v1/gaps?state=odd", "state"),
        ("/v1/trades?as_of=long+ago", "as_of"),
        ("/v1/candles/1m?as_of=12345", "as_of"),
    ],
)
def test_what_cannot_be_asked(served: Served, path: str, parameter: str) -> None:
    reply = served.get(path)
    document = reply.json()
    assert (reply.status, document["parameter"]) == (400, parameter)
    assert document["detail"]
    assert document["remedy"]


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[History, WebThread, str]]:
    """Two days that are cold, a snapshot, and a third day that came after it."""
    folder = tmp_path_factory.mktemp("past")
    store = start(folder / "store-data")
    history = History(folder / "data", store)
    history.put_days(0, 2)
    history.load()
    history.show()
    snapshot = str(history.heads()["trades"].snapshot_id)
    history.put_days(2, 1)
    history.put(day_trade(500, DAY_ONE + 5))
    history.load()
    history.show()
    environ = {
        "K2_DATA": str(folder / "data"),
        "K2_STORE_PORT": str(store.port),
        "K2_STORE_READONLY_PASSWORD": READER_PASSWORD,
    }
    web = WebThread(load(environ=environ))
    yield history, web, snapshot
    web.close()
    history.close()
    assert store.stop() == 0


def test_trades_as_of_a_snapshot(past: tuple[History, WebThread, str]) -> None:
    history, web, snapshot = past
    old = [one for one in history.said if one.trade_id <= 80]
    assert walk(web, "/v1/trades", limit=33) == [shown(one) for one in in_order(history.said)]
    rows = walk(web, "/v1/trades", as_of=snapshot, limit=33)
    assert rows == [shown(one) for one in in_order(old)]
    assert walk(web, "/v1/trades", as_of=snapshot, limit=33, order="desc") == rows[::-1]
    within = get(web, "/v1/trades", as_of=snapshot, from_=str(DAY_ONE + DAY), symbol="BTC-USD")["data"]
    assert within == [row for row in rows if row["exchange_ts"] >= format_time(DAY_ONE + DAY)]
    reply = web.get(f"/v1/trades?as_of={snapshot}&limit=5")
    assert web.get(f"/v1/trades?as_of={snapshot}&limit=5", {"If-None-Match": reply.headers["etag"]}).status == 304
    assert web.get("/v1/trades?as_of=2001-01-01").json()["parameter"] == "as_of"


def test_candles_as_of_a_time_in_the_middle_of_the_day_that_is_asked_for(past: tuple[History, WebThread, str]) -> None:
    _, web, snapshot = past
    day = time.strftime("%Y-%m-%d", time.gmtime())
    reply = web.get(f"/v1/candles/1m?as_of={snapshot}&from={day}T00:00:00Z")
    assert (reply.status, reply.json()["parameter"]) == (400, "as_of")
    assert "closed days" in reply.json()["detail"]
    assert web.get(f"/v1/candles/1m?as_of={snapshot}").status == 200
