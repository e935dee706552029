"""The hot store anew from the cold tier: trades of a span of time, every candle, the gap ledger and the newest frames.

The commit of what was restored carries cold's log offsets and the ids of all trades that cold has, so that a loader
goes on from there and lets nothing in twice. Older trades (and newer ones, where the span ends before the archive does)
are answered by cold, through the seam. Killed before its commit, nothing of it counts, and the next restore begins
again; killed after it, the next one puts the seam in place.
"""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from k2.config import EXCHANGES, Config
from k2.log import Log, Position
from k2.store import Store
from k2.store import seam as seams
from k2.store.commit import last_commit, take_over
from k2.store.pins import attach, newest, show
from k2.store.refill import GENERATION, SOURCE, Plan, Refill, plan, restored
from k2.store.seam import MINUTE
from k2.store.seen import Seen
from k2.tier.names import streams
from k2.wire import open_catalog, open_log, open_store, read_heads

if TYPE_CHECKING:
    from k2.tier.heads import Head

TABLES = ("trades", "frames", "gaps")
OWNER = "restore "  # and the ranges that cold is to answer for, as JSON: what the store remembers of a restore
DAY_NS = 86_400_000_000_000

Say = Callable[[str], None]
Ranges = tuple[tuple[int, int], ...]


class CannotRestoreError(Exception):
    """The store cannot be restored as things are; nothing was changed. The text says why and what to do."""


class Step(NamedTuple):
    """Rows of a table that are in place, and how many there will be."""

    table: str
    done: int
    total: int


class Restored(NamedTuple):
    """`cold` answers for these ranges of exchange times (ns, end exclusive), hot for all else.

    `left`: records that the log holds past what was restored, for the loader to load. `lost`: stream to the number of
    records that neither cold nor the log has.
    """

    trades: int
    candles: int
    frames: int
    gaps: int
    cold: Ranges
    left: int
    lost: Mapping[str, int]


def restore(
    config: Config,
    since: int | None,
    until: int | None,
    now_ns: int,
    without_log: bool = False,
    say: Say = lambda _: None,
    on_progress: Callable[[Step], object] = lambda _: None,
) -> Restored:
    """Fill the empty store with the trades of these exchange times (ns, whole minutes; `until` exclusive, None: all).

    The store must run, a loader must not. `without_log`: the log is lost as well, the store will only be read. Raises
    CannotRestoreError, TierError, StoreError, LogError, ConfigError.
    """
    heads = {name: head for name, head in read_heads(config).items() if head.snapshot_id is not None}
    if "trades" not in heads:
        raise CannotRestoreError(
            f"the cold tier of {config.data_dir} holds no trades: name the data folder that it lies in with --data"
        )
    log, store = open_log(config), open_store(config)
    try:
        with _no_loader(config):
            left, lost = _beyond(log, heads, without_log)
            if last_commit(store).generation:
                return _completed(config, store, heads, left, lost, say)
            found = _restore(config, store, heads, (since, until), now_ns, say, on_progress)
            if not without_log:
                log.commit("loader", {stream: Position(offset) for stream, offset in _positions(heads).items()})
            return found._replace(left=left, lost=lost)
    finally:
        store.close()
        log.close()


def window(now_ns: int, days: float) -> int | None:
    """Where hot would begin by itself: the UTC midnight `days` ago; None if nothing ever expires."""
    return int(now_ns - days * DAY_NS) // DAY_NS * DAY_NS if days else None


def _restore(
    config: Config,
    store: Store,
    heads: Mapping[str, "Head"],
    span: tuple[int | None, int | None],
    now_ns: int,
    say: Say,
    on_progress: Callable[[Step], object],
) -> Restored:
    say("reading which trades cold has")
    seen, known = _seen(config, heads["trades"])
    attach(store, {name: heads[name] for name in TABLES if name in heads}, SOURCE)
    within = _within(span)
    found = plan(store, within)
    if not found.rows == heads["trades"].rows == known:
        raise CannotRestoreError(
            f"cold.trades should hold {heads['trades'].rows} trades, and {known} different ones; {found.rows} were"
            " found: `k2 archive audit` tells what is wrong with it; restore what is damaged from a backup"
        )
    if not found.wanted:
        raise CannotRestoreError("cold has no trades in that span of time: name another with --since and --until")
    cold = _outside(span, found)
    owner = OWNER + msgspec.json.encode({"by": f"{socket.gethostname()}/{os.getpid()}", "cold": cold}).decode()
    incarnation, _ = take_over(store, owner, 0)
    refill = Refill(store, incarnation, seen)
    refill.clear()
    _trades(refill, found, within, on_progress)
    frames_since = now_ns - int(config.store.frames_days * DAY_NS) if config.store.frames_days else 0
    frames = _frames(refill, heads, frames_since, on_progress)
    gaps = refill.gaps() if "gaps" in heads else 0
    refill.commit(_positions(heads), found.wanted)
    _end(store, heads, cold)
    return Restored(found.wanted, _candles(store), frames, gaps, cold, 0, {})


def _trades(refill: Refill, found: Plan, within: str, on_progress: Callable[[Step], object]) -> None:
    done = 0
    for unit in found.units:
        if unit.wanted:
            refill.trades(unit, within)
            done += unit.wanted
            on_progress(Step("trades", done, found.wanted))
    refill.mark()
    done = 0
    for unit in found.units:
        refill.candles(unit)
        done += unit.rows
        on_progress(Step("trades as candles", done, found.rows))


