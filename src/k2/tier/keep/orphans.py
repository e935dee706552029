"""Files below a table that nothing refers to: found by what they are, spared while they are young, then removed.

A commit under way looks just like a crashed one: files that no snapshot has. Only age tells them apart. A clock that
jumps must not make young files look old, so a file is old only if a commit, too, was made long after it.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadataUtil
from pyiceberg.table.snapshots import Snapshot

from k2.tier import TierError
from k2.tier.faults import told
from k2.tier.names import PINS

HOUR_NS = 3_600 * 10**9
_HEX = frozenset("0123456789abcdef")
_OURS = {"data": (".parquet",), "metadata": (".avro", ".metadata.json")}


class File(NamedTuple):
    path: str
    bytes: int


class Orphans(NamedTuple):
    """`old` may go; `young` may belong to a commit under way; `foreign` were not written by Iceberg, and stay."""

    old: list[File]
    young: int
    foreign: list[str]


def listing(table: Table) -> list[FileInfo]:
    """Every file below the table's location. Raises TierError."""
    files, place = _place(table, table.location())
    with told(f"the files below {table.location()} cannot be listed"):
        return [info for info in files.get_file_info(FileSelector(place, recursive=True)) if info.type == FileType.File]


def orphans(table: Table, listed: list[FileInfo], now_ns: int, hours: float, last_commit_ns: int) -> Orphans:
    """What of a listing, made BEFORE `table` was loaded, the table does not need.

    A file is old if it is `hours` old by the clock and a commit (`last_commit_ns`, from before this run) was made half
    of that after it was written. Raises TierError if files of the table are missing: then nothing may be removed.
    """
    root = _place(table, table.location())[1].rstrip("/") + "/"
    found = {info.path: info for info in listed}
    with told(f"the files of {'.'.join(table.name())} cannot be told"):
        needed = {_place(table, location)[1]: False for location in _pinned(table, root, found)}
        needed |= {_place(table, location)[1]: must for location, must in _references(table)}
    unseen = sorted(path for path, must in needed.items() if must and path.startswith(root) and path not in found)
    if missing := _missing(table, unseen):  # the others were committed since the listing
        raise TierError(
            f"{'.'.join(table.name())} lacks {len(missing)} of its files, {missing[0]} among them: restore them from a"
            " backup. No file was removed"
        )
    limit = min(now_ns - hours * HOUR_NS, last_commit_ns - hours / 2 * HOUR_NS)
    old, young, foreign = [], 0, []
    for path, info in sorted(found.items()):
        if path in needed or path.startswith(f"{root}{PINS}/"):
            continue
        if not _is_ours(path.removeprefix(root)):
            foreign.append(path)
        elif info.mtime_ns is not None and info.mtime_ns <= limit:
            old.append(File(path, info.size))
        else:
            young += 1
    return Orphans(old, young, foreign)


def _missing(table: Table, paths: list[str]) -> list[str]:
    files, _ = _place(table, table.location())
    with told(f"the files of {'.'.join(table.name())} cannot be looked for"):
        return [info.path for info in files.get_file_info(paths) if info.type == FileType.NotFound]


def remove_orphans(table: Table, files: list[File]) -> None:
    """Remove them. It needs no space. Raises TierError."""
    place, _ = _place(table, table.location())
    for file in files:
        with told(f"{file.path} cannot be removed"):
            try:
                place.delete_file(file.path)
            except FileNotFoundError:
                continue  # another maintenance was quicker


def _references(table: Table) -> Iterator[tuple[str, bool]]:
    """Locations that the table refers to, and whether it cannot do without them."""
    yield table.metadata_location, True
    for logged in table.metadata.metadata_log:
        yield logged.metadata_file, False
    for statistics in (*table.metadata.statistics, *table.metadata.partition_statistics):
        yield statistics.statistics_path, False
    read: set[str] = set()
    for snapshot in table.snapshots():
        for location in _files(table, snapshot, read):
            yield location, True


def _files(table: Table, snapshot: Snapshot, read: set[str]) -> Iterator[str]:
    """Locations of a snapshot's manifests and data files; manifests in `read` are left out, new ones added to it."""
    yield snapshot.manifest_list
    for manifest in snapshot.manifests(table.io):
        if manifest.manifest_path not in read:
            read.add(manifest.manifest_path)
            yield manifest.manifest_path
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                yield entry.data_file.file_path


def _pinned(table: Table, root: str, paths: Iterable[str]) -> Iterator[str]:
    """Locations that the hot store's pins refer to: snapshots that it shows, which may have expired since."""
    place, _ = _place(table, table.location())
    for path in paths:
        if path.startswith(f"{root}{PINS}/") and path.endswith(".metadata.json"):
            with suppress(FileNotFoundError), place.open_input_stream(path) as source:  # let go of since the listing
                snapshot = TableMetadataUtil.parse_raw(source.read().decode()).current_snapshot()
                yield from _files(table, snapshot, set()) if snapshot else ()


def _is_ours(path: str) -> bool:
    """Whether a file, relative to the table, is named as Iceberg's writers name theirs: with a UUID, at its place."""
    folder, _, rest = path.partition("/")
    name = rest.rpartition("/")[2]
    if name == "version-hint.text":
        return False
    return name.endswith(_OURS.get(folder, ())) and _has_uuid(name)


def _has_uuid(name: str) -> bool:
    parts = name.replace(".", "-").replace("_", "-").split("-")
    lengths = (8, 4, 4, 4, 12)
    return any(
        all(len(part) == length and _HEX.issuperset(part) for part, length in zip(parts[i:], lengths, strict=False))
        for i in range(len(parts) - len(lengths) + 1)
    )


def _place(table: Table, location: str) -> tuple[FileSystem, str]:
    """The file system of a location, and its path there."""
    io = table.io if isinstance(table.io, PyArrowFileIO) else PyArrowFileIO(table.io.properties)
    scheme, host, path = io.parse_location(location, table.io.properties)
    return io.fs_by_scheme(scheme, host), path
