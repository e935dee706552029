"""The cold tables as the hot store shows them: each pinned to one snapshot, the one that the catalog names.

ClickHouse reads an Iceberg table by its metadata file and knows nothing of catalogs, so the file is named (left alone,
it would take the one with the highest number, committed or not). Whoever has committed to the cold tier calls `show`.
`cold.*` is what people ask; `k2.trades` reads tables of its own (`cold_pins.trades_N`), so that a pin changes for it
together with the seam.
"""

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from k2.core.codec import GAPS_STREAM
from k2.store import Store, StoreError
from k2.store import seam as seams
from k2.store.rows import literal
from k2.store.seam import SNAPSHOTS, Seam
from k2.tier.names import PINS

if TYPE_CHECKING:
    from k2.tier.heads import Head

TRADES = "trades"
KEPT_S = 60  # a pin that was replaced stays so long, for questions whose planning began before
_MARKS = 500  # of the newest pins: where the loader stood when they were made
_LOOK_S = 0.2
_PLAIN = re.compile(r"[a-z][a-z0-9_]*\Z")


class Pin(NamedTuple):
    """A pinned snapshot; `metadata` is the URI of its metadata file."""

    number: int
    name: str
    metadata: str
    snapshot_id: int
    committed_ms: int
    offsets: Mapping[str, int]


class Shown(NamedTuple):
    """`pinned`: tables that show another snapshot now. `behind`: stream to the number of records that the snapshot of
    the trades holds and the loader has yet to commit; where there are any, the older snapshot goes on being shown."""

    pinned: tuple[str, ...]
    behind: Mapping[str, int]


