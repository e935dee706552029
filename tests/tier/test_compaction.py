"""Compaction gives back the rows that it read, in order, whatever the files look like and others do meanwhile."""

import errno
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from tests.tier.conftest import START_NS, Platform, trade

from k2.core.codec import encode_trade, trades_stream
from k2.core.types import Frame, Gap, Trade
from k2.log import Batch
from k2.tier import TierError, durable
from k2.tier.catalog import open_table
from k2.tier.files import write_files
from k2.tier.keep import compact, merge, reading, writer
from k2.tier.keep.commits import Overtaken
from k2.tier.keep.reading import files_by_partition
from k2.tier.keep.spill import Spill
from k2.tier.offload import columns
from k2.tier.order import by_identity
from k2.tier.schema import FRAMES, GAPS, TABLES, TRADES, ColdTable
from k2.tier.watermark import carried

MB = 1 << 20


def due(platform: Platform, cold: ColdTable = TRADES, target: int = 128 * MB) -> list[compact.Due]:
    return list(compact.due(platform.catalog().load_table(cold.identifier), target))


def compact_all(platform: Platform, cold: ColdTable = TRADES, target: int = 128 * MB) -> list[DataFile]:
    works = due(platform, cold, target)
    with compact.Compaction(platform.catalog(), cold, platform.folder / "spill", target) as compaction:
        new = [file for work in works for file in compaction.rewrite(work)]
        compaction.commit()
    return new


def contents(platform: Platform, cold: ColdTable = TRADES) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = platform.catalog().load_table(cold.identifier).scan().to_arrow().to_pylist()
    return sorted(rows, key=lambda row: [str(row[name]) for name in ("exchange", *cold.sort)])


@pytest.fixture
def sliced(platform: Platform) -> Platform:
    """Twelve trades of two symbols in three files."""
    platform.put(*(trade(i, symbol=symbol) for i in (2, 1, 5, 3, 4, 6) for symbol in ("BTC-USD", "ADA-USD")))
    platform.archiver(slice_rows=4).run()
    return platform


# -- order -------------------------------------------------------------------------------------------------------------

