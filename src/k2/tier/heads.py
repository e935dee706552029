"""What the cold tables hold now, told without their machinery.

Importing PyIceberg takes a second or two; reading one row of the SQLite catalog and the metadata file that it names
takes milliseconds. So whoever only wants to know where cold ends (a scheduler, a status page, the hot store) asks here.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import msgspec

from k2.log import Log
from k2.tier import TierError
from k2.tier.names import CATALOG, ENDS, NAMESPACE, OFFSETS, streams
from k2.tier.reach import refuse_another_log, to_read

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

CATALOG_FILE = "catalog.db"
_BUSY_S = 5.0
_TABLES = "SELECT table_name, metadata_location FROM iceberg_tables WHERE catalog_name = ? AND table_namespace = ?"
_Located = dict[str, str]


class Head(NamedTuple):
    """A table's current snapshot. `metadata_location`: URI of the metadata file that the catalog names.

    `snapshot_id` is None, and `rows` 0, before the first commit; `committed_ms` is then when the table was made.
    `offsets`: stream to the next offset that the table lacks; empty for tables that are not filled from the log.
    `ends`: stream to the digest of the last record before it.
    """

    metadata_location: str
    snapshot_id: int | None
    committed_ms: int
    offsets: Mapping[str, int]
    rows: int
    ends: Mapping[str, str] = {}


class _Snapshot(msgspec.Struct, rename="kebab"):
    snapshot_id: int
    timestamp_ms: int
    summary: dict[str, str] = {}


class _Metadata(msgspec.Struct, rename="kebab"):
    last_updated_ms: int
    current_snapshot_id: int | None = None
    snapshots: list[_Snapshot] = []


_decode = msgspec.json.Decoder(_Metadata).decode


def read_heads(folder: Path) -> dict[str, Head]:
    """Table name (`trades`, ...) to its head, from the SQLite catalog and the local metadata files in `folder`.

    Empty where there is no catalog yet. Raises TierError on a catalog or metadata file that cannot be read.
    """
    file = folder / CATALOG_FILE
    located = _located(file)
    try:
        return {name: _read(file, name, location) for name, location in located.items()}
    except _Gone:  # a commit came between, and cleaned up: what the catalog names now is there
        return {name: _read(file, name, location) for name, location in _located(file).items()}


def heads_of(catalog: "Catalog") -> dict[str, Head]:
    """The same through PyIceberg, for any catalog. Raises TierError."""
    from k2.tier.catalog import tables_of

    found = {}
    for name, table in tables_of(catalog).items():
        metadata = table.metadata
        plain = _Metadata(
            metadata.last_updated_ms,
            metadata.current_snapshot_id,
            [
                _Snapshot(
                    snapshot.snapshot_id,
                    snapshot.timestamp_ms,
                    dict(snapshot.summary.additional_properties) if snapshot.summary else {},
                )
                for snapshot in metadata.snapshots
                if snapshot.snapshot_id == metadata.current_snapshot_id
            ],
        )
        found[name] = _head(name, table.metadata_location, plain)
    return found


def behind(log: Log, heads: Mapping[str, Head], exchanges: tuple[str, ...]) -> dict[str, int]:
    """Table to the number of log records that it lacks; tables that lack none are left out.

    Raises ForeignLog, LostRecords, LogError.
    """
    counts = {}
    for name, names in streams(exchanges).items():
        offsets = heads[name].offsets if name in heads else {}
        if name in heads:
            refuse_another_log(log, name, offsets, heads[name].ends)
        count = sum(part.end - part.start for part in to_read(log, name, names, offsets).values())
        if count:
            counts[name] = count
    return counts


class _Gone(TierError):
    pass


def _located(file: Path) -> _Located:
    if not file.exists():
        return {}
    try:
        return _rows(file, "ro")
    except sqlite3.OperationalError:  # a process was killed while it wrote: only a writer may roll that back
        try:
            return _rows(file, "rw")
        except sqlite3.Error as error:
            raise _unreadable(file, error) from error
    except sqlite3.Error as error:
        raise _unreadable(file, error) from error


def _rows(file: Path, mode: str) -> _Located:
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode={mode}", uri=True, timeout=_BUSY_S)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'iceberg_tables'").fetchall():
            return {}
        return {
            name: location
            for name, location in connection.execute(_TABLES, (CATALOG, NAMESPACE))
            if location is not None
        }


def _unreadable(file: Path, error: sqlite3.Error) -> TierError:
    if "locked" in str(error):
        return TierError(f"{file} is locked by another process ({error}): let that one end, then try again")
    return TierError(
        f"the catalog {file} cannot be read ({error}): restore this one file from a backup; the tables that it names"
        f" lie beside it and are whole"
    )


def _read(file: Path, name: str, location: str) -> Head:
    path = _local(location)
    try:
        return _head(name, location, _decode(path.read_bytes()))
    except FileNotFoundError as error:
        raise _Gone(
            f"{file} says that {NAMESPACE}.{name} is described in {path}, which does not exist: restore that file from"
            f" a backup of the same time"
        ) from error
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TierError(
            f"the metadata of {NAMESPACE}.{name} cannot be read from {path} ({error}): restore that file"
        ) from error


def _local(location: str) -> Path:
    path = location.removeprefix("file://")
    if "://" in path:
        raise TierError(f"{location} is not a local file: the heads of such tables are read through PyIceberg")
    return Path(path)


def _head(name: str, location: str, metadata: _Metadata) -> Head:
    current = next((s for s in metadata.snapshots if s.snapshot_id == metadata.current_snapshot_id), None)
    if current is None:
        return Head(location, None, metadata.last_updated_ms, {}, 0)
    try:
        offsets: Any = msgspec.json.decode(current.summary.get(OFFSETS, "{}"), type=dict[str, int])
        ends = msgspec.json.decode(current.summary.get(ENDS, "{}"), type=dict[str, str])
        rows = int(current.summary.get("total-records", 0))
    except ValueError as error:  # msgspec's errors are ValueErrors, too
        raise TierError(
            f"the current snapshot of {NAMESPACE}.{name} says {current.summary}: {error}; roll the table back to the"
            " snapshot before it"
        ) from error
    return Head(location, current.snapshot_id, current.timestamp_ms, offsets, rows, ends)
