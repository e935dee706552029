"""Keeping the cold tier: old snapshots go, orphans go, small files become sorted ones, closed days are sealed.

Call it daily, after an offload. It may be killed anywhere and run beside archivers and readers; what it left undone the
next run does. Space is freed first, so that a full disk does not keep it from freeing space.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from k2.config import TierConfig
from k2.tier import Progress, TierError
from k2.tier.catalog import open_table, tables_of
from k2.tier.keep import compact, orphans, seal, snapshots, spill
from k2.tier.keep.lease import Lease, LeaseHeld
from k2.tier.keep.proof import newest
from k2.tier.schema import DERIVED, PROOFS, TABLES, TRADES, ColdTable

_ALL = {**TABLES, **DERIVED}


class Step(NamedTuple):
    """One thing that was done, or that a dry run would do (what comes out of it is then 0).

    `name`: expire, orphans, compact, manifests or seal. `part`: the partition, or the sealed day and exchange.
    `files_in` (`bytes_in`) are those removed, replaced or merged, `files_out` (`bytes_out`) those in their place;
    `foreign`: files that do not belong there, which stay; `error`: why it was not done, "" if it was.
    """

    name: str
    table: str
    part: str = ""
    files_in: int = 0
    files_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    rows: int = 0
    snapshots: int = 0
    proofs: int = 0
    foreign: tuple[str, ...] = ()
    error: str = ""


class Incomplete(TierError):
    """Parts of a maintenance failed, the others were done. `steps` has both."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        failed = [step for step in steps if step.error]
        super().__init__(f"{len(failed)} of {len(steps)} steps failed; the first: {failed[0].error}")


