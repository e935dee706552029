"""Letting go of old rows of the hot store, once the cold tier has them.

Trades go in three steps, and a crash between any two loses and doubles nothing: they are compared with the pinned
snapshot, by identity and in every column; the seam moves, and from then on cold answers for them (`seam.py`); they are
deleted, by a later run, when no question can be under way any more that began before. Frames are compared and deleted.
Candles and the gap ledger stay.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from k2.store import Store, StoreError
from k2.store import seam as seams
from k2.store.commit import last_commit
from k2.store.handover import (
    Difference,
    Known,
    cold_frames,
    cold_trades,
    differences,
    hot_frames,
    hot_trades,
    told,
)
from k2.store.pins import TRADES, Pin, covered, newest, show
from k2.store.rows import literal
from k2.store.seam import SNAPSHOTS, Seam

if TYPE_CHECKING:
    from k2.tier.heads import Head

DAY = 86_400_000_000_000
FRAMES = "frames"
_RAW = ".raw"
_STREAMS = "market.crypto.trades."

Ranges = tuple[tuple[int, int], ...]


class Step(NamedTuple):
    """What was done, or would be. `what`: `handed over`, `deleted`. `rows` of `table`, of one UTC day."""

    what: str
    table: str
    day: str
    rows: int


class Expiry(NamedTuple):
    """`steps` in order; `hot_from`: the exchange time (ns) from which on all trades are hot, 0 if all are."""

    steps: tuple[Step, ...]
    hot_from: int


class DaysDiffer(StoreError):
    """Hot and cold differ on some days, and these stay hot; all else was done, as `expiry` says."""

    def __init__(self, found: list[Difference], expiry: Expiry) -> None:
        super().__init__(
            f"hot and cold differ, so nothing of these days was let go of: {told(found)}. Compare them with the log"
            " (k2 archive audit), and mend the side that is wrong"
        )
        self.differences = found
        self.expiry = expiry


def expire(
    store: Store,
    heads: Mapping[str, "Head"],
    now_ns: int,
    trades_days: float,
    frames_days: float,
    dry_run: bool = False,
    grace_s: float = 120.0,
    on_step: Callable[[Step], object] = lambda _: None,
) -> Expiry:
    """Let go of whole UTC days older than so many days (0: of none), as far as the cold tier has them.

    `heads`: the cold tier's tables now; run the archiver before, so that they hold the newest. Trades are deleted at
    the earliest `grace_s` after they were handed over, which must be longer than a statement may take. A dry run
    compares and changes nothing. Raises DaysDiffer in the end if days differ, StoreError; after any error
    call it again.
    """
    return _Run(store, now_ns, dry_run, on_step).all(heads, trades_days, frames_days, grace_s)


class _Run:
    def __init__(self, store: Store, now_ns: int, dry_run: bool, on_step: Callable[[Step], object]) -> None:
        self._store = store
        self._now = now_ns
        self._dry_run = dry_run
        self._on_step = on_step
        self._steps: list[Step] = []
        self._differ: list[Difference] = []

    def all(self, heads: Mapping[str, "Head"], trades_days: float, frames_days: float, grace_s: float) -> Expiry:
        settled = self._settled(grace_s)
        if not self._dry_run:
            show(self._store, heads)
        pins = newest(self._store)
        if TRADES in pins:
            if settled:
                self._delete_trades()
            if trades_days > 0:
                self._hand_over(pins[TRADES], self._before(trades_days))
        if FRAMES in pins and frames_days > 0:
            self._let_go_of_frames(pins[FRAMES], self._before(frames_days))
        expiry = Expiry(tuple(self._steps), seams.read(self._store).end)
        if self._differ:
            raise DaysDiffer(self._differ, expiry)
        return expiry

    def _before(self, days: float) -> int:
        """The UTC midnight before which rows are old enough."""
        return max(0, int(self._now - days * DAY) // DAY * DAY)

    def _did(self, what: str, table: str, day: str, rows: int) -> None:
        step = Step(what, table, day, rows)
        self._steps.append(step)
        self._on_step(step)

    # -- trades --------------------------------------------------------------------------------------------------------

    def _settled(self, grace_s: float) -> bool:
        """The seam has held, and the view has shown it, for long enough."""
        seam, pin = seams.read(self._store), newest(self._store).get(TRADES)
        if not seam.ranges or seams.shown(self._store) != seams.described(seam, pin.number if pin else 0):
            return False
        age = self._store.rows(
            f"SELECT dateDiff('millisecond', moved_at, now64(6)) FROM k2.seams WHERE version = {seam.version}"
        )
        return int(age[0][0]) >= grace_s * 1000

    def _delete_trades(self) -> None:
        """What was handed over before this run. Late trades lie in the same partitions, so none is ever dropped."""
        seam = seams.read(self._store)
        gone = f"{seam.contains('exchange_ts')} AND generation <= {seam.generation}"
        days = self._store.rows(
            "SELECT toString(toDate(exchange_ts)) AS day, count() FROM k2.silver_base"
            f" WHERE {gone} GROUP BY day ORDER BY day"
        )
        if days:
            self._delete("k2.silver_base", gone)
        for day, rows in days:
            self._did("deleted", TRADES, day, int(rows))

    def _delete(self, table: str, condition: str) -> None:
        """One statement for all: what it costs is mostly that there is one."""
        if not self._dry_run:
            self._store.execute(f"ALTER TABLE {table} DELETE WHERE {condition} SETTINGS mutations_sync = 1")

    def _hand_over(self, pin: Pin, before: int) -> None:
        seam = seams.read(self._store)
        generation = max(seam.generation, covered(self._store, pin))
        region = seams.subtract([(0, before)], seam.ranges)
        commit = last_commit(self._store)
        known: Known = commit.seen.islands
        late = self._compare_late(pin, seam, generation, known)
        if self._differ:  # trades that only hot has would be hidden if the generation moved past them
            return
        days = self._days(pin, region, generation)
        kept: list[tuple[int, int]] = []
        handed = 0
        for day in days:
            rows, found = self._compare_day(pin, seams.intersect(region, day, day + DAY), day, generation, known)
            self._differ += found
            if found:
                kept.append((day, day + DAY))
            else:
                handed += 1
                self._did("handed over", TRADES, _name(day), rows)
        if (handed or late) and not self._dry_run:
            ranges = (*seam.ranges, *seams.subtract(region, kept)) if handed else seam.ranges
            seams.move(self._store, generation, ranges, pin.number)

    def _compare_late(self, pin: Pin, seam: Seam, generation: int, known: Known) -> int:
        """Trades that came after their range had been handed over. Returns their number."""
        if not seam.ranges:
            return 0
        late = f"{seam.contains('exchange_ts')} AND generation > {seam.generation} AND generation <= {generation}"
        total = 0
        for day, exchange, symbol in self._store.rows(
            "SELECT DISTINCT toRelativeDayNum(exchange_ts) AS day, exchange, symbol FROM k2.silver_base"
            f" WHERE {late} ORDER BY day, exchange, symbol"
        ):
            first = int(day) * DAY
            of = f"exchange = {literal(exchange)} AND symbol = {literal(symbol)}"
            ranges = seams.intersect(seam.ranges, first, first + DAY)
            hot = f"{of} AND {seams.within(ranges, 'exchange_ts')} AND {late}"
            cold = (
                f"{of} AND {seams.within(ranges, 'exchange_ts', 6)}"
                f" AND (epoch, trade_id) IN (SELECT epoch, trade_id FROM k2.silver_base WHERE {hot})"
            )
            rows, found = self._compare(pin, hot, cold, first, known)
            self._differ += found
            total += rows
            if not found:
                self._did("handed over", TRADES, _name(first), rows)
        return total

    def _days(self, pin: Pin, region: Ranges, generation: int) -> list[int]:
        """Every day of the region on which hot or cold has trades, in ns."""
        if not region:
            return []
        hot = f"{seams.within(region, 'exchange_ts')} AND generation <= {generation}"
        rows = self._store.rows(
            f"SELECT DISTINCT toRelativeDayNum(exchange_ts) FROM k2.silver_base WHERE {hot} UNION DISTINCT"
            f" SELECT DISTINCT toRelativeDayNum(exchange_ts) FROM {_table(pin)}"
            f" WHERE {seams.within(region, 'exchange_ts', 6)}"
        )
        return sorted(int(day) * DAY for (day,) in rows)

    def _compare_day(
        self, pin: Pin, ranges: Ranges, day: int, generation: int, known: Known
    ) -> tuple[int, list[Difference]]:
        """Trades newer than `generation` stay hot, so they do not count on either side."""
        hot = seams.within(ranges, "exchange_ts")
        newer = self._store.rows(f"SELECT count() FROM k2.silver_base WHERE {hot} AND generation > {generation}")
        cold = seams.within(ranges, "exchange_ts", 6)
        if newer[0][0]:
            cold += (
                " AND (exchange, symbol, epoch, trade_id) NOT IN (SELECT exchange, symbol, epoch, trade_id"
                f" FROM k2.silver_base WHERE {hot} AND generation > {generation})"
            )
        return self._compare(pin, f"{hot} AND generation <= {generation}", cold, day, known)

    def _compare(self, pin: Pin, hot: str, cold: str, day: int, known: Known) -> tuple[int, list[Difference]]:
        sides = hot_trades(hot), cold_trades(_table(pin), cold)
        return differences(self._store, TRADES, _name(day), *sides, known)

    # -- frames --------------------------------------------------------------------------------------------------------

    def _let_go_of_frames(self, pin: Pin, before: int) -> None:
        committed = last_commit(self._store).generation
        gone: list[tuple[str, Step]] = []
        for stream, offset in pin.offsets.items():
            exchange = stream.removeprefix(_STREAMS).removesuffix(_RAW)
            gone += self._old_frames(exchange, f"generation <= {committed} AND position < {offset}", offset, before)
        if gone:
            self._delete("k2.bronze_base", " OR ".join(f"({condition})" for condition, _ in gone))
        for _, step in gone:
            self._did(*step)

    def _old_frames(self, exchange: str, known: str, offset: int, before: int) -> Iterator[tuple[str, Step]]:
        """The condition for each day that cold has as hot has it."""
        of = f"exchange = {literal(exchange)}"
        old = f"{of} AND {known} AND {seams.within([(0, before)], 'recv_ts')}"
        for (number,) in self._store.rows(
            f"SELECT DISTINCT toRelativeDayNum(recv_ts) AS day FROM k2.bronze_base WHERE {old} ORDER BY day"
        ):
            day = int(number) * DAY
            hot = f"{of} AND {known} AND {seams.within([(day, day + DAY)], 'recv_ts')}"
            cold = f"{of} AND log_offset < {offset} AND {seams.within([(day, day + DAY)], 'recv_ts', 6)}"
            sides = hot_frames(hot), cold_frames(cold)
            rows, found = differences(self._store, FRAMES, _name(day), *sides, known=None)
            self._differ += found
            if not found:
                yield hot, Step("deleted", FRAMES, _name(day), rows)


def _table(pin: Pin) -> str:
    return f"{SNAPSHOTS}.{TRADES}_{pin.number}"


def _name(day: int) -> str:
    return datetime.fromtimestamp(day // 1_000_000_000, UTC).date().isoformat()
