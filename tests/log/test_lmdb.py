"""What only the LMDB backend has: sharing within a process, full disks, damaged files, repair, bounded memory."""

import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from k2.log import Entry, LogCorrupt, LogError, LogFull, Position, environment
from k2.log.lmdb import LmdbLog
from k2.log.repair import repair

Run = Callable[..., dict[str, object]]


def one(values: list[bytes], stream: str = "a.b") -> list[Entry]:
    return [Entry(stream, ["K"] * len(values), values)]


def data_file(log_folder: Path, name: str = "a.b") -> Path:
    return log_folder / name / "data.mdb"


def overwrite(file: Path, found: bytes, instead: bytes, last: bool = True) -> None:
    data = file.read_bytes()
    at = data.rindex(found) if last else data.index(found)
    with file.open("r+b") as handle:
        handle.seek(at)
        handle.write(instead)


def test_logs_of_one_folder_share_one_environment_and_the_last_closes_it(tmp_path: Path) -> None:
    first, second = LmdbLog(tmp_path, 1 << 30), LmdbLog(tmp_path, 1 << 30)
    first.append(one([b"a"]))
    assert second.append(one([b"b"])) == {"a.b": 1}
    first.close()
    assert second.read("a.b", 1)[0].values == [b"b"]
    second.close()
    with (tmp_path / "a.b" / "lock.mdb").open("ab") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_caller_that_a_signal_tore_out_of_the_log_does_not_keep_it_from_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "CLOSE_WITHIN", 0.05)
    log = LmdbLog(tmp_path, 1 << 30)
    log.append(one([b"a"]))
    handles = log._pair("a.b")[0].acquire()
    log.close()
    assert handles is not None
    with handles.env.begin() as txn:  # whoever is inside after all is not cut off
        assert txn.stat(handles.trees[0])["entries"] == 1
    handles.env.close()


def test_callers_who_come_together_share_a_commit(lmdb_log: LmdbLog) -> None:
    lmdb_log.append(one([b"first"]))
    pair, _ = lmdb_log._pair("a.b")
    barrier = threading.Barrier(9)

    def write(i: int) -> None:
        barrier.wait()
        lmdb_log.append(one([b"%d" % i]))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    with pair._writing:
        barrier.wait()
        while len(pair._queue) < 8:
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    batches = lmdb_log.read("a.b", 0)
    assert [len(batch.values) for batch in batches] == [1, 8]
    assert {value for batch in batches for value in batch.values} == {b"first", *(b"%d" % i for i in range(8))}


def test_a_long_run_of_reading_and_writing_keeps_little_of_the_map(
    lmdb_log: LmdbLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "TOUCH_LIMIT", 1 << 20)
    lmdb_log.append(one([b"x" * 100_000] * 5))
    pair, _ = lmdb_log._pair("a.b")
    seen = set()
    for i in range(30):
        lmdb_log.append(one([b"%d" % i * 1000]))
        lmdb_log.read("a.b", 0)
        seen.add(id(pair._handles))
        assert pair._touched <= 1 << 20
    assert len(seen) > 1, "the environment was opened anew"
    assert lmdb_log.check("a.b") == 35


FULL_DISK = """
import json, resource, sys
from pathlib import Path
from k2.log import Entry, LogFull
from k2.log.lmdb import LmdbLog
log = LmdbLog(Path(sys.argv[1]), 1 << 30)
acknowledged, texts = 0, []
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
for i in range(200):
    try:
        log.append([Entry("a.b.raw", [""], [b"f%d" % i]), Entry("a.b", ["K"], [b"%d," % i + b"x" * 20_000])])
        acknowledged += 1
    except LogFull as error:
        texts.append(str(error))
        if len(texts) == 3:
            break
at_full = [log.bounds("a.b"), log.bounds("a.b.raw"), log.check("a.b")]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
after = log.append([Entry("a.b", ["K"], [b"later"])])["a.b"]
values = []
while batches := log.read("a.b", len(values)):
    values += [value.split(b",")[0].decode() for batch in batches for value in batch.values]
print(json.dumps([acknowledged, texts, at_full, after, values, log.check("a.b"), log.check("a.b.raw")]))
"""


def test_a_full_disk_refuses_the_append_keeps_what_was_acknowledged_and_recovers(
    tmp_path: Path, run_python: Run
) -> None:
    acknowledged, texts, at_full, after, values, end, frames = run_python(FULL_DISK, tmp_path)
    assert isinstance(acknowledged, int)
    assert 10 < acknowledged < 200
    assert at_full == [[0, acknowledged], [0, acknowledged], acknowledged]
    assert (after, end, frames) == (acknowledged, acknowledged + 1, acknowledged)
    assert values == [*map(str, range(acknowledged)), "later"]
    assert len(texts) == 3  # type: ignore[arg-type]
    assert all(str(tmp_path) in text and "free space" in text for text in texts)  # type: ignore[attr-defined]


