"""The audit finds whatever is wrong in cold, names it exactly, and is content when nothing is.

Cold is broken here on purpose: files taken out, put in twice, rewritten with one digit changed, cut off on disk.
"""

import random
import time
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from tests.tier.conftest import DAY_NS, START_NS, Platform, trade
from tests.tier.damage import Row, edit

from k2.core.codec import trades_stream
from k2.core.types import Frame, Gap, Trade
from k2.log import Batch, Position
from k2.log.memory import MemoryLog
from k2.tier import Progress, TierError
from k2.tier.files import write_files
from k2.tier.prove import log_side, sides
from k2.tier.prove.audit import Audit, Scope, audit
from k2.tier.prove.contents import data_files
from k2.tier.prove.digests import BLOCK_BITS
from k2.tier.schema import TABLES, TRADES
from k2.tier.watermark import carried

KRAKEN = trades_stream("kraken")


def filled(platform: Platform) -> Platform:
    """Two venues, two days, an epoch, duplicates in the log, frames, a hole that the ledger excuses."""
    platform.put(*(trade(number, exchange="binance", symbol="ETH-USDT") for number in range(50, 60)))
    platform.put_ids([1, 2, 3, 2, 4])
    platform.put(trade(4, price="1", source="backfill"))  # of equal ones the first counts
    platform.put(*(trade(number, exchange_ts=START_NS + DAY_NS + number) for number in (5, 6, 9, 10)))
    platform.put(*(trade(number, epoch=1) for number in (1, 2, 3)))
    platform.put_frames("kraken", *(Frame(START_NS + i, "ws", "c1", "", bytes([i, 0, 255]) * 20) for i in range(9)))
    platform.put_frames("kraken", Frame(START_NS + DAY_NS, "rest", "rest", "200 /trades", b"{}"))
    platform.put_gaps(
        Gap("kraken", "BTC-USD", 1, 1, "start", "the first trade seen", START_NS, START_NS),
        Gap("kraken", "BTC-USD", 7, 8, "open", "trade ids were skipped", START_NS, START_NS),
        Gap("kraken", "BTC-USD", 7, 8, "unavailable", "gone", START_NS + 5, START_NS, ((7, 8),)),
    )
    platform.archiver(slice_rows=14).run()
    return platform


def audited(platform: Platform, *tables: str, scope: Scope = Scope()) -> Audit:  # noqa: B008  immutable
    return audit(platform.catalog(), platform.log, scope=scope, tables=tables or TABLES)


def found(platform: Platform, *tables: str, scope: Scope = Scope()) -> list[tuple[Any, ...]]:  # noqa: B008  immutable
    """What an audit of trades says in short."""
    return short(audited(platform, *(tables or ("trades",)), scope=scope))


def short(result: Audit) -> list[tuple[Any, ...]]:
    """Kind, symbol, epoch, total and the ids shown."""
    return [(one.kind, one.symbol, one.epoch, one.total, [row.id for row in one.shown]) for one in result.findings]


def local(platform: Platform, number: int = 0) -> Path:
    """One of the data files of cold.trades."""
    return Path(urlsplit(sorted(data_files(platform.catalog().load_table("cold.trades")))[number]).path)


def test_cold_that_equals_the_log_passes(platform: Platform) -> None:
    filled(platform)
    said: list[Progress] = []
    result = audit(platform.catalog(), platform.log, on_progress=said.append)
    assert result.ok, result.findings
    assert {name: (one.rows, one.other_rows) for name, one in result.tables.items()} == {
        "trades": (21, 23),
        "frames": (10, 10),
        "gaps": (3, 3),
    }
    assert [one for one in said if one.done == one.total][-1] == Progress("gaps", 6, 6)


def test_an_empty_catalog_has_nothing_to_audit(platform: Platform) -> None:
    assert audited(platform) == ("log", {}, [], pytest.approx(0, abs=60))


def test_records_that_came_after_the_snapshot_are_not_asked_for(platform: Platform) -> None:
    filled(platform)
    platform.put_ids(range(11, 20))
    platform.put(trade(2, price="3"))  # once more, past the snapshot
    assert found(platform) == []


