"""Snapshots as they are listed, which one a person means, and what changed between two: rows, never files."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from tests.tier.conftest import DAY_NS, START_NS, Platform, trade
from tests.tier.damage import edit

from k2.config import TierConfig
from k2.core.codec import trades_stream
from k2.core.types import Frame
from k2.tier import TierError
from k2.tier.keep.maintenance import Maintenance
from k2.tier.past.history import Change, Diff, diff, resolve, snapshots
from k2.tier.prove.digests import BLOCK_BITS
from k2.tier.prove.rowwise import SHOWN


def ids(platform: Platform, table: str = "trades") -> list[int]:
    return [one.snapshot_id for one in snapshots(platform.catalog(), table)]


def between(platform: Platform, first: int, last: int, table: str = "trades") -> Diff:
    """What changed between two snapshots, by their places in the list."""
    found = ids(platform, table)
    return diff(platform.catalog(), found[first], found[last], table)


def changed(found: Diff) -> list[tuple[object, ...]]:
    return [(one.kind, one.symbol, one.total, [row.id for row in one.shown]) for one in found.changes]


def test_snapshots_tell_what_each_commit_did(platform: Platform) -> None:
    with pytest.raises(TierError, match=r"there is no table cold\.trades: run `k2 archive` first"):
        snapshots(platform.catalog())
    platform.put_ids(range(1, 6))
    platform.archiver(slice_rows=3).run()
    edit(platform.catalog(), lambda rows: rows[:4])
    first, second, third = snapshots(platform.catalog())
    assert (first.operation, first.rows, first.added_rows, first.added_files, first.offsets) == (
        "append",
        3,
        3,
        1,
        {trades_stream("kraken"): 3},
    )
    assert (second.rows, second.files, second.added_rows, second.offsets) == (5, 2, 2, {trades_stream("kraken"): 5})
    assert (third.operation, third.rows, third.added_rows, third.removed_rows, third.removed_files) == (
        "overwrite",
        4,
        4,
        5,
        2,
    )
    assert third.bytes == sum(
        Path(task.file.file_path.removeprefix("file://")).stat().st_size
        for task in platform.catalog().load_table("cold.trades").scan().plan_files()
    )
    assert [one.current for one in (first, second, third)] == [False, False, True]
    assert first.time <= second.time <= third.time


def test_an_append_is_what_was_added(platform: Platform) -> None:
    platform.put_ids(range(1, 4))
    platform.archiver().run()
    platform.put(trade(4, price="9"), trade(1, symbol="ETH-USD"), trade(1, symbol="ETH-USD", epoch=1))
    platform.archiver().run()
    found = between(platform, 0, 1)
    assert changed(found) == [("added", "BTC-USD", 1, [4]), ("added", "ETH-USD", 1, [1]), ("added", "ETH-USD", 1, [1])]
    assert found.totals == {"added": 3}
    assert found.files_read == 1
    assert "price 9" in found.changes[0].shown[0].text
    back = between(platform, 1, 0)
    assert back.totals == {"removed": 3}
    assert between(platform, 1, 1) == Diff("trades", found.after, found.after, [], 0, [])


def test_a_compaction_is_no_difference(platform: Platform, tmp_path: Path) -> None:
    for first in range(0, 40, 4):
        platform.put_ids(range(first, first + 4))
        platform.archiver().run()
    before = ids(platform)[-1]
    files = len(platform.data_files())
    Maintenance(platform.catalog(), TierConfig(), lambda: START_NS + 9 * DAY_NS, "test", tmp_path / "spill").run()
    catalog = platform.catalog()
    found = diff(catalog, before, ids(platform)[-1])
    assert found.changes == []
    assert found.files_read == files + 1


def test_edits_are_told_apart(platform: Platform) -> None:
    platform.put_ids(range(1, 9))
    platform.archiver().run()
    edit(
        platform.catalog(),
        lambda rows: [
            *({**row, "price": Decimal(7)} if row["trade_id"] == 3 else row for row in rows if row["trade_id"] != 5),
            {**rows[0], "trade_id": 77},
            rows[7],
        ],
    )
    found = between(platform, 0, 1)
    assert changed(found) == [
        ("added", "BTC-USD", 1, [77]),
        ("changed", "BTC-USD", 1, [3]),
        ("doubled", "BTC-USD", 1, [8]),
        ("removed", "BTC-USD", 1, [5]),
    ]
    (change,) = (one for one in found.changes if one.kind == "changed")
    assert isinstance(change, Change)
    old, new = (f"snapshot {one}" for one in (found.before, found.after))
    assert f"price: 61000.1 in {old}, 7 in {new}" in change.shown[0].text


def test_many_rows_are_counted_and_the_first_shown(platform: Platform) -> None:
    platform.put_ids([1])
    platform.archiver().run()
    platform.put_ids(range(2, 3 * (1 << BLOCK_BITS), 99))
    platform.archiver().run()
    (one,) = between(platform, 0, 1).changes
    assert (one.kind, one.total) == ("added", len(range(2, 3 * (1 << BLOCK_BITS), 99)))
    assert [row.id for row in one.shown] == [2 + 99 * n for n in range(SHOWN)]


def test_frames_and_what_maintenance_derives_are_compared_as_well(platform: Platform, tmp_path: Path) -> None:
    platform.put_frames("kraken", Frame(START_NS, "ws", "c1", "", b"\xff"))
    platform.put_ids([1, 2])
    platform.archiver().run()
    platform.put_frames("kraken", Frame(START_NS, "ws", "c1", "", b"\xfe"))
    maintenance = Maintenance(
        platform.catalog(), TierConfig(), lambda: START_NS + 9 * DAY_NS, "test", tmp_path / "spill"
    )
    maintenance.run()
    platform.put(trade(0, price="5"))
    platform.archiver().run()
    maintenance.run()
    assert changed(between(platform, 0, -1, "frames")) == [("added", "", 1, [1])]
    minute = START_NS // 60_000_000_000
    candles = between(platform, 0, -1, "ohlcv_1m")
    assert changed(candles) == [("changed", "BTC-USD", 1, [minute])]
    assert "open: 61000.1 in snapshot" in candles.changes[0].shown[0].text
    (proof,) = between(platform, 0, -1, "proofs").changes
    assert proof.kind == "added"
    assert "revision 2" in proof.shown[-1].text


def test_a_moment_is_a_snapshot_a_time_or_how_long_ago(platform: Platform) -> None:
    for number in (1, 2, 3):
        platform.put_ids([number])
        platform.archiver().run()
    catalog = platform.catalog()
    first, second, third = snapshots(catalog)
    now = third.time * 10**6 + 3_600 * 10**9
    utc = datetime.fromtimestamp(second.time / 1000, UTC).isoformat(timespec="milliseconds")
    for text, expected in (
        (str(second.snapshot_id), second),
        (utc, second),
        (utc.replace("+00:00", "Z"), second),
        (utc.removesuffix("+00:00"), second),
        (str(first.time * 10**6), first),
        ("-1m", third),
        ("-1h", third),
    ):
        found = resolve(catalog, text, now_ns=now)
        assert (text, found.snapshot_id) == (text, expected.snapshot_id)
        assert found.timestamp_ms >= expected.time
    with pytest.raises(TierError, match=r"cold\.trades has no snapshot as old as .*: the oldest that is kept is of"):
        resolve(catalog, "-2h", now_ns=now)
    for text in ("yesterday", "12", "2026-13-01", "-5y", ""):
        with pytest.raises(TierError, match=r"is no snapshot of cold\.trades and no time"):
            resolve(catalog, text)
    with pytest.raises(TierError, match="has no snapshot 12: see `k2 archive snapshots`"):
        diff(catalog, 12, third.snapshot_id)
    with pytest.raises(TierError, match=r"there is no table cold\.nope: there are frames, gaps, trades"):
        snapshots(catalog, "nope")
    with pytest.raises(TierError, match=r"cold\.gaps has no snapshot yet"):
        resolve(catalog, "-1m", "gaps")
