"""`k2 export`: what other programs read back is what the store holds."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from tests.web.serving import START, Served

from k2.cli import main
from k2.client import Client, InvalidQuestion, Unavailable, files
from k2.client import export as exporting
from k2.client.direct import Direct

MARKETS = [("binance", "BTC-USDT"), ("binance", "ETH-USDT"), ("coinbase", "BTC-USD"), ("kraken", "BTC-USD")]
Export = Callable[..., Result]


@pytest.fixture
def export(served: Served) -> Export:
    def run(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(main, ["export", *map(str, arguments)], env=served.environ)
        assert result.exit_code == code, result.output
        return result

    return run


def in_order(client: Client) -> pl.DataFrame:
    return client.trades().to_polars().sort("exchange", "symbol", "exchange_ts", "trade_id")


def test_one_parquet_file_equals_the_store(export: Export, direct: Client, tmp_path: Path) -> None:
    file = tmp_path / "trades.parquet"
    result = json.loads(export("trades", file, "--json").stdout)
    rows = in_order(direct)
    assert result["rows"] == rows.height
    assert result["files"] == [{"file": str(file), "rows": rows.height, "bytes": file.stat().st_size}]
    assert pl.read_parquet(file).equals(rows)
    read = duckdb.sql(f"SELECT exchange, symbol, trade_id, price, quantity, epoch_ns(exchange_ts) FROM '{file}'")
    times = pl.col("exchange_ts").dt.epoch("ns")
    assert read.fetchall() == rows.select("exchange", "symbol", "trade_id", "price", "quantity", times).rows()
    assert str(read.types[3]) == "DECIMAL(38,18)"
    assert not list(tmp_path.glob("*.part"))


def test_a_partitioned_folder_is_read_as_one(export: Export, direct: Client, tmp_path: Path) -> None:
    export("trades", tmp_path / "all")
    there = sorted(str(path.relative_to(tmp_path / "all")) for path in tmp_path.rglob("*.parquet"))
    assert there == [f"exchange={e}/symbol={s}/date=2026-01-02/trades.parquet" for e, s in MARKETS]
    read = duckdb.sql(
        "SELECT exchange, symbol, date::text, count(*), sum(price::DECIMAL(18, 8) * quantity::DECIMAL(18, 8))::text"
        f" FROM read_parquet('{tmp_path}/all/**/*.parquet', hive_partitioning = true) GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    rows = in_order(direct).rows_by_key(["exchange", "symbol"], named=True)
    for (exchange, symbol), row in zip(MARKETS, read, strict=True):
        own = rows[exchange, symbol]
        assert row[:4] == (exchange, symbol, "2026-01-02", len(own))
        assert Decimal(row[4]) == sum(trade["price"] * trade["quantity"] for trade in own)


@pytest.mark.parametrize("interval", ["1m", "1d"])
def test_candles_in_every_format(export: Export, direct: Client, tmp_path: Path, interval: str) -> None:
    rows = direct.candles(interval=interval).to_pylist()
    rows.sort(key=lambda row: (row["exchange"], row["symbol"], row["window_start"]))
    for form in ("parquet", "arrow", "csv"):
        export("candles", tmp_path / f"c.{form}", "--interval", interval)
    assert pl.read_parquet(tmp_path / "c.parquet").to_dicts() == rows
    arrow = pa.ipc.open_file(tmp_path / "c.arrow").read_all()
    assert arrow.to_pylist() == rows
    assert arrow.schema.field("quote_volume").type == pa.decimal256(76, 36)
    text = pl.read_csv(tmp_path / "c.csv", infer_schema=False).to_dicts()
    assert [Decimal(row["quote_volume"]) for row in text] == [row["quote_volume"] for row in rows]
    assert [row["window_start"] for row in text] == [
        f"{row['window_start']:%Y-%m-%dT%H:%M:%S}.000000000Z" for row in rows
    ]
    assert {row["complete"] for row in text} <= {"true", "false"}


def test_csv_keeps_every_digit(export: Export, direct: Client, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    export("trades", file, "--symbol", "kraken:BTC-USD", "--first-id", 7, "--last-id", 9)
    want = direct.trades("kraken:BTC-USD", first_id=7, last_id=9)
    first = pl.read_csv(file, infer_schema=False).to_dicts()[0]
    assert (first["price"], first["quantity"]) == ("59997.07", "0.00000008")
    at = want.to_arrow()["exchange_ts"].cast(pa.int64())[0].as_py()
    assert first["exchange_ts"] == f"2026-01-02T00:00:00.{at - START:09d}Z"
    read = duckdb.sql(f"SELECT sum(price::DECIMAL(38, 18)) FROM read_csv('{file}', all_varchar = true)").fetchall()
    assert read == [(sum(row["price"] for row in want.to_pylist()),)]


def test_gaps_and_frames(export: Export, direct: Client, served: Served, tmp_path: Path) -> None:
    export("gaps", tmp_path / "g.parquet")
    want = direct.gaps().to_arrow()
    read = pl.read_parquet(tmp_path / "g.parquet")
    assert read.height == want.num_rows
    assert read.filter(pl.col("state") == "unavailable")["missing"].to_list() == [[{"1": 201, "2": 205}]]
    export("gaps", tmp_path / "g.csv")
    assert '""1"":201' in (tmp_path / "g.csv").read_text()
    export("frames", tmp_path / "f", "--exchange", "kraken")
    frames = pl.read_parquet(tmp_path / "f/exchange=kraken/date=2026-01-02/frames.parquet", hive_partitioning=False)
    own = [trade for trade in served.trades if trade.exchange == "kraken"]
    assert [json.loads(payload)["trade_id"] for payload in frames["payload"]] == [trade.trade_id for trade in own]
    assert frames.schema["payload"] == pl.Binary
    assert frames["position"].to_list() == list(range(len(own)))


def test_filters(export: Export, direct: Client, tmp_path: Path) -> None:
    late = ["--from", START + 60_000_000_000, "--to", "2026-01-02T00:02:00Z"]
    export("trades", tmp_path / "t.parquet", "--exchange", "binance", "--symbol", "ETH-USDT", *late)
    want = direct.trades("ETH-USDT", start=START + 60_000_000_000, end="2026-01-02T00:02:00Z")
    assert pl.read_parquet(tmp_path / "t.parquet").equals(want.to_polars())
    for wrong in (
        ["trades", "x", "--from", "yesterday"],
        ["frames", "x", "--symbol", "BTC-USD"],
        ["candles", "x", "--first-id", 1],
        ["gaps", "x", "--as-of", "-1d"],
        ["trades", tmp_path / "none", "--symbol", "NO-NE"],
    ):
        assert "Error" in export(*wrong, code=1).output
    export("trades", "x", "--force", "--resume", code=2)
    assert not (tmp_path / "none").exists()


def test_what_is_there_is_not_overwritten(export: Export, tmp_path: Path) -> None:
    export("trades", tmp_path / "all", "--format", "csv")
    files_there = sorted(tmp_path.rglob("*.csv"))
    assert len(files_there) == 4
    files_there[0].write_text("kept")
    files_there[1].unlink()
    assert "--resume" in export("trades", tmp_path / "all", "--format", "csv", code=1).output
    told = json.loads(export("trades", tmp_path / "all", "--format", "csv", "--resume", "--json").stdout)
    assert [file["file"] for file in told["files"]] == [str(files_there[1])]
    assert len(told["kept"]) == 3
    assert files_there[0].read_text() == "kept"
    assert "2000  " in export("trades", tmp_path / "all", "--format", "csv", "--force").output.replace(",", "")
    assert files_there[0].read_text() != "kept"


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    batch = pa.record_batch({"n": [1, 2]})

    def broken() -> Any:
        yield batch
        raise Unavailable("The answer broke off")

    for form in files.FORMATS:
        file = tmp_path / f"old.{form}"
        file.write_text("old")
        with pytest.raises(Unavailable):
            files.write(file, form, batch.schema, broken())
        assert file.read_text() == "old"
        assert files.write(file, form, batch.schema, iter([batch, batch])) == 4
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".arrow", ".csv", ".parquet"]


def test_a_sum_that_parquet_cannot_hold_is_refused_and_not_rounded(tmp_path: Path) -> None:
    column = pa.array([Decimal("1.0000000000000000001")], pa.decimal256(76, 36))
    batch = pa.record_batch({"quote_volume": column})
    with pytest.raises(InvalidQuestion, match=r"quote_volume.*Arrow"):
        files.write(tmp_path / "a.parquet", "parquet", batch.schema, iter([batch]))
    files.write(tmp_path / "a.csv", "csv", batch.schema, iter([batch]))
    assert (tmp_path / "a.csv").read_text() == '"quote_volume"\n"1.0000000000000000001"\n'


def test_many_rows_of_a_day_are_sorted_in_pieces(
    served: Served, direct: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_SORTED", 30)
    asked = []
    answer = Direct.answer
    monkeypatch.setattr(Direct, "answer", lambda self, query: asked.append(query) or answer(self, query))
    job = exporting.Export(direct._source, "trades", exporting.Filters(symbols=["kraken:BTC-USD"]), "parquet")  # type: ignore[arg-type]
    (part,) = job.parts()
    wrote: list[int] = []
    assert job.write(tmp_path / "t.parquet", [part], wrote.append) == part.rows == sum(wrote)
    assert len(asked) == -(-part.rows // 30)
    monkeypatch.undo()
    assert pl.read_parquet(tmp_path / "t.parquet").equals(direct.trades("kraken:BTC-USD").to_polars())