def test_rows_whose_file_was_taken_out_are_missing(platform: Platform) -> None:
    filled(platform)
    edit(platform.catalog(), lambda rows: [row for row in rows if row["trade_id"] not in (3, 9) or row["epoch"]])
    result = audited(platform, "trades")
    assert short(result) == [("missing", "BTC-USD", 0, 2, [3, 9]), ("hole", "BTC-USD", 0, 2, [3, 9])]
    missing = result.findings[0]
    assert missing.shown[0].text.startswith(
        "exchange kraken, symbol BTC-USD, native_symbol BTC/USD, epoch 0, trade_id 3"
    )
    assert missing.text == "2 rows of kraken BTC-USD are in the log and not in cold"


def test_a_row_that_stands_twice_is_found_with_its_files(platform: Platform) -> None:
    filled(platform)
    edit(platform.catalog(), lambda rows: rows + [row for row in rows if row["trade_id"] == 52] * 2)
    result = audited(platform, "trades")
    assert short(result) == [("doubled", "ETH-USDT", 0, 2, [52])]
    assert str(local(platform)) in result.findings[0].shown[0].text


def test_a_row_that_stands_in_two_files_is_found(platform: Platform) -> None:
    filled(platform)
    handle = platform.catalog().load_table("cold.trades")
    rows = [row for row in handle.scan().to_arrow().to_pylist() if row["trade_id"] == 52]
    files = write_files(handle, TRADES, pa.Table.from_pylist(rows, TRADES.arrow))
    with (
        handle.transaction() as change,
        change.update_snapshot(snapshot_properties=carried(handle)).fast_append() as append,
    ):
        append.append_data_file(files[0])
    (one,) = audited(platform, "trades").findings
    assert (one.kind, one.total) == ("doubled", 1)
    assert one.shown[0].text.count(".parquet") == 2


def test_one_changed_value_is_found_and_told(platform: Platform) -> None:
    changes: dict[int, tuple[str, object, str]] = {
        1: ("price", Decimal("61000.100000000000000001"), "61000.1 in the log, 61000.100000000000000001 in cold"),
        2: ("quantity", Decimal("0.00027624"), "0.00027625 in the log, 0.00027624 in cold"),
        3: ("side", "sell", "buy in the log, sell in cold"),
        4: ("source", "backfill", "live in the log, backfill in cold"),
        5: ("native_symbol", "XBT/USD", "BTC/USD in the log, XBT/USD in cold"),
        6: ("recv_ts_ns", 5, "5 in cold"),
        7: ("exchange_ts_ns", START_NS + 9, f"{START_NS + 9} in cold"),
        8: ("exchange_ts", datetime(2026, 1, 1, 1, tzinfo=UTC), "in cold"),
    }
    platform.put_ids(range(1, 10))
    platform.archiver().run()
    edit(
        platform.catalog(),
        lambda rows: [
            {**row, change[0]: change[1]} if (change := changes.get(row["trade_id"])) else row for row in rows
        ],
    )
    (one,) = audited(platform, "trades").findings
    assert (one.kind, one.symbol, one.total) == ("differs", "BTC-USD", 8)
    for row in one.shown:
        column, _, said = changes[row.id]
        assert row.text.startswith(f"{column}: ")
        assert said in row.text
        assert row.text.count(": ") == 1, "only what differs is told"


def test_a_trade_that_no_log_has_is_excess(platform: Platform) -> None:
    filled(platform)
    edit(platform.catalog(), lambda rows: rows + [{**row, "trade_id": 11} for row in rows if row["trade_id"] == 10])
    edit(
        platform.catalog(), lambda rows: rows + [{**row, "symbol": "XXX-USD"} for row in rows if row["trade_id"] == 50]
    )
    assert found(platform) == [
        ("excess", "XXX-USD", 0, 1, [50]),
        ("excess", "BTC-USD", 0, 1, [11]),
    ]


