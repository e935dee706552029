"""Kill -9 of a real process at every step of a maintenance: the next one completes it; no row is lost or doubled."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tier.conftest import START_NS, Platform, trade
from tests.tier.test_maintenance import age, maintain, orphan
from tests.tier.test_seal import stored

from k2.core.types import Frame
from k2.tier.keep.proof import read_proofs

# The n-th call of a function ends the process, before or after it has done its work.
CHILD = """
import importlib, os, sys, time
from pathlib import Path
from k2.config import TierConfig
from k2.tier.catalog import open_catalog
from k2.tier.keep.lease import this_process
from k2.tier.keep.maintenance import Maintenance

folder, target, when, nth = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
module, _, name = target.partition(":")
owner = importlib.import_module(module)
*path, name = name.split(".")
for part in path:
    owner = getattr(owner, part)
real, calls = getattr(owner, name), [0]

def call(*args, **more):
    calls[0] += 1
    if calls[0] == nth and when == "before":
        os.kill(os.getpid(), 9)
    answer = real(*args, **more)
    if calls[0] == nth:
        os.kill(os.getpid(), 9)
    return answer

setattr(owner, name, call)
settings = TierConfig(snapshot_days=0, snapshots_kept=1)
Maintenance(open_catalog(folder), settings, time.time_ns, this_process(), folder / "spill").run()
"""
COMMIT = "pyiceberg.catalog.sql:SqlCatalog.commit_table"  # 1: the lease; then expiry by table; then what follows
STEPS = [
    (COMMIT, "before", 1),
    (COMMIT, "after", 1),
    (COMMIT, "after", 2),
    ("k2.tier.keep.orphans:remove_orphans", "before", 1),
    ("k2.tier.keep.orphans:remove_orphans", "after", 1),
    ("k2.tier.keep.merge:_put_aside", "after", 1),
    ("k2.tier.keep.writer:FileWriter.finish", "before", 1),
    ("k2.tier.keep.writer:FileWriter.finish", "after", 1),
    ("k2.tier.keep.compact:replace_files", "before", 1),
    ("pyiceberg.table.update.snapshot:write_manifest_list", "after", 2),
    ("k2.tier.keep.compact:replace_files", "after", 1),
    ("k2.tier.keep.compact:replace_files", "after", 2),
    ("k2.tier.keep.seal:_written", "after", 1),
    ("k2.tier.keep.seal:_replace_candles", "after", 1),
    ("k2.tier.keep.seal:_append_proofs", "before", 1),
    ("k2.tier.keep.seal:_append_proofs", "after", 1),
    ("k2.tier.keep.lease:Lease.give_back", "before", 1),
]
SHORT = {("k2.tier.keep.seal:_replace_candles", "after", 1)}


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    """Two slices of trades and frames of a closed day, with duplicates, and an orphan."""
    platform = Platform(tmp_path / "cold")
    for first in (1, 4):
        platform.put(
            *(trade(i, symbol=name) for i in (first, first + 1, first + 2, first) for name in ("BTC-USD", "ADA-USD"))
        )
        platform.put_frames("kraken", Frame(START_NS + first, "ws", "c1", "", b"x"))
        platform.archiver().run()
    orphan(platform)
    return platform


@pytest.mark.parametrize(
    ("target", "when", "nth"),
    [
        pytest.param(*step, id="-".join(map(str, step)), marks=[] if step in SHORT else [pytest.mark.slow])
        for step in STEPS
    ],
)
def test_the_next_run_completes_a_killed_one(platform: Platform, target: str, when: str, nth: int) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(platform.folder), target, when, str(nth)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    ids = sorted([*range(1, 7)] * 2)
    assert platform.ids() == ids, "readers see all of it, whatever was going on"
    platform.put(trade(7))
    platform.archiver().run()
    maintain(platform, snapshots_kept=1, snapshot_days=0).run()
    assert platform.ids() == sorted([*ids, 7])
    assert {proof.symbol: proof.trade_count for proof in read_proofs(platform.catalog()).values()} == {
        "BTC-USD": 7,
        "ADA-USD": 6,
    }
    assert {row["symbol"]: row["trade_count"] for row in stored(platform)} == {"BTC-USD": 7, "ADA-USD": 6}
    assert not any((platform.folder / "spill").glob("*"))
    _only_what_is_needed(platform)


def _only_what_is_needed(platform: Platform) -> None:
    """When their time has come, the files that the killed process left are removed, and none that is needed."""
    for path in platform.data_files():
        age(path, 48)
    maintain(platform, snapshots_kept=1, snapshot_days=0).run()
    maintain(platform, snapshots_kept=1, snapshot_days=0).run()
    live = {
        task.file.file_path.removeprefix("file://")
        for name in ("trades", "frames", "gaps", "ohlcv_1m", "proofs")
        if platform.catalog().table_exists(f"cold.{name}")
        for task in platform.catalog().load_table(f"cold.{name}").scan().plan_files()
    }
    assert {str(path) for path in platform.data_files()} == live
