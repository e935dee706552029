"""What breaks around an offload: each time words that say what and what to do, nothing lost, and a clean next run."""

import errno
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.tier.conftest import Platform

from k2.core.codec import frames_stream, trades_stream
from k2.core.types import Frame
from k2.tier import LostRecords, TierError, durable
from k2.tier.catalog import open_catalog
from k2.tier.heads import read_heads
from k2.tier.names import IDENTITIES
from k2.tier.offload.archiver import Archiver
from k2.tier.reach import protect

KRAKEN = trades_stream("kraken")


class Disk:
    """Storage that takes so many bytes more and then fails."""

    def __init__(self, room: int, number: int) -> None:
        self.room = room
        self.number = number

    def create(self, output: Any, overwrite: bool = False) -> pa.PythonFile:
        output._local.parent.mkdir(parents=True, exist_ok=True)
        return pa.PythonFile(_Sink(self, output._local), "wb")


class _Sink:
    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._file = path.open("wb")
        self.closed = False

    def write(self, data: Any) -> int:
        data = bytes(data)
        self._file.write(data[: max(0, self._disk.room)])
        self._disk.room -= len(data)
        if self._disk.room < 0:
            raise OSError(self._disk.number, os.strerror(self._disk.number))
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self.closed = True
        self._file.close()


@pytest.mark.parametrize(
    ("room", "number", "words"),
    [
        (0, errno.ENOSPC, "no space left"),
        (2_000, errno.ENOSPC, "no space left"),
        (6_000, errno.ENOSPC, "no space left"),
        (12_000, errno.ENOSPC, "no space left"),
        (100, errno.EROFS, "read-only"),
        (100, errno.EACCES, "permission"),
        (100, errno.EIO, "look at the disk"),
    ],
)
def test_storage_that_fails(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, room: int, number: int, words: str
) -> None:
    platform.put_ids(range(100))
    platform.archiver().run()
    platform.put_ids(range(90, 200))
    before = platform.data_files()
    with monkeypatch.context() as patch:
        disk = Disk(room, number)
        patch.setattr(durable._LocalOutput, "create", lambda output, overwrite=False: disk.create(output, overwrite))
        with pytest.raises(TierError, match=rf"archiving into cold\.trades failed: .*{words}.* run again"):
            platform.archiver().run()
    assert platform.ids() == list(range(100))
    if room < 4_000:
        assert platform.data_files() == before, "a truncated file would keep the disk full"
    platform.archiver().run()
    assert platform.ids() == list(range(200))


def test_a_catalog_locked_by_another_process(platform: Platform) -> None:
    platform.put_ids(range(5))
    platform.archiver().run()
    platform.put_ids(range(5, 9))
    impatient = open_catalog(platform.folder, {"uri": f"sqlite:///{platform.folder}/catalog.db?timeout=0.1"})
    other = sqlite3.connect(platform.folder / "catalog.db")
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TierError, match=r"cold\.trades failed: database is locked; another process holds"):
            Archiver(platform.log, impatient, ("kraken",)).run()
    finally:
        other.close()
    platform.archiver().run()
    assert platform.ids() == list(range(9))


def test_storage_that_goes_away_in_the_middle(platform: Platform) -> None:
    platform.put_ids(range(100))
    away = platform.folder / "elsewhere"
    with pytest.raises(TierError, match=r"cold\.trades failed: .*bring the storage back"):
        platform.archiver(slice_rows=40).run(lambda _: (platform.folder / "warehouse").rename(away))
    shutil.rmtree(platform.folder / "warehouse")
    away.rename(platform.folder / "warehouse")
    done = len(platform.ids())
    assert done in (40, 80)
    assert platform.archiver().run()["trades"].rows == 100 - done
    assert platform.ids() == list(range(100))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no catalog", r"catalog\.db.* cannot be opened: .*is there and whole"),
        (b"", r"knows no cold\.trades, but .*data: put the catalog's file back"),
        (None, r"knows no cold\.trades, but .*data: put the catalog's file back"),
    ],
)
def test_a_catalog_that_is_lost_or_no_database(platform: Platform, content: bytes | None, words: str) -> None:
    platform.put_ids(range(5))
    platform.archiver().run()
    catalog = platform.folder / "catalog.db"
    whole = catalog.read_bytes()
    catalog.unlink() if content is None else catalog.write_bytes(content)
    with pytest.raises(TierError, match=words):
        platform.archiver().run()
    catalog.write_bytes(whole)
    platform.put_ids([5])
    platform.archiver().run()
    assert platform.ids() == list(range(6))


@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_damaged_metadata_stops_the_run(platform: Platform, damage: str) -> None:
    platform.put_ids(range(5))
    platform.archiver().run()
    file = Path(read_heads(platform.folder)["trades"].metadata_location.removeprefix("file://"))
    whole = file.read_bytes()
    file.write_bytes(whole[:200]) if damage == "truncated" else file.unlink()
    with pytest.raises(TierError, match=r"cold\.trades cannot be opened: .*run again"):
        platform.archiver().run()
    file.write_bytes(whole)
    platform.put_ids([5])
    platform.archiver().run()
    assert platform.ids() == list(range(6))