def _frames(refill: Refill, heads: Mapping[str, "Head"], since_ns: int, on_progress: Callable[[Step], object]) -> int:
    if "frames" not in heads:
        return 0
    done = 0
    for rows, total in refill.frames(since_ns // 1_000):
        done += rows
        on_progress(Step("frames", done, total))
    return done


# -- the seam ----------------------------------------------------------------------------------------------------------


def _within(span: tuple[int | None, int | None]) -> str:
    since, until = span
    return seams.within([(since or 0, until if until is not None else 1 << 62)], "exchange_ts", 6)


def _outside(span: tuple[int | None, int | None], found: Plan) -> Ranges:
    """Where cold has trades that hot does not get."""
    since, until = span
    end = (found.newest_ts * 1_000 // MINUTE + 1) * MINUTE
    ranges = []
    if since is not None and found.oldest_ts * 1_000 < since:
        ranges.append((0, since))
    if until is not None and until < end:
        ranges.append((until, end))
    return tuple(ranges)


def _end(store: Store, heads: Mapping[str, "Head"], cold: Ranges) -> int:
    """Show the cold tables, and let cold answer where hot has nothing. Returns how many records the loader has to load
    before that can be; 0 if it is done."""
    shown = show(store, heads)
    if shown.behind:
        return sum(shown.behind.values())
    if cold:
        seams.move(store, GENERATION, cold, newest(store)["trades"].number)
    store.execute(f"DROP DATABASE IF EXISTS {SOURCE} SYNC")
    return 0


def _completed(
    config: Config, store: Store, heads: Mapping[str, "Head"], left: int, lost: Mapping[str, int], say: Say
) -> Restored:
    """The rest of a restore that was killed after its commit: its seam."""
    owners = store.rows(
        f"SELECT owner FROM k2.loaders WHERE startsWith(owner, '{OWNER}') ORDER BY incarnation DESC LIMIT 1"
    )
    trades = restored(store)
    cold: Ranges = msgspec.json.decode(str(owners[0][0]).removeprefix(OWNER), type=_Owner).cold if owners else ()
    if not trades or not cold or seams.read(store).version:
        ((held,),) = store.rows("SELECT count() FROM k2.silver_trades")
        raise CannotRestoreError(
            f"the store at {config.store_url} was loaded before (it holds {held} trades), and only an empty one is"
            f" restored: stop what runs on {config.data_dir}, move {config.store_dir} away, start `k2 store`, then try"
            " again"
        )
    say("a restore was killed just before its end: completing it")
    behind = _end(store, heads, cold)
    if behind:
        raise CannotRestoreError(
            f"the cold tier has gone on since the store was restored: let `k2 load` load the {behind} records that the"
            " store lacks, stop it, then run this again to complete the restore"
        )
    return Restored(trades, _candles(store), 0, 0, cold, left, lost)


class _Owner(msgspec.Struct):
    by: str
    cold: Ranges


def _candles(store: Store) -> int:
    return int(store.rows("SELECT count() FROM k2.ohlcv_1m")[0][0])


# -- the log and the loader --------------------------------------------------------------------------------------------


def _positions(heads: Mapping[str, "Head"]) -> dict[str, int]:
    return {stream: offset for name in TABLES if name in heads for stream, offset in heads[name].offsets.items()}


def _beyond(log: Log, heads: Mapping[str, "Head"], without_log: bool) -> tuple[int, dict[str, int]]:
    """How many records the log has past cold, and which were lost on the way."""
    left, lost, short = 0, {}, []
    positions = _positions(heads)
    bounds = {stream: log.bounds(stream) for names in streams(EXCHANGES).values() for stream in names}
    if not any(end for _, end in bounds.values()):
        if without_log:
            return 0, {}
        raise CannotRestoreError(
            "the log is gone as well: put it back, with its offsets, and try again. Without it the store can be filled"
            " for reading only (--without-log): loader and archiver refuse a log that begins anew in this folder, for"
            " cold already has other records under its offsets. Capture goes on in a new folder (k2 --data NEW up)"
        )
    for stream, (start, end) in bounds.items():
        offset = positions.get(stream, 0)
        if end < offset:
            short.append(f"{stream} ends at offset {end}, cold has it up to {offset}")
        elif start > offset > 0:
            lost[stream] = start - offset
        left += max(0, end - max(start, offset))
    if short:
        raise CannotRestoreError(
            f"this log and this cold tier do not belong together ({'; '.join(short)}): put the right log back. A store"
            " that was restored beside another log would take its first records for ones that it has"
        )
    return left, lost


@contextmanager
def _no_loader(config: Config) -> Iterator[None]:
    """Holds the loader's place in the data folder."""
    config.run_dir.mkdir(parents=True, exist_ok=True)
    with (config.run_dir / "loader.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CannotRestoreError(
                f"a loader runs on {config.data_dir}: stop it (and `k2 up`, which starts it), leave `k2 store` alone"
                " running, then try again"
            ) from None
        yield


def _seen(config: Config, head: "Head") -> tuple[Seen, int]:
    """The ids of all trades that cold has, and their number."""
    from k2.tier.past.known import identities_at

    identities = identities_at(open_catalog(config), head.metadata_location)
    return Seen.from_json(identities.to_text()), sum(ids.count for _, ids in identities.items())