def test_a_file_that_is_cut_off_or_gone_is_named_and_its_rows_are_missing(platform: Platform) -> None:
    filled(platform)
    cut, gone = local(platform, 0), local(platform, -1)
    promised = sum(one.rows for one in data_files(platform.catalog().load_table("cold.trades")).values())
    cut.write_bytes(cut.read_bytes()[:-20])
    gone.unlink()
    result = audited(platform, "trades")
    named = [one.text for one in result.findings if one.kind == "file"]
    assert [str(cut) in named[0], str(gone) in named[1]] == [True, True]
    missing = sum(one.total for one in result.findings if one.kind == "missing")
    assert missing == promised - result.tables["trades"].rows > 0


def test_a_file_that_was_exchanged_for_a_shorter_one_is_named(platform: Platform) -> None:
    filled(platform)
    first, second = local(platform, 0), local(platform, 1)
    first.write_bytes(second.read_bytes())
    texts = [one.text for one in audited(platform, "trades").findings if one.kind in ("file", "misplaced")]
    assert any(str(first) in text for text in texts)


def test_rows_in_the_wrong_partition_are_named(platform: Platform) -> None:
    """Every row is there, but a reader that prunes by partition would not see those of this file."""
    filled(platform)
    handle = platform.catalog().load_table("cold.trades")
    files = [task.file for task in handle.scan("exchange = 'binance'").plan_files()]
    with (
        handle.transaction() as change,
        change.update_snapshot(snapshot_properties=carried(handle)).overwrite() as files_of,
    ):
        for file in files:
            files_of.delete_data_file(file)
    for file in files:
        file.partition[0] += 3
    with (
        handle.transaction() as change,
        change.update_snapshot(snapshot_properties=carried(handle)).fast_append() as append,
    ):
        for file in files:
            append.append_data_file(file)
    assert [one.kind for one in audited(platform, "trades").findings] == ["misplaced"] * len(files)


def test_cold_ahead_of_the_log_is_told(platform: Platform) -> None:
    filled(platform)
    end = platform.log.bounds(KRAKEN)[1]
    platform.log = MemoryLog()
    platform.put(*(trade(number, exchange="binance", symbol="ETH-USDT") for number in range(50, 60)))
    platform.put_ids([1, 2])
    findings = audited(platform, "trades").findings
    assert [(one.kind, one.total) for one in findings] == [
        ("ahead", end - 2),
        ("excess", 6),
        ("excess", 3),
    ]
    assert "cold claims to have it up to 13" in findings[0].text


