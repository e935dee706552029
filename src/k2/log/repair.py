"""Mending a damaged stream: all whole blocks go into a new environment, the damaged one is kept beside it.

Offsets that were given out are never given out again: a consumer that has read past the damage would miss what takes
their place. So the stream goes on where it had come to, and its next block says which end it follows.
"""

import fcntl
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from k2.log import LogError, block
from k2.log.datafile import present, scan
from k2.log.environment import explain, in_use_here, shared, sync_folder
from k2.log.names import RAW, check_name
from k2.log.positions import FOLDER, Positions, decode
from k2.log.salvage import Link, longest_run, whole_blocks

_PUTS = 32  # blocks in one transaction


class Kept(NamedTuple):
    """What is left of a stream: `start`..`valid_end` is whole, the next record gets offset `end`."""

    stream: str
    start: int
    valid_end: int
    end: int


class Repair(NamedTuple):
    """`aside` is the folder that now holds the damaged environment."""

    aside: Path
    kept: list[Kept]


def repair(folder: Path, stream: str, map_bytes: int) -> Repair:
    """Mend a stream and its companion; `stream` may be the folder of the consumers' positions. Raises LogError."""
    folder = folder.resolve()
    positions = stream == FOLDER
    if not positions:
        check_name(stream)
    damaged = folder / stream.removesuffix(RAW)
    if not present(damaged / "data.mdb"):
        raise LogError(f"there is no stream {stream} in {folder}; `k2 streams` lists them")
    if in_use_here(damaged):
        raise LogError(f"{damaged} is open in this process: close the log first, then repair it")
    mended = folder / f"_repair-{damaged.name}"
    try:
        with (damaged / "lock.mdb").open("ab") as lock:
            _require_alone(lock, damaged)
            shutil.rmtree(mended, ignore_errors=True)
            mended.mkdir()
            build = _build_positions if positions else _build_pair
            kept = build(folder, damaged, mended, map_bytes)
            aside = _free_name(damaged)
            damaged.rename(aside)
            mended.rename(damaged)
            sync_folder(folder)
    except (lmdb.Error, OSError) as error:
        raise explain(error, mended, "written") from error
    return Repair(aside, kept)


def _require_alone(lock: Any, folder: Path) -> None:
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)  # whoever has the environment open holds this byte
    except OSError:
        raise LogError(f"{folder} is in use: stop K2 first, then repair it") from None


def _free_name(folder: Path) -> Path:
    number = 1
    while (aside := folder.with_name(f"{folder.name}.damaged-{number}")).exists():
        number += 1
    return aside


def _build_pair(folder: Path, damaged: Path, mended: Path, map_bytes: int) -> list[Kept]:
    streams = (damaged.name, damaged.name + RAW)
    seen = _positions_seen(folder, streams, map_bytes)
    with lmdb.open(str(mended), map_size=map_bytes, max_dbs=2, sync=False, lib_version=0) as env:
        trees = [env.open_db(name) for name in (b"records", b"raw")]
        for which, end in _copy(damaged, env, trees, streams).items():
            seen[which] = max(seen[which], end)
        kept = []
        for which, stream in enumerate(streams):
            with env.begin() as txn:
                run = longest_run(_links(txn.cursor(trees[which])))
            kept.append(_cut(env, trees[which], stream, run, seen[which]))
        env.sync(force=True)
    return [each for each in kept if each.end]


def _positions_seen(folder: Path, streams: tuple[str, ...], map_bytes: int) -> list[int]:
    """How far consumers have read."""
    positions = shared(folder / FOLDER, map_bytes, Positions)
    try:
        places = positions.all().values()
        return [max((at[stream].offset for at in places if stream in at), default=0) for stream in streams]
    finally:
        positions.close()


def _copy(damaged: Path, env: lmdb.Environment, trees: list[Any], streams: tuple[str, ...]) -> dict[int, int]:
    """Put every whole block into the new environment; of two with one offset the later. Returns the highest ends."""
    ends: dict[int, int] = {}
    blocks = whole_blocks(damaged / "data.mdb", streams)
    while chunk := list(islice(blocks, _PUTS)):
        with env.begin(write=True) as txn:
            for which, head, key, value in chunk:
                ends[which] = max(ends.get(which, 0), head.end)
                earlier = txn.get(key, db=trees[which])
                if earlier is None or block.header(key, earlier).append_ts < head.append_ts:
                    txn.put(key, value, db=trees[which])
    return ends


def _links(cursor: Any) -> Iterator[Link]:
    for key, value in cursor:
        head = block.header(key, value)
        yield Link(head.offset, head.length, head.follows)


def _cut(env: lmdb.Environment, tree: Any, stream: str, run: list[Link], seen: int) -> Kept:
    """Drop all blocks but those of the run; hold the place of the next one where offsets were given out already."""
    keep = {link.offset for link in run}
    with env.begin(write=True) as txn:
        cursor = txn.cursor(tree)
        more = cursor.first()
        total = last_ts = 0
        while more:
            head = block.header(*cursor.item())
            if head.offset in keep:
                total, last_ts = head.total if head.length else head.before, head.append_ts
                more = cursor.next()
            else:
                more = cursor.delete() and bool(cursor.key())
        start, valid_end = (run[0].offset, run[-1].offset + run[-1].length) if run else (0, 0)
        end = max(valid_end, seen)
        if end > valid_end:
            follows = valid_end if run else end
            txn.put(*block.encode(block.seed(stream), (), (), end, last_ts, follows, total), db=tree)
    return Kept(stream, start if run else end, valid_end if run else end, end)


def _build_positions(folder: Path, damaged: Path, mended: Path, map_bytes: int) -> list[Kept]:
    """Of every position the furthest that can be read: a stale one only lets its consumer read again."""
    best: dict[bytes, tuple[int, bytes]] = {}
    for key, value in scan(damaged / "data.mdb"):
        try:
            offset = decode(key, value)[2].offset
        except ValueError:
            continue
        best[key] = max(best.get(key, (-1, b"")), (offset, value))
    with lmdb.open(str(mended), map_size=min(map_bytes, 1 << 34), max_dbs=1, lib_version=0) as env:
        tree = env.open_db(b"positions")
        with env.begin(write=True) as txn:
            for key, (_, value) in best.items():
                txn.put(key, value, db=tree)
    return []
