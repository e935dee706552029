"""Maintenance as a whole: what goes, what stays, who may, and what a dry run says."""

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from tests.tier.conftest import DAY_NS, START_NS, Platform, trade

from k2.config import TierConfig
from k2.core.types import Frame
from k2.tier import TierError
from k2.tier.catalog import open_table
from k2.tier.keep import compact, lease, maintenance, orphans, snapshots, spill
from k2.tier.keep.lease import LEASE, Lease, LeaseHeld, read_lease, this_process
from k2.tier.keep.maintenance import Incomplete, Maintenance, Step
from k2.tier.keep.proof import read_proofs
from k2.tier.names import PINS
from k2.tier.schema import PROOFS, TRADES
from k2.tier.watermark import carried

UUID = "0b2a6f1c-7d0e-4a55-9a3f-2f9f0f7c1a11"
MINUTE_NS = 60 * 10**9


class Clock:
    """Turned by hand; begins at the machine's time."""

    def __init__(self) -> None:
        self.ns = time.time_ns()

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


def maintain(
    platform: Platform, clock: Any = time.time_ns, owner: str = "one", catalog: Catalog | None = None, **settings: Any
) -> Maintenance:
    return Maintenance(catalog or platform.catalog(), TierConfig(**settings), clock, owner, platform.folder / "spill")


@pytest.fixture
def filled(platform: Platform) -> Platform:
    """Two slices of trades and frames, of a day that is over."""
    for first in (1, 4):
        platform.put_ids(range(first, first + 3))
        platform.put_frames("kraken", Frame(START_NS + first, "ws", "c1", "", b"x"))
        platform.archiver().run()
    return platform


def files(platform: Platform, pattern: str = "*") -> set[Path]:
    return {path for path in (platform.folder / "warehouse").rglob(pattern) if path.is_file()}


def age(path: Path, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(path, (then, then))


def orphan(platform: Platform, name: str = f"data/{UUID}.parquet", hours: float = 48) -> Path:
    path = platform.folder / "warehouse" / "cold" / "trades" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"left over")
    age(path, hours)
    return path


# -- the whole ---------------------------------------------------------------------------------------------------------


def test_a_run_does_all_and_the_next_has_nothing_to_do(filled: Platform) -> None:
    left = orphan(filled)
    heard: list[Any] = []
    steps = maintain(filled).run(on_progress=heard.append)
    assert [(step.name, step.table, step.files_in, step.files_out, step.rows) for step in steps] == [
        ("orphans", "cold.trades", 1, 0, 0),
        ("compact", "cold.trades", 2, 1, 6),
        ("compact", "cold.frames", 2, 1, 2),
        ("seal", "cold.trades", 1, 1, 6),
    ]
    assert not left.exists()
    assert filled.ids() == list(range(1, 7))
    assert [proof.trade_count for proof in read_proofs(filled.catalog()).values()] == [6]
    assert heard[-1] == ("seal cold.trades 2026-01-01 kraken", 6, 6)
    assert maintain(filled).run() == []
    assert filled.archiver().run()["trades"].commits == 0


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(filled: Platform) -> None:
    orphan(filled)
    before = files(filled)
    steps = maintain(filled).run(dry_run=True)
    assert [(step.name, step.table, step.files_in, step.rows) for step in steps] == [
        ("orphans", "cold.trades", 1, 0),
        ("compact", "cold.trades", 2, 6),
        ("compact", "cold.frames", 2, 2),
        ("seal", "cold.trades", 2, 6),
    ]
    assert files(filled) == before


def test_a_cold_tier_that_is_empty(platform: Platform) -> None:
    assert maintain(platform).run(dry_run=True) == []
    assert maintain(platform).run() == []


def test_what_fails_is_told_and_the_rest_is_done(filled: Platform) -> None:
    broken = sorted(files(filled, "*.parquet") & set((filled.folder / "warehouse/cold/frames").rglob("*")))[0]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    with pytest.raises(Incomplete, match=f"1 of 3 steps failed.*{broken.name}") as failure:
        maintain(filled).run()
    assert [(step.name, step.table, bool(step.error)) for step in failure.value.steps] == [
        ("compact", "cold.trades", False),
        ("compact", "cold.frames", True),
        ("seal", "cold.trades", False),
    ]
    broken.write_bytes(whole)
    assert [step.table for step in maintain(filled).run()] == ["cold.frames"]