def test_what_retention_took_from_between_log_and_cold_is_lost(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.put_ids(range(5))
    platform.archiver().run()
    platform.put_ids(range(5, 9))
    platform.log.commit("archiver", {KRAKEN: Position(7)})
    platform.log.retain(KRAKEN, 0.0, None, 2**62)
    (one,) = audited(platform, "trades").findings
    assert (one.kind, one.total) == ("lost", 2)


# -- retention: the log's oldest records are gone, cold has them ------------------------------------------------------


def _received(number: int, recv_ts: int, **changes: object) -> Trade:
    return trade(number, recv_ts=recv_ts, **changes)


def _retained(platform: Platform) -> int:
    """Ten trades of an hour ago, dropped from the log, and ten of an hour from now, kept. Returns the latter time."""
    later = time.time_ns() + 3600 * 10**9
    for number in range(1, 11):
        platform.put(_received(number, later - 7200 * 10**9))
    platform.put(_received(10, later - 7200 * 10**9, source="backfill"))  # again: the first one will be gone
    for number in range(11, 21):
        platform.put(_received(number, later))
    platform.archiver().run()
    platform.log.commit("archiver", {KRAKEN: Position(10)})
    assert platform.log.retain(KRAKEN, 0.0, None, 2**62) == 10
    return later


def test_what_the_log_dropped_is_not_missed_in_it(platform: Platform) -> None:
    _retained(platform)
    result = audited(platform, "trades")
    assert result.ok, result.findings
    assert (result.tables["trades"].rows, result.tables["trades"].other_rows) == (20, 11)


def test_after_retention_what_can_be_judged_is_judged(platform: Platform) -> None:
    later = _retained(platform)

    def broken(rows: list[Row]) -> Iterable[Row]:
        for row in rows:
            number = row["trade_id"]
            if number not in (10, 12):
                yield {**row, "side": "sell"} if number in (3, 15) else row  # 3 is in no log any more
            if number in (2, 14):
                yield row
        yield {**rows[-1], "trade_id": 21, "recv_ts_ns": later}
        yield {**rows[-1], "trade_id": 0, "recv_ts_ns": 77}  # it may have been in the log once

    edit(platform.catalog(), broken)
    assert found(platform) == [
        ("differs", "BTC-USD", 0, 1, [15]),
        ("doubled", "BTC-USD", 0, 2, [2, 14]),
        ("excess", "BTC-USD", 0, 1, [21]),
        ("missing", "BTC-USD", 0, 2, [10, 12]),
        ("hole", "BTC-USD", 0, 2, [10, 12]),
    ]


# -- frames and the ledger --------------------------------------------------------------------------------------------


def test_a_byte_of_a_frame_a_frame_less_and_one_too_many(platform: Platform) -> None:
    filled(platform)

    def broken(rows: list[Row]) -> list[Row]:
        changed = {4: {"payload": b"\x04\x00\xff" * 19 + b"\x04\x00\xfe"}, 5: {"request": "x"}}
        kept = [{**row, **changed.get(row["log_offset"], {})} for row in rows if row["log_offset"] != 7]
        return [*kept, {**rows[0], "log_offset": 99}]

    edit(platform.catalog(), broken, "frames")
    result = audited(platform, "frames")
    assert short(result) == [
        ("differs", "", 0, 2, [4, 5]),
        ("excess", "", 0, 1, [99]),
        ("missing", "", 0, 1, [7]),
    ]
    assert "payload: 0x0400FF" in result.findings[0].shown[0].text


def test_an_event_of_the_ledger_that_says_something_else(platform: Platform) -> None:
    filled(platform)
    more = [{"first_id": 7, "last_id": 9}]
    edit(platform.catalog(), lambda rows: [{**row, "missing": more} if row["missing"] else row for row in rows], "gaps")
    (one,) = audited(platform, "gaps").findings
    assert (one.kind, one.shown[0].id) == ("differs", 2)
    assert "missing: [(7,8)] in the log, [(7,9)] in cold" in one.shown[0].text


# -- dense ids --------------------------------------------------------------------------------------------------------


def test_a_hole_that_the_ledger_does_not_excuse(platform: Platform) -> None:
    platform.put_ids([4, 5, 8, 9, 20])
    platform.put_gaps(
        Gap("kraken", "BTC-USD", 2, 2, "start", "", START_NS, START_NS),
        Gap("kraken", "BTC-USD", 6, 7, "unavailable", "gone", START_NS, START_NS, ((6, 6),)),
        Gap("kraken", "BTC-USD", 10, 12, "open", "", START_NS, START_NS),
        Gap("kraken", "BTC-USD", 21, 22, "open", "announced", START_NS, START_NS),
        Gap("kraken", "ETH-USD", 7, 7, "start", "", START_NS, START_NS),
    )
    platform.archiver().run()
    one, other = audited(platform, "trades").findings
    assert (other.symbol, other.total, other.shown[0].id) == ("ETH-USD", 1, 7), "though cold has none of its trades"
    assert (one.kind, one.total) == ("hole", 15)
    assert [(row.id, row.text) for row in one.shown] == [
        (2, "to 3: the gap ledger does not know of it"),
        (7, "to 7: the gap ledger says unavailable"),
        (10, "to 19: the gap ledger says open"),
        (21, "to 22: the gap ledger says open"),
    ]


def test_a_hole_whose_trades_the_log_has_by_now_is_none(platform: Platform) -> None:
    platform.put_ids([1, 2, 5])
    platform.archiver().run()
    platform.put_ids([4, 3])
    assert found(platform) == []


# -- scope ------------------------------------------------------------------------------------------------------------


def test_a_scope_bounds_what_is_compared(platform: Platform) -> None:
    filled(platform)
    edit(platform.catalog(), lambda rows: [row for row in rows if row["trade_id"] not in (3, 9, 53) or row["epoch"]])
    first_day = date(2026, 1, 1)
    assert found(platform, scope=Scope("kraken", day=first_day)) == [
        ("missing", "BTC-USD", 0, 1, [3]),
        ("hole", "BTC-USD", 0, 1, [3]),
    ]
    second_day = Scope(symbol="BTC-USD", day=first_day + timedelta(days=1))
    assert [one[4] for one in found(platform, scope=second_day)] == [[9], [9]]


def test_ids_that_cross_midnight_out_of_order_are_no_hole_of_a_day(platform: Platform) -> None:
    midnight = START_NS + DAY_NS
    platform.put(*(trade(n, exchange_ts=midnight + (1 if n in (3, 5) else -1)) for n in range(1, 5)))
    platform.archiver().run()
    assert found(platform, scope=Scope(day=date(2026, 1, 1))) == []


# -- size -------------------------------------------------------------------------------------------------------------


class CutLog(MemoryLog):
    """A log from which a repair cut records 3 to 5 of a stream."""

    def read(self, stream: str, offset: int, max_bytes: int = 4 << 20) -> list[Batch]:
        read = super().read(stream, offset, max_bytes)
        return [batch for batch in read if stream != KRAKEN or not 3 <= batch.offset <= 5] or (
            self.read(stream, 6, max_bytes) if stream == KRAKEN and offset in (3, 4, 5) else []
        )


def test_records_that_a_repair_cut_out_shift_nothing(platform: Platform) -> None:
    platform.log = CutLog()
    platform.put_ids([*range(1, 4), 91, 92, 93, *range(4, 12)])
    platform.archiver().run()
    edit(platform.catalog(), lambda rows: [row for row in rows if row["trade_id"] != 8])
    assert found(platform) == [("missing", "BTC-USD", 0, 1, [8]), ("hole", "BTC-USD", 0, 1, [8])]


def test_random_damage_is_found_to_the_last_row(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several statements, files, blocks of ids and passes: their sums and what is named add up all the same."""
    for module in (log_side, sides):
        monkeypatch.setattr(module, "PIECE_ROWS", 97)
    draw = random.Random(3)
    block = 1 << BLOCK_BITS
    symbols = {"BTC-USD": block - 150, "ETH-USD": 3 * block - 20, "ADA-USD": 5}
    logged = [trade(first + i, symbol=symbol) for symbol, first in symbols.items() for i in range(300)]
    draw.shuffle(logged)
    again = draw.sample(logged, 40)
    platform.put(*logged, *again)
    platform.archiver(slice_rows=130).run()
    names = [(one.symbol, one.trade_id) for one in logged]
    chosen = draw.sample(names, 90)
    gone, doubled, changed = set(chosen[:30]), set(chosen[30:60]), set(chosen[60:])

    def broken(rows: list[Row]) -> Iterable[Row]:
        for row in rows:
            name = (row["symbol"], row["trade_id"])
            if name not in gone:
                yield {**row, "quantity": row["quantity"] * 2} if name in changed else row
            if name in doubled:
                yield row

    edit(platform.catalog(), broken)
    findings = [one for one in audited(platform, "trades").findings if one.kind != "hole"]
    for kind, expected in (("missing", gone), ("doubled", doubled), ("differs", changed)):
        named = {(one.symbol, row.id) for one in findings if one.kind == kind for row in one.shown}
        assert named == expected
        assert sum(one.total for one in findings if one.kind == kind) == 30


def test_a_record_that_is_no_trade_is_named(platform: Platform) -> None:
    platform.put_ids([1, 2, 3])
    platform.archiver().run()
    (batch,) = platform.log.read(KRAKEN, 2)
    cast(list[bytes], batch.values)[:] = [b'{"symbol":']
    platform.log._streams[KRAKEN].batches[2] = batch
    with pytest.raises(TierError, match=f"records from offset 0 of {KRAKEN} cannot be compared"):
        audited(platform, "trades")
