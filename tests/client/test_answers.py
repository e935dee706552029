"""What the client answers: the same from the API and from a store, exactly what was traded, in every shape."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from tests.web.serving import MISSING, START, Served

from k2.client import Client, InvalidQuestion, K2Error, Result, moment

TIME = pa.timestamp("ns", tz="UTC")
NOON = datetime(2026, 1, 2, 0, 1, tzinfo=UTC)

QUESTIONS: dict[str, Callable[[Client], Result]] = {
    "trades": lambda c: c.trades(),
    "trades of a symbol": lambda c: c.trades("BTC-USD", "kraken"),
    "trades of symbols": lambda c: c.trades(["kraken:BTC-USD", "ETH-USDT"], limit=700),
    "trades by id": lambda c: c.trades("BTC-USDT", first_id=17, last_id=23),
    "trades in a time": lambda c: c.trades(start=NOON, end="2026-01-02T00:01:30.5Z"),
    "no trades": lambda c: c.trades("NO-NE"),
    "minutes": lambda c: c.candles(),
    "hours": lambda c: c.candles("BTC-USDT", "1h", start=START),
    "days": lambda c: c.candles(exchange=["kraken", "coinbase"], interval="1d"),
    "gaps": lambda c: c.gaps(),
    "unavailable": lambda c: c.gaps("BTC-USD", state="unavailable"),
    "completeness": lambda c: c.completeness(start=START),
    "completeness of days": lambda c: c.completeness(by="day", start="2026-01-01", exchange="kraken"),
    "symbols": lambda c: c.symbols(),
    "SQL": lambda c: c.sql(
        "SELECT symbol, max(price) AS price, max(exchange_ts) AS at, groupArray(3)(trade_id) AS ids"
        " FROM (SELECT * FROM trades WHERE trade_id < {most:Int64} ORDER BY trade_id) GROUP BY symbol ORDER BY symbol",
        {"most": 9},
    ),
    "SQL of seconds": lambda c: c.sql("SELECT window_start FROM ohlcv_1m ORDER BY ALL LIMIT 3"),
    "SQL with a list": lambda c: c.sql(
        "SELECT exchange, count() FROM trades WHERE exchange IN {names:Array(String)} GROUP BY ALL",
        {"names": ["kraken", "o'neil"]},
    ),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_api_and_store_give_the_same(api: Client, direct: Client, name: str) -> None:
    over_http, over_store = QUESTIONS[name](api).to_arrow(), QUESTIONS[name](direct).to_arrow()
    assert over_http.schema == over_store.schema
    assert over_http.equals(over_store)
    assert (over_http.num_rows == 0) is (name == "no trades")


@pytest.mark.parametrize("client", ["api", "direct"])
def test_trades_are_what_was_traded(served: Served, client: str, request: pytest.FixtureRequest) -> None:
    result = request.getfixturevalue(client).trades("BTC-USD", "kraken")
    assert result.schema.field("price").type == pa.decimal128(38, 18)
    assert result.schema.field("exchange_ts").type == TIME
    said = [t for t in served.trades if (t.exchange, t.symbol) == ("kraken", "BTC-USD")]
    found = result.to_arrow()
    for name in ("trade_id", "side", "native_symbol", "source", "epoch"):
        assert found[name].to_pylist() == [getattr(trade, name) for trade in said], name
    for name in ("price", "quantity"):
        assert found[name].to_pylist() == [Decimal(getattr(trade, name)) for trade in said], name
    for name in ("exchange_ts", "recv_ts"):
        assert found[name].cast(pa.int64()).to_pylist() == [getattr(trade, name) for trade in said], name


def test_candles_have_exact_sums_and_times(api: Client) -> None:
    candles = api.candles("BTC-USD", "1d", exchange="kraken").to_arrow()
    assert candles.schema.field("window_start").type == TIME
    assert candles.schema.field("volume").type == pa.decimal256(76, 18)
    trades = api.trades("BTC-USD", "kraken").to_pylist()
    (row,) = candles.to_pylist()
    assert row["volume"] == sum(trade["quantity"] for trade in trades)
    assert row["quote_volume"] == sum(trade["quantity"] * trade["price"] for trade in trades)
    assert row["trade_count"] == len(trades)
    assert row["complete"] is False  # some ids are missing


def test_completeness_names_what_is_missing(api: Client) -> None:
    _, _, first, last = MISSING
    rows = {(r["exchange"], r["symbol"]): r for r in api.completeness(start=START).to_pylist()}
    assert {key: row["missing"] for key, row in rows.items() if row["missing"]} == {MISSING[:2]: last - first + 1}


def test_every_shape_holds_the_same_rows(api: Client) -> None:
    result = api.trades("BTC-USDT", limit=50)
    table = result.to_arrow()
    assert len(result) == table.num_rows == 50
    frame = result.to_polars()
    assert frame["price"].to_list() == table["price"].to_pylist()
    assert frame.schema["price"] == pl.Decimal(38, 18)
    assert frame.schema["exchange_ts"] == pl.Datetime("ns", "UTC")
    pandas = result.to_pandas()
    assert list(pandas["price"]) == table["price"].to_pylist()
    assert result.to_pandas(floats=True)["price"].dtype == float
    assert pandas["exchange_ts"].astype("int64").tolist() == table["exchange_ts"].cast(pa.int64()).to_pylist()
    assert duckdb.sql("SELECT sum(price) FROM result").fetchall() == [(sum(table["price"].to_pylist()),)]
    assert pl.DataFrame(result).height == 50


def test_wide_sums_reach_polars_exactly(api: Client) -> None:
    result = api.candles("BTC-USDT", "1d")
    (row,) = result.to_pylist()
    assert result.to_polars()["quote_volume"].to_list() == [row["quote_volume"]]
    wide = api.sql("SELECT toDecimal256('1.000000000000000000000000000000000001', 36) AS a")
    assert str(wide.to_polars()["a"][0]) == "1.000000000000000000000000000000000001"
    wider = api.sql("SELECT toDecimal256('12345678901.000000000000000000000000000000000001', 36) AS a")
    assert wider.to_polars()["a"][0] == "12345678901.000000000000000000000000000000000001"


@pytest.mark.parametrize("client", ["api", "direct"])
def test_batches_keep_nothing_and_can_be_asked_again(client: str, request: pytest.FixtureRequest) -> None:
    result = request.getfixturevalue(client).sql("SELECT number AS n, toString(number) AS t FROM numbers(400000)")
    assert "many rows" in repr(result)
    for _ in range(2):
        sizes = [batch.num_rows for batch in result.batches()]
        assert sum(sizes) == 400_000
        assert max(sizes) < 100_000
    for batch in result.batches():
        assert batch["n"][0].as_py() == 0
        break
    result.close()


def test_a_preview_is_neat(api: Client) -> None:
    result = api.trades("BTC-USDT", limit=12)
    lines = repr(result).splitlines()
    assert lines[0] == "trades: 12 rows x 11 columns, the first 10"
    assert lines[1].split()[:4] == ["exchange", "symbol", "native_symbol", "trade_id"]
    assert lines[2].split()[:6] == ["binance", "BTC-USDT", "BTCUSDT", "1", "60001.01", "0.00000002"]
    assert len(lines) == 12
    assert result._repr_html_().count("<tr>") == 11
    assert "&lt;b&gt;" in api.sql("SELECT '<b>' AS x")._repr_html_()
    assert repr(api.trades("NO-NE")).startswith("trades: 0 rows x 11 columns")


def test_times_in_every_spelling() -> None:
    noon = 1_767_355_200_123_456_000
    assert moment(datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)) == noon
    assert moment(datetime(2026, 1, 2, 12, 0, 0, 123456)) == noon  # noqa: DTZ001
    assert moment(pd.Timestamp("2026-01-02T12:00:00.123456789Z")) == noon + 789
    assert moment(np.datetime64("2026-01-02T12:00:00.123456789")) == noon + 789
    assert moment(noon) == noon
    assert moment("-15m") == "-15m"
    with pytest.raises(InvalidQuestion, match="no time"):
        moment(1.5)


WRONG: dict[str, Callable[[Client], Any]] = {
    "from=yesterday": lambda c: c.trades(start="yesterday"),
    "exchange=mtgox": lambda c: c.trades(exchange="mtgox"),
    "first_id=9": lambda c: c.trades(first_id=9, last_id=1),
    "'2m'": lambda c: c.candles("BTC-USDT", "2m"),
    "foo": lambda c: c.sql("SELECT foo"),
    "INSERT": lambda c: c.sql("INSERT INTO k2.silver_base SELECT * FROM k2.silver_base"),
    "file": lambda c: c.sql("SELECT * FROM file('/etc/passwd', 'LineAsString')"),
}


@pytest.mark.parametrize("client", ["api", "direct"])
@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_question_says_what_is_wrong(client: str, words: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(K2Error) as raised:
        WRONG[words](request.getfixturevalue(client))
    assert words.lower() in str(raised.value).lower()
    assert raised.value.title
    assert raised.value.detail