def test_a_full_disk_is_freed_of_orphans_before_anything_is_written(
    filled: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = orphan(filled)
    real = Lease.take

    def take(self: Lease) -> None:
        if left.exists():
            raise TierError("cold.proofs cannot be committed to: No space left on device") from OSError(
                errno.ENOSPC, ""
            )
        real(self)

    monkeypatch.setattr(Lease, "take", take)
    assert [step.name for step in maintain(filled).run()] == ["orphans", "compact", "compact", "seal"]


def test_what_a_killed_process_put_aside_is_removed(filled: Platform) -> None:
    stale = filled.folder / "spill" / "old" / "0.arrow"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"x")
    maintain(filled).run()
    assert not stale.exists()


def test_an_offload_between_the_steps(filled: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of every step a late trade of the closed day comes; the next run proves the day with them all."""
    number = [100]

    def before(module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(*args: Any, **more: Any) -> Any:
            monkeypatch.setattr(module, name, real)
            number[0] += 1
            filled.put(trade(number[0]))
            filled.archiver().run()
            return real(*args, **more)

        monkeypatch.setattr(module, name, call)

    for module, name in [
        (snapshots, "expire"),
        (orphans, "orphans"),
        (orphans, "remove_orphans"),
        (compact.Compaction, "rewrite"),
        (maintenance.seal, "_replace_candles"),
        (maintenance.seal, "_append_proofs"),
    ]:
        before(module, name)
    maintain(filled).run()
    monkeypatch.undo()
    assert number[0] == 106
    maintain(filled).run()
    assert filled.ids() == [*range(1, 7), *range(101, number[0] + 1)]
    (proof,) = read_proofs(filled.catalog()).values()
    assert proof.trade_count == len(filled.ids())
    assert maintain(filled).run(dry_run=True) == []


def test_a_damaged_partition_does_not_keep_the_others_from_being_compacted(platform: Platform) -> None:
    for first in (1, 4):
        platform.put(*(trade(i, exchange=name) for i in (first, first + 1) for name in ("binance", "kraken")))
        platform.archiver().run()
    broken = sorted((platform.folder / "warehouse/cold/trades").rglob("exchange=binance/*.parquet"))[0]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    with pytest.raises(Incomplete) as failure:
        maintain(platform).run()
    compacted = [step for step in failure.value.steps if step.name == "compact"]
    assert sorted((step.part[-7:], step.files_out, bool(step.error)) for step in compacted) == [
        ("=kraken", 1, False),
        ("binance", 0, True),
    ]
    broken.write_bytes(whole)
    assert [step.part[-7:] for step in maintain(platform).run() if step.name == "compact"] == ["binance"]
    assert platform.ids() == sorted([1, 2, 4, 5] * 2)


def test_manifests_are_merged_and_nothing_changes(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "MANIFESTS", 3)
    for number in range(1, 6):
        platform.put(trade(number, exchange_ts=START_NS + number * DAY_NS))
        platform.archiver().run()
    old = platform.catalog().load_table("cold.trades")
    with old.transaction() as change:
        change.remove_properties("commit.manifest-merge.enabled")
    steps = maintain(platform).run()
    assert Step("manifests", "cold.trades", files_in=5, files_out=1) in steps
    table = platform.catalog().load_table("cold.trades")
    assert carried(table) == carried(old)
    assert platform.ids() == [1, 2, 3, 4, 5]
    assert len(list(table.scan("exchange_ts >= '2026-01-05T00:00:00+00:00'").plan_files())) == 2
    assert platform.archiver().run()["trades"].commits == 0


# -- snapshots ---------------------------------------------------------------------------------------------------------


def test_snapshots_expire_by_age_but_the_newest_stay(platform: Platform, clock: Clock) -> None:
    for number in range(5):
        platform.put_ids([number])
        platform.archiver().run()
    table = platform.catalog().load_table("cold.trades")
    assert snapshots.expirable(table, clock(), 7, 1) == []
    clock.ns += 8 * DAY_NS
    limits = [(7, 3), (7, 1), (7, 0), (7, 10), (30, 1)]
    assert [len(snapshots.expirable(table, clock(), days, kept)) for days, kept in limits] == [2, 4, 4, 0, 0]
    assert snapshots.expire(platform.catalog(), TRADES, clock(), 7, 3) == 2
    left = platform.catalog().load_table("cold.trades")
    assert [one.snapshot_id for one in left.snapshots()] == [one.snapshot_id for one in table.snapshots()][-3:]
    assert platform.ids() == [0, 1, 2, 3, 4]
    assert platform.archiver().run()["trades"].commits == 0


def test_a_tagged_snapshot_stays(platform: Platform, clock: Clock) -> None:
    for number in range(3):
        platform.put_ids([number])
        made = platform.archiver().run()["trades"].snapshot_id
        if number == 0:
            assert made is not None
            platform.catalog().load_table("cold.trades").manage_snapshots().create_tag(made, "kept").commit()
    clock.ns += 8 * DAY_NS
    assert len(snapshots.expirable(platform.catalog().load_table("cold.trades"), clock(), 7, 1)) == 1


def test_files_of_expired_snapshots_go_when_they_are_old(filled: Platform, clock: Clock) -> None:
    slices = filled.data_files()
    maintain(filled).run()
    before = filled.data_files()
    for path in slices:
        age(path, 48)
    clock.ns += MINUTE_NS
    steps = maintain(filled, clock, snapshot_days=0, snapshots_kept=1).run()
    assert [(step.name, step.table) for step in steps if step.table == "cold.trades"] == [
        ("expire", "cold.trades"),
        ("orphans", "cold.trades"),
    ]
    assert len(slices) == 4
    assert filled.data_files() == before - slices
    assert filled.ids() == list(range(1, 7))


# -- orphans -----------------------------------------------------------------------------------------------------------


def test_old_files_that_nothing_refers_to_are_removed(filled: Platform) -> None:
    names = [
        f"data/exchange_ts_day=2026-01-01/exchange=kraken/{UUID}.parquet",
        f"data/00000-0-{UUID}.parquet",
        f"metadata/{UUID}-m0.avro",
        f"metadata/snap-1-0-{UUID}.avro",
        f"metadata/00099-{UUID}.metadata.json",
    ]
    old = {orphan(filled, name) for name in names}
    young = {orphan(filled, name.replace("0b2a", "1b2a"), hours=23) for name in names}
    future = {orphan(filled, name.replace("0b2a", "2b2a"), hours=-1000) for name in names}
    (step,) = [step for step in maintain(filled).run() if step.name == "orphans"]
    assert (step.files_in, step.bytes_in, step.foreign) == (5, 45, ())
    assert {path for path in old | young | future if path.exists()} == young | future


def test_foreign_files_are_named_and_stay(filled: Platform) -> None:
    names = ["notes.txt", "data/mine.parquet", "metadata/v1.metadata.json"]
    names += [f"{UUID}.parquet", f"data/{UUID}.csv", f"x/{UUID}.avro"]
    foreign = {str(orphan(filled, name)) for name in names}
    (step,) = [step for step in maintain(filled).run(dry_run=True) if step.name == "orphans"]
    assert (step.files_in, set(step.foreign)) == (0, foreign)
    maintain(filled).run()
    assert all(Path(path).exists() for path in foreign)


def test_what_the_store_shows_stays_though_its_snapshot_expired(filled: Platform, clock: Clock) -> None:
    table = filled.catalog().load_table("cold.trades")
    shown = {task.file.file_path.removeprefix("file://") for task in table.scan().plan_files()}
    metadata = Path(table.metadata_location.removeprefix("file://"))
    pin = metadata.parent.parent / PINS / metadata.name
    pin.parent.mkdir()
    pin.write_bytes(metadata.read_bytes())
    maintain(filled).run()
    for path in filled.data_files():
        age(path, 48)
    clock.ns += MINUTE_NS
    maintain(filled, clock, snapshot_days=0, snapshots_kept=1).run()
    assert shown <= {str(path) for path in filled.data_files()}
    pin.unlink()
    maintain(filled, clock, snapshot_days=0, snapshots_kept=1).run()
    assert not shown & {str(path) for path in filled.data_files()}


def test_a_clock_that_jumps_ahead_makes_no_young_file_old(filled: Platform, clock: Clock) -> None:
    """An archiver has just written its file, and not committed it yet, when the clock jumps by a month."""
    under_way = orphan(filled, hours=0)
    clock.ns += 30 * DAY_NS
    maintain(filled, clock).run()
    maintain(filled, clock).run()
    assert under_way.exists()
    assert filled.ids() == list(range(1, 7))


def test_a_file_that_a_commit_names_meanwhile_is_no_orphan(filled: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are listed before the table is loaded: what is committed between the two is neither missing nor removed."""
    real = orphans.listing
    filled.put(trade(7))

    def listing(table: Any) -> Any:
        found = real(table)
        if table.name()[-1] == "trades" and len(table.snapshots()) == 2:
            filled.archiver().run()
            for path in filled.data_files():
                age(path, 48)
        return found

    monkeypatch.setattr(orphans, "listing", listing)
    monkeypatch.setattr(compact, "due", lambda *_: iter(()))
    maintain(filled).run()
    assert len(filled.catalog().load_table("cold.trades").snapshots()) == 3
    assert filled.ids() == list(range(1, 8))


def test_nothing_is_removed_from_a_table_that_lacks_files(filled: Platform) -> None:
    left = orphan(filled)
    gone = sorted((filled.folder / "warehouse/cold/trades/data").rglob("exchange=kraken/*.parquet"))[0]
    gone.unlink()
    with pytest.raises(Incomplete, match=f"lacks 1 of its files, {gone} among them") as failure:
        maintain(filled).run()
    assert left.exists()
    assert {step.name for step in failure.value.steps if step.error} == {"orphans", "compact", "seal"}


# -- the lease ---------------------------------------------------------------------------------------------------------


def test_a_second_maintenance_is_told_who_has_the_lease(filled: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    real = compact.Compaction.rewrite
    told = []

    def meanwhile(*args: Any, **more: Any) -> Any:
        with pytest.raises(LeaseHeld, match="one maintains this cold tier, until 20") as held:
            maintain(filled, owner="two").run()
        told.append(held.value)
        return real(*args, **more)

    monkeypatch.setattr(compact.Compaction, "rewrite", meanwhile)
    assert len(maintain(filled).run()) == 3
    assert len(told) == 2
    assert maintain(filled, owner="two").run() == [], "it was given back"


@pytest.mark.parametrize(("after_s", "free"), [(0, False), (599, False), (600, True), (-3000, True)])
def test_a_lease_ends_with_its_time(platform: Platform, clock: Clock, after_s: int, free: bool) -> None:
    """Also if it was written by a clock that was far ahead and has been set back since."""
    Lease(platform.catalog(), clock, "one").take()
    clock.ns += after_s * 10**9
    other = Lease(platform.catalog(), clock, "two")
    if free:
        other.take()
    else:
        with pytest.raises(LeaseHeld):
            other.take()
    assert read_lease(open_table(platform.catalog(), PROOFS)).owner == ("two" if free else "one")


def test_a_lease_is_renewed_and_noticed_when_it_is_lost(platform: Platform, clock: Clock) -> None:
    mine = Lease(platform.catalog(), clock, "one")
    mine.take()
    first = read_lease(open_table(platform.catalog(), PROOFS)).until_ns
    mine.renew()
    assert read_lease(open_table(platform.catalog(), PROOFS)).until_ns == first
    clock.ns += 5 * MINUTE_NS
    mine.renew()
    assert read_lease(open_table(platform.catalog(), PROOFS)).until_ns == first + 5 * MINUTE_NS
    clock.ns += 11 * MINUTE_NS
    Lease(platform.catalog(), clock, "two").take()
    with pytest.raises(LeaseHeld, match="two maintains"):
        mine.renew()
    mine.give_back()
    assert read_lease(open_table(platform.catalog(), PROOFS)).owner == "two"


def test_of_two_that_take_it_at_once_one_gets_it(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = platform.catalog()
    open_table(catalog, PROOFS)
    real, calls = catalog.commit_table, []

    def commit_table(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            Lease(platform.catalog(), time.time_ns, "two").take()
        return real(*args)

    monkeypatch.setattr(catalog, "commit_table", commit_table)
    with pytest.raises(LeaseHeld, match="two maintains"):
        Lease(catalog, time.time_ns, "one").take()


def test_a_process_that_is_gone_holds_no_lease(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    alive = this_process()
    Lease(platform.catalog(), time.time_ns, alive).take()
    with pytest.raises(LeaseHeld):
        Lease(platform.catalog(), time.time_ns, "two").take()
    monkeypatch.setattr(lease, "_started", lambda pid: "")
    Lease(platform.catalog(), time.time_ns, "two").take()


def test_an_unreadable_lease_is_none(platform: Platform) -> None:
    with open_table(platform.catalog(), PROOFS).transaction() as change:
        change.set_properties({LEASE: "["})
    Lease(platform.catalog(), time.time_ns, "one").take()


def test_the_folder_for_spilling_is_emptied_though_it_is_missing(tmp_path: Path) -> None:
    spill.sweep(tmp_path / "none")
    assert not (tmp_path / "none").exists()