def test_the_lock_file_has_its_place_on_the_disk_before_it_is_mapped(lmdb_log: LmdbLog, tmp_path: Path) -> None:
    lmdb_log.append(one([b"a"]))
    assert (tmp_path / "log" / "a.b" / "lock.mdb").stat().st_blocks * 512 >= 8192


def test_a_full_map_names_the_setting(tmp_path: Path) -> None:
    log = LmdbLog(tmp_path, 1 << 20)
    records = one([b"x" * 50_000])
    with pytest.raises(LogFull, match=r"raise log\.map_gb"):  # noqa: PT012
        for _ in range(100):
            log.append(records)
    end = log.bounds("a.b")[1]
    assert log.check("a.b") == end
    assert 5 < end < 100
    log.retain("a.b", None, 100_000, time.time_ns())
    assert log.append(one([b"again"])) == {"a.b": end}
    log.close()


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """Ten blocks of two records, each with its frames; a consumer has read thirteen."""
    log = LmdbLog(tmp_path, 1 << 30)
    for i in range(10):
        values = [b"<%d:%d>" % (i, j) * 300 for j in range(2)]
        log.append([Entry("a.b.raw", ["", ""], values), Entry("a.b", ["K", "L"], values)])
    log.commit("loader", {"a.b": Position(13)})
    log.close()
    return tmp_path


def reopened(folder: Path) -> LmdbLog:
    return LmdbLog(folder, 1 << 30)


def test_damage_in_the_last_block_is_found_at_start_with_the_valid_end_and_the_way_out(filled: Path) -> None:
    overwrite(data_file(filled), b"<9:1><9:1>", b"!")
    log = reopened(filled)
    with pytest.raises(LogCorrupt, match=r"whole up to offset 18 .*k2 streams --repair a\.b`") as caught:
        log.bounds("a.b")
    assert (caught.value.stream, caught.value.valid_end) == ("a.b", 18)
    with pytest.raises(LogCorrupt):
        log.append(one([b"more"]))
    log.close()


def test_damage_in_the_middle_is_found_by_reading_and_by_check(filled: Path) -> None:
    overwrite(data_file(filled), b"<4:0><4:0>", b"!")
    log = reopened(filled)
    with pytest.raises(LogCorrupt, match=r"block at offset 8 is damaged: its checksum") as caught:
        log.read("a.b", 0)
    with pytest.raises(LogCorrupt, match="k2 streams --repair") as checked:
        log.check("a.b")
    assert (caught.value.valid_end, checked.value.valid_end) == (8, 8)
    assert log.check("a.b.raw") == 20
    log.close()


