"""The cold tier as its metadata files tell it: snapshots, sizes, how far it reaches into the log.

Reading the files that the catalog names costs milliseconds and needs no PyIceberg. A catalog elsewhere is asked through
PyIceberg, seldom. All of it blocks, and raises TierError.
"""

import time
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from k2.ask.times import format_time
from k2.config import EXCHANGES, Config
from k2.log import Log
from k2.tier import TierError
from k2.tier.heads import read_heads
from k2.tier.names import NAMESPACE, OFFSETS, streams
from k2.tier.reach import to_read
from k2.web.streams import age_s

ASKED_EVERY_S = 15.0  # a catalog elsewhere
LEAST_SPAN_S = 5.0  # one offload commits to several tables within a second or two


class Snapshot(msgspec.Struct):
    """One snapshot of a cold table."""

    table: Annotated[str, Meta(description="The table in the namespace `cold`.", examples=["trades"])]
    snapshot_id: Annotated[str, Meta(description="Its id; text, for it has more digits than a JavaScript number.")]
    time: Annotated[str, Meta(description="When it was committed (RFC 3339, UTC).")]
    operation: Annotated[str, Meta(description="`append` (an offload), `overwrite` or `replace` (maintenance).")]
    rows: Annotated[int, Meta(description="Rows of the table as of this snapshot.")]
    added_rows: Annotated[int, Meta(description="Rows in the files that the commit added.")]
    removed_rows: Annotated[int, Meta(description="Rows in the files that it removed.")]
    files: Annotated[int, Meta(description="Data files of the table as of this snapshot.")]
    added_files: Annotated[int, Meta(description="Data files that the commit added.")]
    removed_files: Annotated[int, Meta(description="Data files that it removed.")]
    bytes: Annotated[int, Meta(description="Size of the table's data files as of this snapshot.")]
    offsets: Annotated[
        dict[str, int], Meta(description="The watermark: stream to the next log offset that the snapshot lacks.")
    ]
    current: Annotated[bool, Meta(description="The table shows this snapshot.")]


class ColdTable(msgspec.Struct):
    """One cold table, as it is now."""

    table: Annotated[str, Meta(description="The table in the namespace `cold`.")]
    rows: Annotated[int, Meta(description="Its rows.")]
    files: Annotated[int, Meta(description="Its data files.")]
    bytes: Annotated[int, Meta(description="Their size.")]
    bytes_per_row: Annotated[float | None, Meta(description="Their quotient; null without rows.")]
    snapshots: Annotated[int, Meta(description="Snapshots that are kept.")]
    snapshot_id: Annotated[str | None, Meta(description="The current one; null before the first commit.")]
    last_commit: Annotated[str | None, Meta(description="When that was committed (RFC 3339, UTC).")]
    offsets: Annotated[dict[str, int], Meta(description="Stream to the next log offset that the table lacks.")]
    lag: Annotated[int, Meta(description="Records of the log that it lacks.")]
    lag_s: Annotated[float, Meta(description="Age of the oldest of them in seconds; 0 if there is none.")]
    trouble: Annotated[str, Meta(description="Why log and table do not fit together; empty: they do.")]


class _Recorded(msgspec.Struct, rename="kebab"):
    snapshot_id: int
    timestamp_ms: int
    sequence_number: int = 0
    summary: dict[str, str] = {}


class _Metadata(msgspec.Struct, rename="kebab"):
    current_snapshot_id: int | None = None
    snapshots: list[_Recorded] = []


_decode = msgspec.json.Decoder(_Metadata).decode
_asked: dict[str, tuple[float, dict[str, list[Snapshot]]]] = {}


def histories(config: Config) -> dict[str, list[Snapshot]]:
    """Every cold table and its snapshots, newest first. Empty where there is no catalog yet."""
    if config.tier.catalog or config.tier.warehouse:
        return _elsewhere(config)
    try:
        return _local(config)
    except FileNotFoundError:  # a commit came between, and removed the oldest metadata file
        try:
            return _local(config)
        except FileNotFoundError as error:
            raise TierError(f"{error.filename}, which the catalog names, does not exist: restore that file") from error


def _local(config: Config) -> dict[str, list[Snapshot]]:
    heads = read_heads(config.cold_dir)
    return {name: _history(name, head.metadata_location) for name, head in sorted(heads.items())}


