"""What was archived is what every engine reads, to the last digit and nanosecond."""

import json
import random
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tier import readers
from tests.tier.conftest import DAY_NS, START_NS, Platform, trade

from k2.config import TierConfig
from k2.core.types import Frame, Gap, Trade
from k2.tier import BrokenRecord
from k2.tier.keep.maintenance import Maintenance
from k2.tier.schema import DERIVED, TABLES

SUMMARY = (
    "SELECT exchange, symbol, CAST(count(*) AS BIGINT), CAST(sum(price) AS VARCHAR), CAST(sum(quantity) AS VARCHAR),"
    " CAST(sum(exchange_ts_ns % 1000003) AS BIGINT), CAST(sum(recv_ts_ns % 1000003) AS BIGINT), min(trade_id),"
    " max(trade_id) FROM {} GROUP BY exchange, symbol ORDER BY exchange, symbol"
)
CHDB = """
import chdb, sys
connection = chdb.connect(sys.argv[1] + "/chdb")  # lets files be read below the folder it was started in only
print(connection.query(sys.argv[2], "JSONCompact"))
"""


def _trades(count: int) -> list[Trade]:
    draw = random.Random(7)
    return [
        trade(
            number,
            exchange=draw.choice(["binance", "kraken"]),
            symbol=draw.choice(["BTC-USD", "ETH-USD", "ADA-USD"]),
            epoch=draw.choice([0, 0, 1]),
            price=f"{draw.randrange(10**6)}.{draw.randrange(10**8):08d}",
            quantity=draw.choice(["0.000000000000000001", "1234567890.123456789012345678", "1", "2.50"]),
            side=draw.choice(["buy", "sell"]),
            exchange_ts=START_NS + draw.randrange(3 * DAY_NS),
        )
        for number in range(count)
    ]


def test_all_engines_give_the_same_answers(platform: Platform) -> None:
    platform.put(*_trades(500))
    platform.archiver(slice_rows=100).run()
    table = platform.catalog().load_table("cold.trades")
    answers = {
        "pyiceberg": duckdb.from_arrow(table.scan().to_arrow()).query("rows", SUMMARY.format("rows")).fetchall(),
        "polars": _with_polars(table),
        "chdb": _with_chdb(platform.folder),
    }
    assert sum(row[2] for row in answers["pyiceberg"]) == 500
    assert answers["polars"] == answers["pyiceberg"]
    assert answers["chdb"] == answers["pyiceberg"]
    batches = duckdb.from_arrow(table.scan().to_arrow_batch_reader())
    assert batches.query("batches", SUMMARY.format("batches")).fetchall() == answers["pyiceberg"]


def test_every_table_has_the_same_rows_in_every_engine(platform: Platform, tmp_path: Path) -> None:
    platform.put(*_trades(300))
    frames = [Frame(START_NS + i * 999, "ws", f"c{i % 3}", "", bytes([i, 0, 255, 10])) for i in range(40)]
    platform.put_frames("kraken", *frames, Frame(START_NS, "rest", "rest", "200 /0/public/Trades?since=0", b""))
    platform.put_gaps(
        Gap("kraken", "BTC-USD", 3, 9, "unavailable", 'gone, "for good"', START_NS + 1, START_NS + 2, ((3, 4), (7, 7))),
        Gap("binance", "ETH-USDT", 1, 1, "start", "", START_NS, START_NS, (), 1),
    )
    platform.archiver(slice_rows=100).run()
    Maintenance(platform.catalog(), TierConfig(), lambda: START_NS + 9 * DAY_NS, "test", tmp_path / "spill").run()
    tables = [platform.catalog().load_table(f"cold.{name}") for name in (*TABLES, *DERIVED)]
    for table, asked in zip(tables, readers.with_clickhouse(platform.folder, tables), strict=True):
        expected = readers.with_pyiceberg(table)
        assert len(expected) >= 2, table.name()
        assert readers.with_polars(table) == expected
        assert readers.with_duckdb(table) == expected
        assert asked == expected


@pytest.mark.filterwarnings("ignore:Iceberg scan planning")
def _with_polars(table: Any) -> list[tuple[Any, ...]]:
    found = (
        polars.scan_iceberg(table)
        .group_by("exchange", "symbol")
        .agg(
            polars.len(),
            polars.col("price", "quantity").sum().cast(polars.String),
            (polars.col("exchange_ts_ns", "recv_ts_ns") % 1000003).sum(),
            polars.col("trade_id").min().alias("first"),
            polars.col("trade_id").max().alias("last"),
        )
        .sort("exchange", "symbol")
        .collect()
    )
    return found.rows()