def show(store: Store, heads: Mapping[str, "Head"], wait_s: float = 0.0) -> Shown:
    """Pin the cold tables at `heads`, as far as they changed, and make `k2.trades` answer with them.

    A snapshot of the trades is never pinned before the loader has committed all that it holds; `wait_s` says how long
    to wait for that. Where nothing changed this costs three small questions. Raises StoreError: also for tables that
    are not in local files, and where cold.trades holds less than what was handed over to it.
    """
    seam, pins = seams.read(store), newest(store)
    refresh(store, seam, pins.get(TRADES))
    number = max(time.time_ns() // 1000, 1 + max((pin.number for pin in pins.values()), default=0))
    pinned: list[str] = []
    behind: Mapping[str, int] = {}
    for name, head in heads.items():
        known = pins.get(name)
        if head.snapshot_id is None or not _PLAIN.match(name) or (known and known.metadata == head.metadata_location):
            continue
        if name == TRADES:
            _refuse_a_step_back(seam, known, head)
            if behind := _waited(store, head, wait_s):
                continue
        if known:
            _forget_old(store, name, _local(known.metadata).parent.parent)
        pins[name] = _pin(store, number, name, head)
        pinned.append(name)
    refresh(store, seam, pins.get(TRADES))
    return Shown(tuple(pinned), behind)


def attach(store: Store, heads: Mapping[str, "Head"], database: str) -> None:
    """Make `database.<table>` read these snapshots, for whoever fills a store from them. Raises StoreError."""
    store.execute(f"CREATE DATABASE IF NOT EXISTS {database}")
    for name, head in heads.items():
        store.execute(f"CREATE OR REPLACE TABLE {database}.{name} {_engine(head.metadata_location)}")


def refresh(store: Store, seam: Seam, pin: Pin | None) -> None:
    """Make the view answer for this seam and pin, if it does not. Raises StoreError."""
    number = pin.number if pin else 0
    if seams.shown(store) != seams.described(seam, number):
        seams.replace_view(store, seam, number)


def newest(store: Store) -> dict[str, Pin]:
    """The pins that hold, by table. Raises StoreError."""
    rows = store.rows(
        "SELECT number, name, metadata, snapshot_id, committed_ms, mapKeys(offsets), mapValues(offsets) FROM k2.pins"
        " ORDER BY number DESC LIMIT 1 BY name"
    )
    return {
        name: Pin(int(number), name, metadata, int(snapshot), int(at), dict(zip(keys, map(int, values), strict=True)))
        for number, name, metadata, snapshot, at, keys, values in rows
    }


def covered(store: Store, pin: Pin) -> int:
    """The newest committed generation all of whose trades the pin holds, as far as is known; 0 if none is. Raises
    StoreError."""
    marks = store.rows(
        "SELECT generation, mapKeys(positions), mapValues(positions) FROM k2.commits UNION ALL SELECT generation,"
        " mapKeys(positions), mapValues(positions) FROM (SELECT generation, positions FROM k2.pins"
        f" WHERE name = '{TRADES}' ORDER BY number DESC LIMIT {_MARKS})"
    )
    return max(
        (
            int(generation)
            for generation, streams, offsets in marks
            if all(
                int(offset) <= pin.offsets.get(stream, 0)
                for stream, offset in zip(streams, offsets, strict=True)
                if _of_trades(stream)
            )
        ),
        default=0,
    )


def _of_trades(stream: str) -> bool:
    return stream != GAPS_STREAM and not stream.endswith(".raw")


def _refuse_a_step_back(seam: Seam, known: Pin | None, head: "Head") -> None:
    if not seam.ranges or known is None:
        return
    for stream, offset in known.offsets.items():
        if head.offsets.get(stream, 0) < offset:
            raise StoreError(
                f"cold.trades ends at offset {head.offsets.get(stream, 0)} of {stream}, the snapshot that the store"
                f" shows ends at {offset}: the cold tier was rolled back or begun anew after trades had been handed"
                " over to it. The store goes on showing the older snapshot; put the cold tier back as it was"
            )


def _waited(store: Store, head: "Head", wait_s: float) -> dict[str, int]:
    """Stream to the number of records that the loader lacks, after waiting for it."""
    deadline = time.monotonic() + wait_s
    while True:
        _, positions = _last(store)
        lacks = {s: end - positions.get(s, 0) for s, end in head.offsets.items() if positions.get(s, 0) < end}
        if not lacks or time.monotonic() >= deadline:
            return lacks
        time.sleep(_LOOK_S)


def _last(store: Store) -> tuple[int, dict[str, int]]:
    """Generation and positions of the last commit."""
    rows = store.rows(
        "SELECT generation, mapKeys(positions), mapValues(positions) FROM k2.commits ORDER BY generation DESC LIMIT 1"
    )
    if not rows:
        return 0, {}
    generation, streams, offsets = rows[0]
    return int(generation), dict(zip(streams, map(int, offsets), strict=True))


def _pin(store: Store, number: int, name: str, head: "Head") -> Pin:
    engine = _engine(head.metadata_location)
    if name == TRADES:
        store.execute(f"CREATE OR REPLACE TABLE {SNAPSHOTS}.{name}_{number} {engine}")
    store.execute(f"CREATE OR REPLACE TABLE cold.{name} {engine}")
    generation, positions = _last(store)
    offsets = dict(head.offsets)
    store.execute(
        f"INSERT INTO k2.pins SELECT {number}, {literal(name)}, {literal(head.metadata_location)}, {head.snapshot_id},"
        f" {head.committed_ms}, {_map(offsets)}, {generation}, {_map(positions)}, now64(6)"
    )
    return Pin(number, name, head.metadata_location, head.snapshot_id or 0, head.committed_ms, offsets)


def _engine(location: str) -> str:
    root, file = _kept(location)
    return f"ENGINE = IcebergLocal({literal(root)}) SETTINGS iceberg_metadata_file_path = {literal(file)}"


def _map(offsets: Mapping[str, int]) -> str:
    entries = ", ".join(f"{literal(stream)}, {offset}" for stream, offset in offsets.items())
    return f"CAST(map({entries}), 'Map(String, UInt64)')"


def _kept(location: str) -> tuple[str, str]:
    """The table's folder, and in it a copy of the metadata file that lasts while the pin does.

    The copy says nothing of the order of rows in files: told of it, the engine takes several sorted files for one
    sorted stream (26.9), and answers to ORDER BY, DISTINCT and window functions are wrong.
    """
    file = _local(location)
    root = file.parent.parent
    copy = root / PINS / file.name
    try:
        if not copy.exists():
            metadata = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
            metadata |= {"default-sort-order-id": 0, "sort-orders": [{"order-id": 0, "fields": []}]}
            copy.parent.mkdir(exist_ok=True)
            new = copy.with_suffix(f".{os.getpid()}")
            new.write_bytes(msgspec.json.encode(metadata))
            new.rename(copy)
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(
            f"the store cannot pin {file}: {error}. It needs the file whole, and to write into {copy.parent}"
        ) from None
    return str(root), f"{PINS}/{file.name}"


def _local(location: str) -> Path:
    parts = urlsplit(location)
    if parts.scheme not in ("", "file"):
        raise StoreError(
            f"the store shows cold tables from local files only, and {location} is none: k2.trades answers from hot"
            " alone, and nothing expires from it"
        )
    return Path(unquote(parts.path) if parts.scheme else location)


def _forget_old(store: Store, name: str, root: Path) -> None:
    """Drop the tables, and let go of the metadata files, of pins that were replaced a while ago."""
    rows = store.rows(
        "SELECT number, metadata, dateDiff('second', pinned_at, now64(6)) FROM k2.pins"
        f" WHERE name = {literal(name)} ORDER BY number DESC LIMIT {_MARKS}"
    )
    replaced_s = [int(age) for _, _, age in rows]
    kept = rows[:1] + [row for row, age in zip(rows[1:], replaced_s, strict=False) if age < KEPT_S]
    numbers = {int(number) for number, _, _ in kept}
    for (table,) in store.rows(f"SELECT name FROM system.tables WHERE database = '{SNAPSHOTS}'"):
        of, _, number = table.rpartition("_")
        if of == name and number.isdigit() and int(number) < max(numbers) and int(number) not in numbers:
            store.execute(f"DROP TABLE IF EXISTS {SNAPSHOTS}.{table}")
    files = {_local(metadata).name for _, metadata, _ in kept}
    with suppress(OSError):
        for file in list((root / PINS).iterdir()):
            if file.name not in files:
                file.unlink()
