"""Proofs and candles of closed days, recomputed by others: plain Python, DuckDB, and the builder of core."""

import hashlib
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tier.conftest import DAY_NS, START_NS, Platform, trade

from k2.core.candle import Candle, candles
from k2.core.codec import encode_trade, trades_stream
from k2.core.types import Trade
from k2.log import Batch
from k2.tier import TierError
from k2.tier.identities import Identities
from k2.tier.keep import seal
from k2.tier.keep.candles import MinuteCandles
from k2.tier.keep.commits import Overtaken
from k2.tier.keep.proof import LINE, Proof, ProofKey, read_proofs
from k2.tier.offload import columns
from k2.tier.schema import OHLCV_1M, PROOFS

DAY = date(2026, 1, 1)
NEXT_DAY = START_NS + DAY_NS
HOUR_NS = 3600 * 10**9


def seal_all(platform: Platform, now_ns: int = START_NS + 10 * DAY_NS) -> list[seal.Sealed]:
    catalog = platform.catalog()
    work = list(seal.due(catalog.load_table("cold.trades"), read_proofs(catalog), now_ns, 3600.0))
    return [seal.seal(catalog, one, platform.folder / "spill", now_ns) for one in work]


def proofs(platform: Platform) -> dict[ProofKey, Proof]:
    return read_proofs(platform.catalog())


def stored(platform: Platform, name: str = "ohlcv_1m") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = platform.catalog().load_table(f"cold.{name}").scan().to_arrow().to_pylist()
    return rows


# -- when --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after_ns", "sealed"), [(HOUR_NS - 1, 0), (HOUR_NS, 1)])
def test_a_day_is_sealed_once_it_is_over_for_so_long(platform: Platform, after_ns: int, sealed: int) -> None:
    platform.put(trade(1), trade(2, exchange_ts=NEXT_DAY))
    platform.archiver().run()
    assert len(seal_all(platform, NEXT_DAY + after_ns)) == sealed
    assert [proof.day for proof in proofs(platform).values()] == [DAY] * sealed


def test_a_sealed_day_is_not_sealed_again(platform: Platform) -> None:
    platform.put_ids([1, 2])
    platform.archiver().run()
    assert len(seal_all(platform)) == 1
    assert seal_all(platform) == []
    assert len(stored(platform, "proofs")) == 1


def test_late_trades_make_a_new_revision_of_what_they_change(platform: Platform) -> None:
    platform.put(trade(1), trade(3), trade(1, symbol="ETH-USD"), trade(1, exchange="binance"))
    platform.archiver().run()
    seal_all(platform)
    first = proofs(platform)
    platform.put(trade(2))
    platform.archiver().run()
    (again,) = seal_all(platform)
    second = proofs(platform)
    key = ("kraken", "BTC-USD", 0, DAY)
    assert [proof.key for proof in again.proofs] == [key]
    assert (first[key].trade_count, first[key].missing, first[key].revision) == (2, ((2, 2),), 1)
    assert (second[key].trade_count, second[key].missing, second[key].revision) == (3, (), 2)
    assert {**second, key: first[key]} == first
    assert len(stored(platform, "proofs")) == 4, "the first revision stays beside the second"
    assert {(row["symbol"], row["trade_count"]) for row in stored(platform) if row["exchange"] == "kraken"} == {
        ("BTC-USD", 3),
        ("ETH-USD", 1),
    }


def test_a_trade_that_comes_late_to_the_day_before_completes_the_day_after(platform: Platform) -> None:
    """Id 2 belongs to the first day; it is what the second day's first candle was waiting for."""
    platform.put(trade(1), trade(3, exchange_ts=NEXT_DAY))
    platform.archiver().run()
    seal_all(platform)
    key = ("kraken", "BTC-USD", 0, date(2026, 1, 2))
    assert proofs(platform)[key].preceded is False
    assert [row["complete"] for row in sorted(stored(platform), key=lambda row: row["window_start"])] == [True, False]
    platform.put(trade(2))
    platform.archiver().run()
    assert len(seal_all(platform)) == 2
    assert (proofs(platform)[key].preceded, proofs(platform)[key].revision) == (True, 2)
    assert [row["complete"] for row in stored(platform)] == [True, True]


