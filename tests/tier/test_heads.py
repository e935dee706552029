"""Heads: the same as PyIceberg says, without PyIceberg, and with words when something is broken."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tests.patience import PATIENCE_S
from tests.tier.conftest import Platform, trade

from k2.core.codec import trades_stream
from k2.core.types import Frame
from k2.tier import ForeignLog, TierError
from k2.tier.heads import behind, heads_of, read_heads

EXCHANGES = ("binance", "kraken")


def test_no_catalog_has_no_heads(tmp_path: Path) -> None:
    assert read_heads(tmp_path) == {}


def test_heads_are_what_pyiceberg_says(platform: Platform) -> None:
    platform.put_ids(range(7))
    platform.put_frames("kraken", Frame(1, "ws", "c1", "", b"x"))
    made = platform.archiver().run()
    heads = read_heads(platform.folder)
    assert heads == heads_of(platform.catalog())
    assert heads["trades"].snapshot_id == made["trades"].snapshot_id
    assert (heads["trades"].rows, heads["trades"].offsets) == (7, {trades_stream("kraken"): 7})
    assert (heads["gaps"].rows, heads["gaps"].snapshot_id, heads["gaps"].offsets) == (0, None, {})
    assert Path(heads["trades"].metadata_location.removeprefix("file://")).is_file()


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "kält 100%")
    platform.put_ids(range(3))
    platform.archiver().run()
    assert read_heads(platform.folder) == heads_of(platform.catalog())
    assert platform.ids() == [0, 1, 2]
    assert len(platform.data_files()) == 1


def test_a_folder_that_pyiceberg_takes_for_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TierError, match="cannot live in"):
        Platform(tmp_path / "data#1").catalog()


def test_heads_need_no_pyiceberg(platform: Platform) -> None:
    platform.put_ids(range(3))
    platform.archiver().run()
    code = (
        "import sys; from pathlib import Path; from k2.tier.heads import read_heads;"
        " print(read_heads(Path(sys.argv[1]))['trades'].rows, 'pyarrow' in sys.modules, 'pyiceberg' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(platform.folder)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert done.stdout.split() == ["3", "False", "False"]


def test_behind_counts_what_cold_lacks(platform: Platform) -> None:
    platform.put_ids(range(5))
    assert behind(platform.log, {}, EXCHANGES) == {"trades": 5}
    platform.archiver().run()
    assert behind(platform.log, read_heads(platform.folder), EXCHANGES) == {}
    platform.put(trade(9, exchange="binance"), trade(5))
    platform.put_frames("kraken", Frame(1, "ws", "c1", "", b"x"))
    assert behind(platform.log, read_heads(platform.folder), EXCHANGES) == {"trades": 2, "frames": 1}


def test_a_foreign_log_is_seen_without_pyiceberg(platform: Platform, tmp_path: Path) -> None:
    platform.put_ids(range(5))
    platform.archiver().run()
    other = Platform(tmp_path / "other")
    other.put_ids(range(2))
    with pytest.raises(ForeignLog, match="put the right log back"):
        behind(other.log, read_heads(platform.folder), EXCHANGES)


@pytest.mark.parametrize("broken", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_catalog_is_named(platform: Platform, broken: bytes) -> None:
    platform.put_ids([1])
    platform.archiver().run()
    (platform.folder / "catalog.db").write_bytes(broken)
    with pytest.raises(TierError, match=r"catalog\.db cannot be read .* restore"):
        read_heads(platform.folder)


@pytest.mark.parametrize("damage", ["truncated", "gone", "other json"])
def test_damaged_metadata_is_named(platform: Platform, damage: str) -> None:
    platform.put_ids([1])
    platform.archiver().run()
    file = Path(read_heads(platform.folder)["trades"].metadata_location.removeprefix("file://"))
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:300] if damage == "truncated" else b'{"last-updated-ms": "x"}')
    with pytest.raises(TierError, match=rf"cold\.trades .*{file.name}.* restore"):
        read_heads(platform.folder)


def test_a_catalog_locked_for_writing_is_read_all_the_same(platform: Platform) -> None:
    platform.put_ids([1])
    platform.archiver().run()
    other = sqlite3.connect(platform.folder / "catalog.db")
    try:
        other.execute("BEGIN IMMEDIATE")
        assert read_heads(platform.folder)["trades"].rows == 1
    finally:
        other.close()


KILLED_IN_ITS_COMMIT = """
import os, sqlite3, sys
c = sqlite3.connect(sys.argv[1])
c.execute("PRAGMA cache_size = 1")
c.execute("CREATE TABLE junk (x)")
c.executemany("INSERT INTO junk VALUES (?)", [("x" * 3000,)] * 2000)
c.execute("UPDATE iceberg_tables SET metadata_location = 'nowhere'")
os.kill(os.getpid(), 9)
"""


def test_a_writer_killed_in_the_middle_is_rolled_back(platform: Platform) -> None:
    platform.put_ids([1])
    platform.archiver().run()
    file = platform.folder / "catalog.db"
    subprocess.run([sys.executable, "-c", KILLED_IN_ITS_COMMIT, str(file)], timeout=PATIENCE_S, check=False)
    assert Path(f"{file}-journal").stat().st_size > 0, "the write was under way"
    assert read_heads(platform.folder)["trades"].rows == 1