@pytest.mark.parametrize("share", [0.0005, 0.3, 0.6, 0.9, 0.99])
def test_a_file_cut_short_is_refused_and_mended(filled: Path, share: float) -> None:
    file = data_file(filled)
    os.truncate(file, int(file.stat().st_size * share))
    damaged = file.read_bytes()
    log = reopened(filled)
    with pytest.raises(LogCorrupt, match=r"data\.mdb is damaged") as caught:
        log.read("a.b", 0)
    log.close()
    done = repair(filled, "a.b", 1 << 30)
    assert (done.aside / "data.mdb").read_bytes() == damaged
    log = reopened(filled)
    start, end = log.bounds("a.b")
    assert end >= 13, "offsets that a consumer has read are not given out again"
    assert log.append(one([b"new"])) == {"a.b": end}
    assert log.check("a.b") == end + 1
    kept = next(each for each in done.kept if each.stream == "a.b")
    assert (kept.start, kept.end) == (start, end)
    assert caught.value.valid_end in (kept.valid_end, 0)
    found = log.read("a.b", start)
    for batch in found[:-1]:
        assert batch.values == [b"<%d:%d>" % (batch.offset // 2, j) * 300 for j in range(2)]
    assert (found[-1].offset, found[-1].values) == (end, [b"new"])
    log.close()


def test_repair_keeps_the_longest_whole_run_goes_on_at_the_old_end_and_puts_the_damaged_file_aside(
    filled: Path,
) -> None:
    overwrite(data_file(filled), b"<7:1><7:1>", b"!")
    before = data_file(filled).read_bytes()
    done = repair(filled, "a.b.raw", 1 << 30)
    assert [(each.stream, each.start, each.valid_end, each.end) for each in done.kept] == [
        ("a.b", 0, 14, 20),
        ("a.b.raw", 0, 20, 20),
    ]
    assert done.aside == filled / "a.b.damaged-1"
    assert (done.aside / "data.mdb").read_bytes() == before
    log = reopened(filled)
    assert [info.stream for info in log.streams()] == ["a.b", "a.b.raw"]
    assert log.bounds("a.b") == (0, 20)
    assert log.read("a.b", 14) == []
    assert not log.wait({"a.b": 20}, 0.01)
    assert log.append(one([b"new"])) == {"a.b": 20}
    assert [(batch.offset, len(batch.values)) for batch in log.read("a.b", 12)] == [(12, 2), (20, 1)]
    assert [batch.offset for batch in log.read("a.b", 16)] == [20]
    assert log.check("a.b") == 21
    log.close()
    assert repair(filled, "a.b", 1 << 30).aside == filled / "a.b.damaged-2"


def test_repair_of_the_positions_keeps_the_furthest(filled: Path) -> None:
    log = reopened(filled)
    log.commit("archiver", {"a.b": Position(4, b"metadata")})
    log.close()
    file = data_file(filled, "_consumers")
    overwrite(file, b"metadata", b"!")
    log = reopened(filled)
    with pytest.raises(LogCorrupt, match="k2 streams --repair _consumers"):
        log.consumers()
    log.close()
    repair(filled, "_consumers", 1 << 30)
    log = reopened(filled)
    assert log.consumers() == {"loader": {"a.b": Position(13)}}
    log.close()


def test_repair_refuses_what_is_in_use_or_does_not_exist(filled: Path, run_python: Run) -> None:
    with pytest.raises(LogError, match="there is no stream nowhere"):
        repair(filled, "nowhere", 1 << 30)
    log = reopened(filled)
    log.bounds("a.b")
    with pytest.raises(LogError, match="open in this process"):
        repair(filled, "a.b", 1 << 30)
    script = """
import json, sys
from pathlib import Path
from k2.log import LogError
from k2.log.repair import repair
try:
    repair(Path(sys.argv[1]), "a.b", 1 << 30)
except LogError as error:
    print(json.dumps([str(error)]))
"""
    (text,) = run_python(script, filled)
    assert "is in use: stop K2 first" in text
    log.close()


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.b").mkdir()
    data_file(tmp_path).write_bytes(os.urandom(20_000))
    log = reopened(tmp_path)
    with pytest.raises(LogCorrupt, match="neither of its two meta pages"):
        log.bounds("a.b")
    log.close()


def test_a_block_of_another_stream_or_place_does_not_pass(filled: Path) -> None:
    with lmdb.open(str(filled / "a.b"), map_size=1 << 30, max_dbs=2, lib_version=0) as env:
        records, raw = env.open_db(b"records"), env.open_db(b"raw")
        with env.begin(write=True) as txn:
            key = (18).to_bytes(8, "big")
            value = txn.get(key, db=raw)
            assert value is not None
            txn.put(key, value, db=records)
    log = reopened(filled)
    with pytest.raises(LogCorrupt, match=r"last block of a\.b is not what was written"):
        log.bounds("a.b")
    log.close()


def test_a_lost_block_is_missed_by_check(filled: Path) -> None:
    with lmdb.open(str(filled / "a.b"), map_size=1 << 30, max_dbs=2, lib_version=0) as env:
        records = env.open_db(b"records")
        with env.begin(write=True) as txn:
            txn.delete((8).to_bytes(8, "big"), db=records)
    log = reopened(filled)
    with pytest.raises(LogCorrupt, match="records are missing after offset 8") as caught:
        log.check("a.b")
    assert caught.value.valid_end == 8
    log.close()


MUTATE = """
import json, random, shutil, sys
from pathlib import Path
from k2.log import Entry, LogError
from k2.log.lmdb import LmdbLog
source, chance = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
outcomes = []
for i in range(60):
    folder = source.with_name(f"m{i}")
    shutil.copytree(source, folder)
    with (folder / "a.b" / "data.mdb").open("r+b") as file:
        size = file.seek(0, 2)
        if chance.random() < 0.3:
            file.truncate(chance.randrange(size))
        else:
            file.seek(chance.randrange(size))
            file.write(chance.randbytes(chance.choice([1, 8, 200])))
    log = LmdbLog(folder, 1 << 30)
    for call in (lambda: log.check("a.b"), lambda: log.check("a.b.raw")):
        try:
            outcomes.append(call() == 20)
        except LogError:
            outcomes.append(None)
    log.close()
    shutil.rmtree(folder)
print(json.dumps([outcomes.count(True), outcomes.count(False), outcomes.count(None)]))
"""


def test_check_survives_any_damage_and_never_passes_a_wrong_stream(
    filled: Path, tmp_path: Path, run_python: Run
) -> None:
    copy = tmp_path / "copy" / "source"
    copy.parent.mkdir()
    (filled / "a.b").rename(copy.parent / "a.b")
    copy.mkdir()
    (copy.parent / "a.b").rename(copy / "a.b")
    whole, wrong, refused = run_python(MUTATE, copy, 5)
    assert wrong == 0
    assert whole, "a byte that nothing uses may change"
    assert refused