def test_ids_that_another_day_has_are_not_missing(platform: Platform) -> None:
    platform.put(
        trade(1),
        trade(3),
        trade(2, exchange_ts=NEXT_DAY),
        trade(4, exchange_ts=NEXT_DAY),
        trade(6, exchange_ts=NEXT_DAY),
    )
    platform.archiver().run()
    seal_all(platform)
    assert {key[3].day: proof.missing for key, proof in proofs(platform).items()} == {1: (), 2: ((5, 5),)}


def test_of_two_that_seal_at_once_one_gives_way(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.put_ids([1, 2])
    platform.archiver().run()
    real = seal._gather

    def meanwhile(*args: Any, **more: Any) -> Any:
        monkeypatch.setattr(seal, "_gather", real)
        seal_all(platform)
        return real(*args, **more)

    monkeypatch.setattr(seal, "_gather", meanwhile)
    with pytest.raises(Overtaken, match="sealed by another maintenance"):
        seal_all(platform)
    assert len(stored(platform)) == len(stored(platform, "proofs")) == 1


# -- the hash ----------------------------------------------------------------------------------------------------------


def _odd_trades() -> list[Trade]:
    prices = ["61000.10", "0.000000000000000001", "0.00000012", "1234567.5", "1", "0.1"]
    return [
        trade(
            number,
            symbol=symbol,
            epoch=epoch,
            price=prices[number % 6],
            quantity=prices[number * 5 % 6],
            side=("buy", "sell")[number % 2],
            source=("live", "backfill")[number % 3 // 2],
            exchange_ts=START_NS + number * 977_000_000_123,
        )
        for symbol in ("BTC-USD", "ADA-USD")
        for epoch in (0, 1)
        for number in (7, 1, 2, 3, 5, 30, 31, 80)
    ]


def test_the_hash_is_what_plain_python_and_duckdb_compute(platform: Platform) -> None:
    platform.put(*_odd_trades())
    platform.archiver(slice_rows=10).run()
    seal_all(platform)
    rows = platform.catalog().load_table("cold.trades").scan().to_arrow()
    found = proofs(platform)
    assert len(found) == 4
    for proof in found.values():
        mine = [r for r in rows.to_pylist() if (r["symbol"], r["epoch"]) == (proof.symbol, proof.epoch)]
        lines = [
            ",".join(format(r[name], ".18f") if isinstance(r[name], Decimal) else str(r[name]) for name in LINE) + "\n"
            for r in sorted(mine, key=lambda r: r["trade_id"])
        ]
        assert hashlib.sha256("".join(lines).encode()).hexdigest() == proof.content_hash
        assert (proof.trade_count, proof.first_id, proof.last_id) == (8, 1, 80)
        assert proof.missing == ((4, 4), (6, 6), (8, 29), (32, 79))
    in_duckdb = duckdb.from_arrow(rows).query(
        "rows",
        "SELECT symbol, epoch, sha256(string_agg(concat_ws(',', native_symbol, trade_id, price, quantity, side,"
        " exchange_ts_ns, recv_ts_ns, source) || chr(10), '' ORDER BY trade_id)) FROM rows GROUP BY symbol, epoch",
    )
    assert {row[:2]: row[2] for row in in_duckdb.fetchall()} == {
        (symbol, epoch): proof.content_hash for (_, symbol, epoch, _), proof in found.items()
    }


def test_a_proof_names_its_snapshot_and_time(platform: Platform) -> None:
    platform.put_ids([1])
    platform.archiver().run()
    seal_all(platform, START_NS + 3 * DAY_NS)
    (proof,) = proofs(platform).values()
    snapshot = platform.catalog().load_table("cold.trades").current_snapshot()
    assert snapshot is not None
    assert (proof.snapshot_id, proof.sealed_at) == (snapshot.snapshot_id, datetime(2026, 1, 4, tzinfo=UTC))


@pytest.mark.parametrize(("price", "quantity"), [("10000000000000000000", "1"), ("20000000000", "20000000000")])
def test_numbers_that_no_candle_can_hold_are_named(platform: Platform, price: str, quantity: str) -> None:
    platform.put(trade(1), trade(2, symbol="ODD-USD", price=price, quantity=quantity))
    platform.archiver().run()
    with pytest.raises(TierError, match=r"ODD-USD.*more than .* digits"):
        seal_all(platform)
    assert not proofs(platform)


# -- candles -----------------------------------------------------------------------------------------------------------

amounts = st.one_of(
    st.decimals("0.000000000000000001", "9999999999", places=18), st.decimals("0.01", "70000", places=2)
).map(lambda number: format(number, "f"))
trade_lists = st.lists(
    st.builds(
        trade,
        st.integers(1, 30),
        symbol=st.sampled_from(["BTC-USD", "ETH-USD"]),
        epoch=st.sampled_from([0, 0, 0, 1]),
        side=st.sampled_from(["buy", "sell"]),
        price=amounts,
        quantity=amounts,
        exchange_ts=st.integers(-DAY_NS // 400, DAY_NS // 400).map(lambda ns: NEXT_DAY + ns),
    ),
    min_size=1,
    max_size=40,
)


@given(trades=trade_lists, piece=st.integers(1, 9))
def test_candles_are_those_of_a_recomputation(trades: list[Trade], piece: int) -> None:
    known = Identities()
    gathered = MinuteCandles()
    by_group: dict[tuple[str, int], dict[int, Trade]] = {}
    for one in trades:
        by_group.setdefault((one.symbol, one.epoch), {}).setdefault(one.trade_id, one)
    for group, ids in by_group.items():
        values = [encode_trade(ids[number]) for number in sorted(ids)]
        rows = columns.trades("kraken", Batch(trades_stream("kraken"), 0, 0, (), values))
        known.add("kraken", rows)
        for at in range(0, rows.num_rows, piece):
            gathered.add(*group, rows.slice(at, piece))
    rows = gathered.rows("kraken", {key[1:]: islands for key, islands in known.items()})
    assert [_as_candle(row) for row in rows] == [_strict(candle, trades) for candle in candles(trades, 60)]


def _as_candle(row: dict[str, Any]) -> Candle:
    whole = {**row, "window_start": int(row["window_start"].timestamp())}
    whole["quote_volume"] = _sum(row["quote_volume"], row["quote_volume_rest"])
    return Candle(**{name: whole[name] for name in Candle._fields})


def _strict(candle: Candle, trades: list[Trade]) -> Candle:
    """The store's rule: a minute of two epochs is never complete."""
    epochs = {
        t.epoch
        for t in trades
        if (t.symbol, t.exchange_ts // 60_000_000_000 * 60) == (candle.symbol, candle.window_start)
    }
    return candle._replace(complete=candle.complete and len(epochs) == 1)


def _sum(one: Decimal, other: Decimal) -> Decimal:
    return Decimal(f"{(Fraction(one) + Fraction(other)) * 10**36}E-36")


def test_candles_in_duckdb(platform: Platform) -> None:
    platform.put(
        *(
            trade(i, price=f"{100 + i % 7}.5", quantity=f"0.{i:03}", exchange_ts=START_NS + i * 7 * 10**9)
            for i in range(1, 100)
        )
    )
    platform.archiver(slice_rows=20).run()
    (sealed,) = seal_all(platform)
    rows = platform.catalog().load_table("cold.trades").scan().to_arrow()
    theirs = duckdb.from_arrow(rows).query(
        "rows",
        "SELECT arg_min(price, trade_id), max(price), min(price), arg_max(price, trade_id), sum(quantity),"
        " sum(CAST(price AS DECIMAL(18, 4)) * CAST(quantity AS DECIMAL(18, 4))), count(*), min(trade_id), max(trade_id)"
        " FROM rows GROUP BY epoch_us(exchange_ts) // 60000000 ORDER BY epoch_us(exchange_ts) // 60000000",
    )
    prices, ids = ["open", "high", "low", "close"], ["trade_count", "first_trade_id", "last_trade_id"]
    mine = sorted(stored(platform), key=lambda row: row["window_start"])
    assert [tuple(row[name] for name in [*prices, "volume", "quote_volume", *ids]) for row in mine] == theirs.fetchall()
    assert sealed.candles == len(mine) == 12
    assert all(row["complete"] for row in mine)


def test_candles_of_a_day_are_one_file_and_proofs_are_put_together(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "PROOF_FILES", 3)
    for number, exchange in enumerate(["binance", "kraken", "kraken"], 1):
        platform.put(trade(number, exchange=exchange))
        platform.archiver().run()
        seal_all(platform)
    assert len(list(platform.catalog().load_table(OHLCV_1M.identifier).scan().plan_files())) == 2
    before = proofs(platform)
    assert seal.tidy_proofs(platform.catalog()) == 3
    assert len(list(platform.catalog().load_table(PROOFS.identifier).scan().plan_files())) == 1
    assert proofs(platform) == before
    assert seal.tidy_proofs(platform.catalog()) == 0