def _with_chdb(folder: Path) -> list[tuple[Any, ...]]:
    source = f"icebergLocal('{folder}/warehouse/cold/trades')"
    query = SUMMARY.format(source).replace("CAST(sum(price) AS VARCHAR)", "toDecimalString(sum(price), 18)")
    query = query.replace("CAST(sum(quantity) AS VARCHAR)", "toDecimalString(sum(quantity), 18)")
    query += " SETTINGS output_format_json_quote_64bit_integers = 0"
    answer = subprocess.run(
        [sys.executable, "-c", CHDB, str(folder), query],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return [tuple(row) for row in json.loads(answer.stdout)["data"]]


_exact = st.decimals(0, 10**19, places=18, allow_nan=False).map(lambda number: f"{number:f}")


@pytest.mark.slow
@given(price=_exact, quantity=_exact, ts=st.integers(0, 4_000_000_000_000_000_000), late=st.integers(-(10**9), 10**9))
def test_numbers_and_times_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, price: str, quantity: str, ts: int, late: int
) -> None:
    platform = Platform(tmp_path_factory.mktemp("cold"))
    put = trade(1, price=price, quantity=quantity, exchange_ts=ts, recv_ts=ts + late)
    platform.put(put)
    platform.archiver().run()
    (row,) = platform.catalog().load_table("cold.trades").scan().to_arrow().to_pylist()
    assert (row["price"], row["quantity"]) == (Decimal(price), Decimal(quantity))
    assert (row["exchange_ts_ns"], row["recv_ts_ns"]) == (ts, ts + late)
    assert int(row["exchange_ts"].timestamp()) == ts // 10**9
    assert row["exchange_ts"].microsecond == ts // 1000 % 10**6


@pytest.mark.parametrize("price", ["0.1234567890123456789", "123456789012345678901.5", "nan", "", "1,5"])
def test_a_number_that_does_not_fit_is_refused_not_rounded(platform: Platform, price: str) -> None:
    platform.put(trade(1), trade(2, price=price))
    with pytest.raises(BrokenRecord, match="record 1"):
        platform.archiver().run()


def test_files_are_partitioned_by_day_and_exchange_and_sorted(platform: Platform) -> None:
    platform.put(*_trades(300))
    platform.archiver().run()
    files = platform.data_files()
    assert len(files) == 6
    for file in files:
        rows = pq.read_table(file, partitioning=None).to_pylist()
        order = [(row["symbol"], row["epoch"], row["trade_id"]) for row in rows]
        assert order == sorted(order)
        assert f"exchange={rows[0]['exchange']}" in str(file)
        assert {f"exchange_ts_day={row['exchange_ts'].date()}" for row in rows} == {file.parent.parent.name}


def test_a_scan_of_one_day_and_exchange_opens_one_file(platform: Platform) -> None:
    platform.put(*_trades(300))
    platform.archiver().run()
    table = platform.catalog().load_table("cold.trades")
    day = "exchange_ts >= '2026-01-02T00:00:00+00:00' and exchange_ts < '2026-01-03T00:00:00+00:00'"
    assert len(list(table.scan(f"{day} and exchange = 'kraken'").plan_files())) == 1


def test_files_carry_the_field_ids_of_the_schema(platform: Platform) -> None:
    platform.put(trade(1))
    platform.put_frames("kraken", Frame(START_NS, "ws", "c1", "", b"x"))
    platform.put_gaps(Gap("kraken", "BTC-USD", 3, 5, "unavailable", "gone", START_NS, START_NS, ((3, 4),)))
    platform.archiver().run()
    for name, cold in TABLES.items():
        (file,) = (platform.folder / "warehouse" / "cold" / name).rglob("*.parquet")
        fields = pq.read_schema(file)
        ids = [int(field.metadata[b"PARQUET:field_id"]) for field in fields]
        assert ids == [field.field_id for field in cold.schema.fields]


def test_gaps_keep_their_missing_ranges(platform: Platform) -> None:
    gap = Gap("kraken", "BTC-USD", 3, 9, "unavailable", "gone", START_NS + 1, START_NS + 2, ((3, 4), (7, 7)))
    platform.put_gaps(gap, Gap("binance", "ETH-USDT", 1, 1, "start", "", START_NS, START_NS))
    platform.archiver().run()
    rows = platform.catalog().load_table("cold.gaps").scan().to_arrow().sort_by("log_offset").to_pylist()
    assert [row["exchange"] for row in rows] == ["kraken", "binance"]
    assert rows[0]["missing"] == [{"first_id": 3, "last_id": 4}, {"first_id": 7, "last_id": 7}]
    assert (rows[0]["event_ts_ns"], rows[0]["detected_ts_ns"], rows[1]["missing"]) == (START_NS + 1, START_NS + 2, [])
