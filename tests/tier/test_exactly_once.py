"""Every trade of the log is in cold once, whatever is repeated, restarted, interrupted or done twice."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tier.conftest import Platform, trade

from k2.core.codec import trades_stream
from k2.core.types import Frame
from k2.log import Entry
from k2.log.memory import MemoryLog
from k2.tier import ArchiverConflict, BrokenRecord, ForeignLog, LostRecords, TierError
from k2.tier.heads import behind, read_heads
from k2.tier.names import IDENTITIES, OFFSETS
from k2.tier.offload import archiver
from k2.tier.watermark import carried, identities_of_rows, read_identities

KRAKEN = trades_stream("kraken")


class Crash(BaseException):
    """The process ends here."""


def test_a_second_run_takes_up_where_the_snapshot_ends(platform: Platform) -> None:
    platform.put_ids(range(1, 8))
    first = platform.archiver().run()["trades"]
    platform.put_ids(range(8, 11))
    second = platform.archiver().run()["trades"]
    assert (first.rows, second.rows) == (7, 3)
    assert second.offsets == {KRAKEN: 10} == platform.archiver().offsets("trades")
    assert platform.ids() == list(range(1, 11))


def test_nothing_new_makes_no_snapshot(platform: Platform) -> None:
    platform.put_ids(range(5))
    made = platform.archiver().run()["trades"].snapshot_id
    again = platform.archiver().run()["trades"]
    assert (again.snapshot_id, again.commits, again.rows) == (made, 0, 0)
    assert len(platform.catalog().load_table("cold.trades").snapshots()) == 1


def test_duplicates_in_one_slice_across_slices_and_across_runs(platform: Platform) -> None:
    platform.put_ids([1, 2, 2, 3, 1, 9, 8, 9])
    first = platform.archiver(slice_rows=3).run()["trades"]
    platform.put_ids([3, 4, 9, 7])
    second = platform.archiver().run()["trades"]
    assert platform.ids() == [1, 2, 3, 4, 7, 8, 9]
    assert (first.commits, second.commits) == (3, 1)
    assert (first.duplicates, second.duplicates) == (3, 2)


def test_of_equal_trades_the_first_in_the_log_stays(platform: Platform) -> None:
    platform.put(trade(5, source="backfill"), trade(4), trade(5, source="live"))
    platform.archiver().run()
    rows = platform.catalog().load_table("cold.trades").scan().to_arrow().to_pylist()
    assert [(row["trade_id"], row["source"]) for row in rows] == [(4, "live"), (5, "backfill")]


def test_the_same_id_in_another_epoch_symbol_or_exchange_is_another_trade(platform: Platform) -> None:
    platform.put(trade(1), trade(1, epoch=1), trade(1, symbol="ETH-USD"), trade(1, exchange="binance"), trade(1))
    assert platform.archiver().run()["trades"].rows == 4


@settings(max_examples=15)
@given(batches=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=12), max_size=3), rows=st.integers(3, 9))
def test_any_ids_in_any_slices(tmp_path_factory: Any, batches: list[list[int]], rows: int) -> None:
    platform = Platform(tmp_path_factory.mktemp("cold"))
    for ids in batches:
        platform.put_ids(ids)
        platform.archiver(slice_rows=rows).run()
    if batches:
        assert platform.ids() == sorted({number for ids in batches for number in ids})
        table = platform.catalog().load_table("cold.trades")
        assert identities_of_rows(table).to_text() == read_identities(table).to_text() == table.properties[IDENTITIES]


@pytest.mark.parametrize("step", ["before files", "after files", "before commit", "after commit"])
@pytest.mark.parametrize("at", [1, 2])
def test_a_crash_anywhere_loses_and_repeats_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, step: str, at: int
) -> None:
    platform.put_ids([*range(1, 10), 4, *range(20, 25), 2])
    catalog = platform.catalog()
    with monkeypatch.context() as patch:
        if step.endswith("files"):
            patch.setattr(archiver, "write_files", _crashing(archiver.write_files, step, at))
        else:
            patch.setattr(catalog, "commit_table", _crashing(catalog.commit_table, step, at))
        with pytest.raises(Crash):
            platform.archiver(slice_rows=6, catalog=catalog).run()
    platform.archiver(slice_rows=6).run()
    assert platform.ids() == [*range(1, 10), *range(20, 25)]
    assert platform.archiver().run()["trades"].commits == 0


def _crashing(real: Callable[..., Any], step: str, at: int) -> Callable[..., Any]:
    calls = 0

    def call(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at and step.startswith("before"):
            raise Crash
        answer = real(*args, **more)
        if calls == at:
            raise Crash
        return answer

    return call


def test_of_two_archivers_one_wins_and_the_other_says_so(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.put_ids(range(10))
    real = archiver.write_files
    slow = platform.archiver()

    def overtaken(*args: Any) -> Any:
        files = real(*args)
        monkeypatch.setattr(archiver, "write_files", real)
        platform.archiver().run()
        return files

    monkeypatch.setattr(archiver, "write_files", overtaken)
    with pytest.raises(ArchiverConflict, match=r"another archiver committed to cold\.trades"):
        slow.run()
    assert platform.ids() == list(range(10))
    assert len(platform.data_files()) == 1, "the loser's files are gone"
    platform.put_ids([10])
    assert slow.run()["trades"].rows == 1


def test_a_slice_gives_way_to_maintenance(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.put_ids(range(5))
    platform.archiver().run()
    platform.put_ids(range(5, 9))
    real = archiver.write_files

    def meanwhile(*args: Any) -> Any:
        table = platform.catalog().load_table("cold.trades")
        with table.transaction() as change, change.update_snapshot(snapshot_properties=carried(table)).fast_append():
            pass
        return real(*args)

    monkeypatch.setattr(archiver, "write_files", meanwhile)
    assert platform.archiver().run()["trades"].rows == 4
    assert platform.ids() == list(range(9))


def test_a_table_that_retries_commits_is_refused(platform: Platform) -> None:
    platform.put_ids([1])
    platform.archiver().run()
    with platform.catalog().load_table("cold.trades").transaction() as change:
        change.set_properties({"commit.retry.num-retries": "4"})
    platform.put_ids([2])
    with pytest.raises(TierError, match="it must be 0"):
        platform.archiver().run()


def test_after_a_rollback_the_rows_tell_what_is_there(platform: Platform) -> None:
    platform.put_ids([1, 2, 4])
    first = platform.archiver().run()["trades"]
    platform.put_ids([3, 5])
    platform.archiver().run()
    platform.catalog().load_table("cold.trades").manage_snapshots().rollback_to_snapshot(first.snapshot_id).commit()
    assert platform.ids() == [1, 2, 4]
    platform.archiver().run()
    assert platform.ids() == [1, 2, 3, 4, 5]


def test_a_snapshot_that_tells_no_offsets_is_refused(platform: Platform) -> None:
    platform.put_ids([1])
    platform.archiver().run()
    with platform.catalog().load_table("cold.trades").transaction() as change, change.update_snapshot().fast_append():
        pass
    with pytest.raises(TierError, match=OFFSETS):
        platform.archiver().run()


def test_a_log_that_does_not_belong_to_cold_is_refused(platform: Platform) -> None:
    platform.put_ids(range(5))
    platform.archiver().run()
    platform.log = MemoryLog()
    platform.put_ids(range(3))
    with pytest.raises(ForeignLog, match="put the right log back"):
        platform.archiver().run()


def test_a_log_begun_anew_is_refused_also_when_it_has_grown_past_cold(platform: Platform) -> None:
    platform.put_ids(range(5))
    platform.archiver().run()
    platform.log = MemoryLog()
    platform.put_ids(range(100, 110))
    for _ in range(2):
        with pytest.raises(ForeignLog, match="begun anew"):
            platform.archiver().run()
    with pytest.raises(ForeignLog, match="begun anew"):
        behind(platform.log, read_heads(platform.folder), ("binance", "kraken"))
    assert platform.ids() == [0, 1, 2, 3, 4]


def test_records_that_the_log_dropped_too_early_are_named(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.put_ids(range(5))
    platform.archiver().run()
    platform.put_ids(range(5, 10))
    monkeypatch.setattr(platform.log, "bounds", lambda stream: (7, 10) if stream == KRAKEN else (0, 0))
    with pytest.raises(LostRecords, match="begins at offset 7"):
        platform.archiver().run()


def test_retention_keeps_what_cold_lacks(platform: Platform) -> None:
    platform.put_ids(range(5))
    platform.archiver().run()
    platform.put_ids(range(5, 8))
    assert platform.log.retain(KRAKEN, 0.0, None, 2**62) == 5


def test_a_broken_record_is_named_and_nothing_goes_past_it(platform: Platform) -> None:
    platform.put_ids([1, 2])
    platform.log.append([Entry(KRAKEN, ["BTC-USD"], [b'{"symbol":'])])
    with pytest.raises(BrokenRecord, match=f"record 2 of {KRAKEN}"):
        platform.archiver().run()


def test_a_trade_in_the_wrong_stream_is_refused(platform: Platform) -> None:
    platform.put(trade(1, exchange="binance"))
    (batch,) = platform.log.read(trades_stream("binance"), 0)
    platform.log.append([Entry(KRAKEN, ["BTC-USD"], batch.values)])
    with pytest.raises(BrokenRecord, match=f"record 0 of {KRAKEN}"):
        platform.archiver().run()


def test_frames_are_kept_once_by_their_offset(platform: Platform) -> None:
    frames = [Frame(i, "ws", "c1", "", bytes([i, 0, 255])) for i in range(3)]
    platform.put_frames("kraken", *frames)
    platform.archiver(slice_rows=2).run()
    platform.put_frames("kraken", *frames)
    platform.archiver().run()
    rows = platform.catalog().load_table("cold.frames").scan().to_arrow().sort_by("log_offset").to_pylist()
    assert [row["log_offset"] for row in rows] == list(range(6))
    assert [row["payload"] for row in rows] == [frame.payload for frame in frames] * 2


def test_stop_ends_after_a_whole_slice(platform: Platform) -> None:
    platform.put_ids(range(1000))
    run = platform.archiver(slice_rows=100)
    seen: list[Any] = []
    run.run(seen.append, lambda: len(seen) == 1)
    assert [(step.table, step.total) for step in seen] == [("trades", 1000)]
    assert len(platform.ids()) == seen[0].done < 1000
    run.run()
    assert platform.ids() == list(range(1000))