class Maintenance:
    """Maintains all cold tables of a catalog. Single-threaded.

    `clock`: ns since 1970. `owner`: who holds the lease (`lease.this_process()`, so that the next one sees when a
    killed process is gone). `folder`: for rows that do not fit in memory, and for nothing else: it is emptied.
    """

    def __init__(
        self, catalog: Catalog, settings: TierConfig, clock: Callable[[], int], owner: str, folder: Path
    ) -> None:
        self._catalog = catalog
        self._settings = settings
        self._clock = clock
        self._folder = folder
        self._lease = Lease(catalog, clock, owner)
        self._target_bytes = settings.target_file_mb << 20
        self._steps: list[Step] = []
        self._on_progress: Callable[[Progress], object] = lambda _: None
        self._last_commit_ns = 0

    def run(self, dry_run: bool = False, on_progress: Callable[[Progress], object] | None = None) -> list[Step]:
        """Do all that is due, and return it; nothing due gives []. `dry_run` changes nothing and takes no lease.

        `on_progress` hears of rows compacted or sealed, `table` naming also what is done to which part of it. Raises
        LeaseHeld; Incomplete, when what can be done is done; TierError.
        """
        self._steps = []
        self._on_progress = on_progress or (lambda _: None)
        self._last_commit_ns = 10**6 * max(map(_last_commit_ms, tables_of(self._catalog).values()), default=0)
        if dry_run:
            self._plan()
        else:
            self._do()
        if any(step.error for step in self._steps):
            raise Incomplete(self._steps)
        return self._steps

    # -- what would be done --------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        days, kept = self._settings.snapshot_days, self._settings.snapshots_kept
        for cold, table in self._tables(_ALL):
            with self._step("expire", cold):
                if old := snapshots.expirable(table, self._clock(), days, kept):
                    self._steps.append(Step("expire", cold.identifier, snapshots=len(old)))
            self._remove_orphans(cold, dry_run=True)
            if cold.name in TABLES:
                with self._step("compact", cold):
                    for work in compact.due(table, self._target_bytes):
                        self._steps.append(_compaction(cold, table, work))
            with self._step("manifests", cold):
                if (count := snapshots.manifests(table)) > snapshots.MANIFESTS:
                    self._steps.append(Step("manifests", cold.identifier, files_in=count))
        with self._step("seal", TRADES):
            for day in self._unsealed():
                self._steps.append(_sealing(day))

    # -- doing it ------------------------------------------------------------------------------------------------------

    def _do(self) -> None:
        freed = self._take_lease()
        try:
            spill.sweep(self._folder)
            for cold, _ in self._tables(_ALL):
                self._expire(cold)
                if not freed:
                    self._remove_orphans(cold)
            for cold, table in self._tables(TABLES):
                self._compact(cold, table)
            self._seal()
            for cold, table in self._tables(_ALL):
                self._merge_manifests(cold, table)
        finally:
            self._lease.give_back()

    def _take_lease(self) -> bool:
        """True: orphans had to go first, without the lease: there was no space even for the commit that takes it."""
        try:
            self._lease.take()
        except LeaseHeld:
            raise
        except TierError:
            for cold, _ in self._tables(_ALL):
                self._remove_orphans(cold)
            self._lease.take()
            return True
        return False

    def _expire(self, cold: ColdTable) -> None:
        settings = self._settings
        with self._step("expire", cold):
            count = snapshots.expire(
                self._catalog, cold, self._clock(), settings.snapshot_days, settings.snapshots_kept
            )
            if count:
                self._steps.append(Step("expire", cold.identifier, snapshots=count))

    def _remove_orphans(self, cold: ColdTable, *, dry_run: bool = False) -> None:
        with self._step("orphans", cold):
            listed = orphans.listing(open_table(self._catalog, cold))
            table = open_table(self._catalog, cold)  # after the listing: what was committed meanwhile is referred to
            found = orphans.orphans(table, listed, self._clock(), self._settings.orphan_hours, self._last_commit_ns)
            if not dry_run:
                orphans.remove_orphans(table, found.old)
            if found.old or found.foreign:
                size = sum(file.bytes for file in found.old)
                step = Step("orphans", cold.identifier, files_in=len(found.old), bytes_in=size)
                self._steps.append(step._replace(foreign=tuple(found.foreign)))

    def _compact(self, cold: ColdTable, table: Table) -> None:
        with self._step("compact", cold):
            for group in compact.together(compact.due(table, self._target_bytes)):
                with compact.Compaction(self._catalog, cold, self._folder, self._target_bytes) as compaction:
                    self._compact_together(compaction, cold, table, group)

    def _compact_together(
        self, compaction: compact.Compaction, cold: ColdTable, table: Table, group: Sequence[compact.Due]
    ) -> None:
        done: list[Step] = []
        for work in group:
            step = _compaction(cold, table, work)
            with self._step("compact", cold, step.part):
                new = compaction.rewrite(work, self._hears(step, work.rows))
                size = sum(file.file_size_in_bytes for file in new)
                done.append(step._replace(files_out=len(new), bytes_out=size))
        with self._step("compact", cold, ", ".join(step.part for step in done)):
            compaction.commit()
            self._steps += done

    def _seal(self) -> None:
        with self._step("seal", TRADES):
            for day in self._unsealed():
                step = _sealing(day)
                with self._step("seal", TRADES, step.part):
                    hears = self._hears(step, day.rows)
                    done = seal.seal(self._catalog, day, self._folder, self._clock(), hears)
                    self._steps.append(step._replace(files_out=1, bytes_out=done.bytes, proofs=len(done.proofs)))
        with self._step("compact", PROOFS):
            if count := seal.tidy_proofs(self._catalog):
                self._steps.append(Step("compact", PROOFS.identifier, files_in=count, files_out=1))

    def _merge_manifests(self, cold: ColdTable, table: Table) -> None:
        with self._step("manifests", cold):
            before = snapshots.manifests(table)
            if before > snapshots.MANIFESTS:
                after = snapshots.manifests(snapshots.merge_manifests(self._catalog, cold))
                self._steps.append(Step("manifests", cold.identifier, files_in=before, files_out=after))

    # -- both ----------------------------------------------------------------------------------------------------------

    def _tables(self, kinds: dict[str, ColdTable]) -> list[tuple[ColdTable, Table]]:
        """Those that exist, as they are now."""
        found = tables_of(self._catalog)
        return [(cold, found[name]) for name, cold in kinds.items() if name in found]

    def _unsealed(self) -> Iterator[seal.Unsealed]:
        found = tables_of(self._catalog)
        if TRADES.name in found:
            proofs = newest(found[PROOFS.name]) if PROOFS.name in found else {}
            yield from seal.due(found[TRADES.name], proofs, self._clock(), self._settings.seal_after_s)

    @contextmanager
    def _step(self, name: str, cold: ColdTable, part: str = "") -> Iterator[None]:
        """Note what fails and go on with the rest, unless another maintenance has the lease now."""
        try:
            yield
        except LeaseHeld:
            raise
        except TierError as error:
            self._steps.append(Step(name, cold.identifier, part, error=str(error)))

    def _hears(self, step: Step, total: int) -> Callable[[int], None]:
        name = f"{step.name} {step.table} {step.part}"

        def hears(done: int) -> None:
            self._on_progress(Progress(name, done, total))
            self._lease.renew()

        return hears


def _compaction(cold: ColdTable, table: Table, work: compact.Due) -> Step:
    part = table.spec().partition_to_path(work.partition, table.schema())
    return Step("compact", cold.identifier, part, len(work.files), bytes_in=work.bytes, rows=work.rows)


def _sealing(day: seal.Unsealed) -> Step:
    return Step("seal", TRADES.identifier, f"{day.day} {day.exchange}", len(day.files), rows=day.rows)


def _last_commit_ms(table: Table) -> int:
    snapshot = table.current_snapshot()
    return snapshot.timestamp_ms if snapshot else 0