ids = st.tuples(st.sampled_from(["BTC-USD", "ETH-USD", "ADA-USD"]), st.sampled_from([0, 0, 1]), st.integers(1, 40))
layouts = st.lists(
    st.tuples(st.sampled_from(["sorted", "as it comes"]), st.lists(ids, min_size=1, max_size=12)),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return open_table(Platform(tmp_path_factory.mktemp("cold")).catalog(), TRADES)


@settings(max_examples=25)
@given(layout=layouts)
def test_files_of_any_kind_come_out_in_order(table: Table, tmp_path_factory: Any, layout: list[Any]) -> None:
    files, expected = [], []
    for kind, keys in layout:
        found = list(dict.fromkeys(keys))
        expected += found
        files.append(_file(table, kind, [trade(number, symbol=name, epoch=epoch) for name, epoch, number in found]))
    folder = tmp_path_factory.mktemp("spill")
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in [
            (merge, "STEP_ROWS", 5),
            (merge, "OVERLAP_ROWS", 8),
            (merge, "LEAST_ROWS", 2),
            (merge, "TINY_ROWS", 4),
            (merge, "LOOKED_AT", 3),
            (merge, "PIECE_ROWS", 6),
            (reading, "PIECE_ROWS", 6),
            (merge, "Spill", partial(Spill, memory_bytes=2000)),
        ]:
            patch.setattr(module, name, value)
        try:
            pieces = list(merge.in_order(table, TRADES, files, folder))
        except merge.Disorder:
            assert any(kind == "as it comes" for kind, _ in layout)
            pieces = list(merge.in_order(table, TRADES, files, folder, trust=False))
    rows = pa.concat_tables([piece.rows for piece in pieces]).select(TRADES.sort).to_pylist()
    assert [tuple(row.values()) for row in rows] == sorted(expected)
    assert all({(row["symbol"], row["epoch"]) for row in _keys(piece)} == {piece.group} for piece in pieces)
    assert not list(folder.iterdir()), "what was put aside is gone"


def _keys(piece: merge.Piece) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = piece.rows.select(["symbol", "epoch"]).to_pylist()
    return found


def _file(table: Table, kind: str, trades: list[Trade]) -> DataFile:
    rows = columns.trades("kraken", Batch(trades_stream("kraken"), 0, 0, (), [encode_trade(one) for one in trades]))
    (file,) = write_files(table, TRADES, by_identity(rows) if kind == "sorted" else rows)
    return file


def test_files_that_do_not_overlap_are_not_put_aside(table: Table, tmp_path: Path) -> None:
    files = [_file(table, "sorted", [trade(i) for i in range(first, first + 5)]) for first in (11, 1, 6)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "Spill", None)
        pieces = list(merge.in_order(table, TRADES, files, tmp_path))
    assert [row for piece in pieces for row in piece.rows["trade_id"].to_pylist()] == list(range(1, 16))


# -- compaction --------------------------------------------------------------------------------------------------------


def test_small_files_become_one_sorted_and_nothing_else_changes(sliced: Platform) -> None:
    before = contents(sliced)
    old = sliced.catalog().load_table("cold.trades")
    (file,) = compact_all(sliced)
    table = sliced.catalog().load_table("cold.trades")
    assert contents(sliced) == before
    assert carried(table) == carried(old)
    assert files_by_partition(table) == {file.partition: [file]}
    assert file.record_count == 12
    stored = [row for rows in reading.read(table, TRADES, file) for row in rows.select(TRADES.sort).to_pylist()]
    assert [tuple(row.values()) for row in stored] == [
        (name, 0, i) for name in ("ADA-USD", "BTC-USD") for i in range(1, 7)
    ]
    assert due(sliced) == [], "a second time there is nothing to do"


def test_frames_and_gaps(platform: Platform) -> None:
    for i in range(3):
        platform.put_frames("kraken", Frame(START_NS + i, "ws", "c1", "", bytes([i, 0, 255])))
        platform.put_gaps(Gap("kraken", "BTC-USD", i, i + 1, "open", "", START_NS, START_NS, ((i, i + 1),)))
        platform.archiver().run()
    for cold in (FRAMES, GAPS):
        before = contents(platform, cold)
        (file,) = compact_all(platform, cold)
        assert contents(platform, cold) == before
        assert file.record_count == 3
        assert due(platform, cold) == []


def test_partitions_stay_apart(platform: Platform) -> None:
    day = 86_400 * 10**9
    for i in range(1, 4):
        platform.put(
            *(
                trade(i * 10 + n, exchange=e, exchange_ts=START_NS + n * day)
                for e in ("binance", "kraken")
                for n in (0, 1)
            )
        )
        platform.archiver().run()
    before = contents(platform)
    assert [len(work.files) for work in due(platform)] == [3, 3, 3, 3]
    compact_all(platform)
    assert contents(platform) == before
    assert sorted(map(len, files_by_partition(platform.catalog().load_table("cold.trades")).values())) == [1, 1, 1, 1]


def test_partitions_are_replaced_in_one_commit(platform: Platform) -> None:
    for _ in range(2):
        platform.put(
            *(trade(i, exchange=name) for i in (len(platform.log.streams()), 9) for name in ("binance", "kraken"))
        )
        platform.archiver(slice_rows=1).run()
    before, snapshots = contents(platform), len(platform.catalog().load_table("cold.trades").snapshots())
    assert [len(group) for group in compact.together(due(platform))] == [2]
    assert len(compact_all(platform)) == 2
    assert contents(platform) == before
    assert len(platform.catalog().load_table("cold.trades").snapshots()) == snapshots + 1


def test_partitions_are_replaced_together_up_to_a_size(sliced: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    (work,) = due(sliced)
    monkeypatch.setattr(compact, "TOGETHER_BYTES", 2 * work.bytes)
    assert list(compact.together([work] * 5)) == [[work] * 2, [work] * 2, [work]]


def test_what_is_not_committed_is_removed(sliced: Platform) -> None:
    before, files = contents(sliced), sliced.data_files()
    (work,) = due(sliced)
    with compact.Compaction(sliced.catalog(), TRADES, sliced.folder / "spill", 128 * MB) as compaction:
        compaction.rewrite(work)
        assert len(sliced.data_files()) == 4
    assert (contents(sliced), sliced.data_files()) == (before, files)


def test_files_are_cut_at_the_target_and_then_left_alone(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "ROW_GROUP", 200)
    platform.put_ids(range(3000))
    platform.archiver(slice_rows=250).run()
    new = compact_all(platform, target=7000)
    assert len(new) == 2
    assert [file.record_count % 200 for file in new] == [0, 0]
    assert due(platform, target=7000) == []
    platform.put_ids([3001])
    platform.archiver().run()
    assert len(due(platform, target=7000)) <= 1, "at most the last, smaller one is written again"
    assert all(len(work.files) == 2 for work in due(platform, target=7000))
    assert platform.ids() == [*range(3000), 3001]


def test_one_late_trade_does_not_move_a_partition(sliced: Platform) -> None:
    compact_all(sliced, target=64)
    sliced.put(trade(7))
    sliced.archiver().run()
    assert due(sliced, target=64) == []


def test_a_column_that_old_files_lack(sliced: Platform) -> None:
    with sliced.catalog().load_table("cold.trades").update_schema() as change:
        from pyiceberg.types import StringType

        change.add_column("note", StringType())
    (file,) = compact_all(sliced)
    assert {row["note"] for row in contents(sliced)} == {None}
    assert file.record_count == 12


# -- others at work ----------------------------------------------------------------------------------------------------


def _meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let `act` happen once, when the new files are written and not committed."""
    real = compact.replace_files

    def replace(*args: Any) -> Table:
        monkeypatch.setattr(compact, "replace_files", real)
        act()
        return real(*args)

    monkeypatch.setattr(compact, "replace_files", replace)


def test_an_offload_in_the_middle_is_kept_with_its_watermark(sliced: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    sliced.put(trade(7), trade(8))
    _meanwhile(monkeypatch, lambda: sliced.archiver(slice_rows=1).run())
    compact_all(sliced)
    assert sliced.ids() == sorted([*range(1, 7)] * 2 + [7, 8])
    assert sliced.archiver().offsets("trades") == {trades_stream("kraken"): 14}
    assert sliced.archiver().run()["trades"].commits == 0


def test_an_offload_between_load_and_commit_is_kept(sliced: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalog itself refuses the commit, for its head moved."""
    sliced.put(trade(7))
    (work,) = due(sliced)
    catalog = sliced.catalog()
    real, calls = catalog.commit_table, []

    def commit_table(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            sliced.archiver().run()
        return real(*args)

    monkeypatch.setattr(catalog, "commit_table", commit_table)
    with compact.Compaction(catalog, TRADES, sliced.folder / "spill", 128 * MB) as compaction:
        compaction.rewrite(work)
        compaction.commit()
    assert len(calls) == 2
    assert sliced.ids() == sorted([*range(1, 7)] * 2 + [7])
    assert sliced.archiver().offsets("trades") == {trades_stream("kraken"): 13}


def test_of_two_compactions_one_gives_way(sliced: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(sliced)
    _meanwhile(monkeypatch, lambda: compact_all(sliced))
    with pytest.raises(Overtaken, match="replaced by someone else"):
        compact_all(sliced)
    assert contents(sliced) == before
    assert len(due(sliced)) == 0
    assert len(_uncommitted(sliced)) == 0, "the files of the one that gave way are gone"


def _uncommitted(platform: Platform) -> set[Path]:
    """Data files that the slices and the current snapshot do not have."""
    table = platform.catalog().load_table("cold.trades")
    known = {
        entry.data_file.file_path.removeprefix("file://")
        for snapshot in table.snapshots()
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False)
    }
    return {path for path in platform.data_files() if str(path) not in known}


# -- what breaks -------------------------------------------------------------------------------------------------------


def test_a_truncated_file_is_named_and_the_table_stays(sliced: Platform) -> None:
    broken = sorted(sliced.data_files())[2]
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TierError, match=f"{broken.name} of cold.trades cannot be read.*restore it"):
        compact_all(sliced)
    broken.write_bytes(whole)
    assert len(sliced.ids()) == 12
    assert len(sliced.data_files()) == 3, "what was written until then is gone"
    assert len(compact_all(sliced)) == 1


def test_a_file_that_lost_rows_is_noticed(sliced: Platform) -> None:
    table = sliced.catalog().load_table("cold.trades")
    one, other = sorted(sliced.data_files())[:2]
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(other, partitioning=None).slice(1), other)
    with pytest.raises(TierError, match=f"{other.name} of cold.trades has 3 rows, its manifest says 4"):
        compact_all(sliced)
    assert one.exists()
    assert table.current_snapshot() == sliced.catalog().load_table("cold.trades").current_snapshot()


@pytest.mark.parametrize("where", ["put aside", "data file", "manifest"])
def test_a_full_disk_leaves_no_partial_file(sliced: Platform, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    before, files = contents(sliced), sliced.data_files()

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "put aside":
        monkeypatch.setattr(merge, "Spill", partial(Spill, memory_bytes=0))
        monkeypatch.setattr(pa.ipc, "new_file", full)
    elif where == "data file":
        monkeypatch.setattr(writer.pq.ParquetWriter, "write_table", full)
    else:
        monkeypatch.setattr("pyiceberg.table.update.snapshot.write_manifest_list", full)
    with pytest.raises(TierError, match="no space left: free some"):
        compact_all(sliced)
    assert sliced.data_files() == files
    assert contents(sliced) == before
    assert not any((sliced.folder / "spill").glob("*"))
    monkeypatch.undo()
    assert len(compact_all(sliced)) == 1


class _Full(io.BytesIO):
    """A file on a disk that has room for its first bytes only."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > len(b"PAR1"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_disk_that_fills_up_below_a_data_file(sliced: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only the rows cannot be written then, but neither the end of the file that is closed for it."""
    before, files = contents(sliced), sliced.data_files()
    real = durable._SyncedFile

    def full(path: str, mode: str) -> pa.NativeFile:
        return pa.PythonFile(_Full(), "w") if path.endswith(".parquet") else real(path, mode)

    monkeypatch.setattr(durable, "_SyncedFile", full)
    with pytest.raises(TierError, match="no space left: free some"):
        compact_all(sliced)
    assert (contents(sliced), sliced.data_files()) == (before, files)


def test_a_table_that_retries_commits_is_refused(sliced: Platform) -> None:
    with sliced.catalog().load_table("cold.trades").transaction() as change:
        change.set_properties({"commit.retry.num-retries": "4"})
    with pytest.raises(TierError, match="it must be 0"):
        compact_all(sliced)
    assert len(sliced.data_files()) == 3


def test_no_file_says_that_it_is_sorted(sliced: Platform) -> None:
    """ClickHouse takes several files that say so for one sorted stream, and leaves out the sorting of ORDER BY."""
    table = sliced.catalog().load_table("cold.trades")
    (slices,) = files_by_partition(table).values()
    assert {file.sort_order_id for file in [*slices, *compact_all(sliced)]} == {None}


def test_every_table_of_the_log_has_an_order_that_ends_in_a_number() -> None:
    for cold in TABLES.values():
        assert cold.arrow.field(cold.sort[-1]).type == pa.int64()