@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_a_damaged_data_file_does_not_stop_new_records(platform: Platform, damage: str) -> None:
    platform.put_ids(range(50))
    platform.archiver().run()
    (file,) = platform.data_files()
    whole = file.read_bytes()
    file.write_bytes(whole[:500]) if damage == "truncated" else file.unlink()
    platform.put_ids(range(40, 60))
    assert platform.archiver().run()["trades"].rows == 10
    file.write_bytes(whole)
    assert platform.ids() == list(range(60))


@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_a_damaged_data_file_is_named_where_the_rows_must_tell(platform: Platform, damage: str) -> None:
    platform.put_ids(range(50))
    platform.archiver().run()
    (file,) = platform.data_files()
    with platform.catalog().load_table("cold.trades").transaction() as change:
        change.set_properties({IDENTITIES: "lost"})
    whole = file.read_bytes()
    file.write_bytes(whole[:500]) if damage == "truncated" else file.unlink()
    platform.put_ids(range(40, 60))
    with pytest.raises(TierError, match=file.name):
        platform.archiver().run()
    file.write_bytes(whole)
    platform.archiver().run()
    assert platform.ids() == list(range(60))


def test_foreign_files_are_let_be(platform: Platform) -> None:
    platform.put_ids(range(5))
    platform.archiver().run()
    root = platform.folder / "warehouse" / "cold" / "trades"
    (metadata,) = root.glob("metadata/00001-*.metadata.json")
    foreign = [root / "data" / "notes.txt", root / "metadata" / "99999-x.metadata.json", root / "data" / "x.parquet"]
    for file in foreign:
        file.write_bytes(metadata.read_bytes() if file.suffix == ".json" else b"foreign")
    platform.put_ids(range(3, 9))
    assert platform.archiver().run()["trades"].rows == 4
    assert platform.ids() == list(range(9))
    assert all(file.is_file() for file in foreign)


@contextmanager
def _clock(monkeypatch: pytest.MonkeyPatch, off_by_s: float) -> Iterator[None]:
    now: Callable[[], float] = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now() + off_by_s)
        yield


def test_a_clock_that_jumps_keeps_snapshots_in_order(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, off_by_s in enumerate([0, 86_400 * 30, -86_400, 0, 0]):
        platform.put_ids(range(number * 10, number * 10 + 20))
        with _clock(monkeypatch, off_by_s):
            platform.archiver(slice_rows=15).run()
    metadata = platform.catalog().load_table("cold.trades").metadata
    times = [snapshot.timestamp_ms for snapshot in metadata.snapshots]
    assert times == sorted(set(times))
    logged = [entry.timestamp_ms for entry in metadata.snapshot_log]
    assert logged == sorted(logged)
    assert platform.ids() == list(range(60))


def test_records_that_left_the_log_before_the_first_run_are_reported(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    platform.put_ids(range(10))
    assert platform.log.retain(KRAKEN, 0.0, None, 2**62) == 10
    assert platform.archiver().run()["trades"].missed == {}, "there is nothing to say it with yet"
    platform.put_ids(range(10, 14))
    written = platform.archiver().run()["trades"]
    assert (written.rows, written.missed, written.offsets) == (4, {KRAKEN: 10}, {KRAKEN: 14})
    assert f"begins at offset 10 of {KRAKEN}" in caplog.text
    caplog.clear()
    platform.put_ids([14])
    assert platform.archiver().run()["trades"].missed == {}
    assert not [record for record in caplog.records if record.name.startswith("k2")]


def test_protected_from_the_start_nothing_leaves_the_log(platform: Platform) -> None:
    streams = (KRAKEN, frames_stream("kraken"))
    protect(platform.log, streams)
    platform.put_ids(range(10))
    platform.put_frames("kraken", Frame(1, "ws", "c1", "", b"x"))
    assert [platform.log.retain(stream, 0.0, None, 2**62) for stream in streams] == [0, 0]
    platform.archiver().run()
    protect(platform.log, streams)
    assert [platform.log.retain(stream, 0.0, None, 2**62) for stream in streams] == [10, 1]


def test_the_log_waits_for_a_cold_tier_that_was_set_back(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.put_ids(range(5))
    platform.archiver().run()
    backup = platform.folder.with_name("backup")
    shutil.copytree(platform.folder, backup)
    platform.put_ids(range(5, 10))
    platform.archiver().run()
    shutil.rmtree(platform.folder)
    backup.rename(platform.folder)
    with monkeypatch.context() as patch:
        full = Disk(0, errno.ENOSPC)
        patch.setattr(durable._LocalOutput, "create", lambda output, overwrite=False: full.create(output, overwrite))
        with pytest.raises(TierError):
            platform.archiver().run()
    assert platform.log.retain(KRAKEN, 0.0, None, 2**62) == 5
    platform.archiver().run()
    assert platform.ids() == list(range(10))


def test_what_retention_takes_while_it_is_archived_is_named(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.put_ids(range(10))
    real = platform.log.read

    def late(stream: str, offset: int, max_bytes: int = 0) -> Any:
        platform.log.commit("archiver", {})
        monkeypatch.setattr(platform.log, "consumers", dict)
        platform.log.retain(stream, 0.0, None, 2**62)
        return real(stream, offset, max_bytes)

    monkeypatch.setattr(platform.log, "read", late)
    with pytest.raises(LostRecords, match="retention dropped it"):
        platform.archiver().run()
