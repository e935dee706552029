"""kill -9 of a real process at every step of an offload; the next run completes it."""

import signal
from pathlib import Path

import pytest
from tests.patience import PATIENCE_S
from tests.tier import processes
from tests.tier.conftest import trade
from tests.tier.processes import FORK, archive, start

from k2.core.codec import encode_trade, trades_stream
from k2.core.types import Trade
from k2.log import Entry
from k2.log.lmdb import LmdbLog
from k2.tier.catalog import open_catalog
from k2.tier.heads import behind, read_heads

STREAM = trades_stream("kraken")
IDS = [*range(1, 60), 5, 17, *range(58, 101), 3]


def put(folder: Path, trades: list[Trade]) -> None:
    log = LmdbLog(folder / "log", map_bytes=1 << 28)
    log.append([Entry(STREAM, [one.symbol for one in trades], [encode_trade(one) for one in trades])])
    log.close()


def ids(folder: Path) -> list[int]:
    table = open_catalog(folder / "cold").load_table("cold.trades")
    return sorted(table.scan(selected_fields=("trade_id",)).to_arrow()["trade_id"].to_pylist())


@pytest.mark.parametrize(
    ("step", "when", "call"),
    [
        ("the data files", "before", 1),
        ("a data file's bytes", "in", 2),
        ("the data files", "after", 2),
        ("the manifests", "after", 1),
        ("the metadata file", "before", 5),
        ("the metadata file", "after", 5),
        ("the commit", "before", 2),
        ("the commit", "after", 2),
        ("the log's position", "before", 1),
        ("the log's position", "after", 2),
    ],
)
def test_killed_anywhere_the_next_run_completes(tmp_path: Path, step: str, when: str, call: int) -> None:
    put(tmp_path, [trade(number) for number in IDS])
    child = start(processes.die, tmp_path, step, when, call)
    child.join(60)
    assert child.exitcode == -signal.SIGKILL, f"it was not killed {when} {step}"
    archive(tmp_path)
    assert ids(tmp_path) == list(range(1, 101))
    log = LmdbLog(tmp_path / "log", map_bytes=1 << 28)
    assert behind(log, read_heads(tmp_path / "cold"), ("kraken",)) == {}
    assert log.committed("archiver")[STREAM].offset == len(IDS)
    log.close()
    assert archive(tmp_path)["trades"].commits == 0


def test_two_archivers_at_once_write_everything_once(tmp_path: Path) -> None:
    put(tmp_path, [trade(number) for number in range(400)])
    both, says = FORK.Barrier(2), FORK.Queue()
    children = [start(processes.compete, tmp_path, both, says) for _ in range(2)]
    said = [says.get(timeout=60) for _ in children]
    for child in children:
        child.join(PATIENCE_S)
    assert any(word.startswith("wrote") for word in said), said
    for word in said:
        assert word.startswith(("wrote", "ArchiverConflict: another archiver")), said
    archive(tmp_path)
    assert ids(tmp_path) == list(range(400))


def test_a_file_that_may_not_grow_is_explained_and_leaves_nothing(tmp_path: Path) -> None:
    put(tmp_path, [trade(number, symbol=f"{number * 7919:x}-USD") for number in range(6000)])
    says = FORK.Queue()
    child = start(processes.outgrow, tmp_path, 40_000, says)
    said = says.get(timeout=60)
    child.join(PATIENCE_S)
    assert "archiving into cold.trades failed" in said
    assert "raise the limit" in said
    assert not list(tmp_path.rglob("*.parquet"))
    archive(tmp_path, 10_000)
    assert ids(tmp_path) == list(range(6000))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_backlog(tmp_path: Path) -> None:
    used = {}
    for slices in (40, 120):  # the first slices warm allocators and caches up: by 40 that is over
        folder = tmp_path / str(slices)
        for first in range(0, slices * 5000, 5000):
            put(folder, [trade(number) for number in range(first, first + 5000)])
        says = FORK.Queue()
        child = start(processes.weigh, folder, 5000, says)
        rows, commits, used[slices] = says.get(timeout=110)
        child.join(PATIENCE_S)
        assert (rows, commits) == (slices * 5000, slices)
    assert used[120] < 1.25 * used[40]