@lru_cache(maxsize=64)
def _history(table: str, location: str) -> list[Snapshot]:
    """A metadata file is never changed: a new commit writes another."""
    path = Path(location.removeprefix("file://"))
    try:
        metadata = _decode(path.read_bytes())
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TierError(f"the metadata of {NAMESPACE}.{table} cannot be read from {path}: {error}") from error
    ordered = sorted(metadata.snapshots, key=lambda one: (one.sequence_number, one.timestamp_ms), reverse=True)
    return [
        _snapshot(
            table, one.snapshot_id, one.timestamp_ms, one.summary, one.snapshot_id == metadata.current_snapshot_id
        )
        for one in ordered
    ]


def _snapshot(table: str, snapshot_id: int, ms: int, summary: dict[str, str], current: bool) -> Snapshot:
    def number(name: str) -> int:
        return int(summary.get(name, 0))

    try:
        return Snapshot(
            table=table,
            snapshot_id=str(snapshot_id),
            time=format_time(ms * 1_000_000, 3),
            operation=summary.get("operation", ""),
            rows=number("total-records"),
            added_rows=number("added-records"),
            removed_rows=number("deleted-records"),
            files=number("total-data-files"),
            added_files=number("added-data-files"),
            removed_files=number("deleted-data-files"),
            bytes=number("total-files-size"),
            offsets=msgspec.json.decode(summary.get(OFFSETS, "{}"), type=dict[str, int]),
            current=current,
        )
    except ValueError as error:  # msgspec's errors are ValueErrors, too
        raise TierError(f"snapshot {snapshot_id} of {NAMESPACE}.{table} says {summary}: {error}") from error


def _elsewhere(config: Config) -> dict[str, list[Snapshot]]:
    """Through PyIceberg, which takes seconds to import: remembered for a while."""
    at, known = _asked.get(config.tier.catalog + config.tier.warehouse, (0.0, {}))
    if known and time.monotonic() - at < ASKED_EVERY_S:
        return known
    from k2.tier.catalog import open_catalog, tables_of

    properties = {"uri": config.tier.catalog, "warehouse": config.tier.warehouse}
    catalog = open_catalog(config.cold_dir, {name: value for name, value in properties.items() if value})
    found = {name: _listed(name, table) for name, table in sorted(tables_of(catalog).items())}
    _asked[config.tier.catalog + config.tier.warehouse] = time.monotonic(), found
    return found


def _listed(name: str, table: Any) -> list[Snapshot]:
    current = table.metadata.current_snapshot_id
    ordered = sorted(table.snapshots(), key=lambda one: (one.sequence_number or 0, one.timestamp_ms), reverse=True)
    found = []
    for one in ordered:
        words = dict(one.summary.additional_properties) if one.summary else {}
        operation = {"operation": one.summary.operation.value} if one.summary else {}
        found.append(
            _snapshot(name, one.snapshot_id, one.timestamp_ms, {**words, **operation}, one.snapshot_id == current)
        )
    return found


def tables(history: dict[str, list[Snapshot]], log: Log | None, now_ns: int) -> list[ColdTable]:
    """The cold tables as they are now, also those that will be, and what the log has more. Raises LogError."""
    names = sorted({*history, *streams(EXCHANGES)})
    return [_table(name, history.get(name, []), log, now_ns) for name in names]


def archiving_rate(snapshots: Sequence[Snapshot], since: datetime) -> float | None:
    """Rows a second that offloads have added since then, from the first of them to the last; None: too few to tell."""
    times: dict[datetime, int] = {}
    for one in snapshots:
        at = datetime.fromisoformat(one.time)
        if one.operation == "append" and one.offsets and at >= since:
            times[at] = times.get(at, 0) + one.added_rows
    if len(times) < 2 or (span := (max(times) - min(times)).total_seconds()) < LEAST_SPAN_S:
        return None
    return round((sum(times.values()) - times[min(times)]) / span, 1)


def _table(name: str, snapshots: list[Snapshot], log: Log | None, now_ns: int) -> ColdTable:
    now = next((one for one in snapshots if one.current), None)
    found = ColdTable(
        table=name,
        rows=now.rows if now else 0,
        files=now.files if now else 0,
        bytes=now.bytes if now else 0,
        bytes_per_row=round(now.bytes / now.rows, 2) if now and now.rows else None,
        snapshots=len(snapshots),
        snapshot_id=now.snapshot_id if now else None,
        last_commit=now.time if now else None,
        offsets=now.offsets if now else {},
        lag=0,
        lag_s=0.0,
        trouble="",
    )
    names = streams(EXCHANGES).get(name, ())
    if log is not None and names:
        try:
            reaches = to_read(log, name, names, found.offsets)
        except TierError as error:
            found.trouble = str(error)
            return found
        found.lag = sum(reach.end - reach.start for reach in reaches.values())
        found.lag_s = max((age_s(log, stream, reach.start, now_ns) for stream, reach in reaches.items()), default=0.0)
    return found
