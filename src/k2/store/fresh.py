"""The file behind `silver_fresh`: a trade is visible as soon as its line stands in it, and no statement was run.

The store reads the file anew with every question, so it is kept short: what has gone into memory is left out when the
file is begun anew. A new file takes the old one's place at once (rename); who reads the old one reads it to its end.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from k2.store import Store, StoreError, StoreUnavailable

TABLE = "k2.silver_fresh"
_PATH = "SELECT data_paths[1] FROM system.tables WHERE database = 'k2' AND name = 'silver_fresh'"
_PROBE = b'{"trade_id":%d,"generation":0}\n'  # generation 0 is never shown


class Fresh:
    """Appends to the file. One writer; `open_fresh` makes it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def append(self, lines: bytes) -> None:
        """Show these trades. Raises StoreUnavailable if the store was started anew, StoreError if the disk refuses."""
        try:
            if os.fstat(self._handle).st_nlink == 0:
                raise StoreUnavailable("the store was started anew: its live tail is gone")
            _write(self._handle, lines)
        except OSError as error:
            raise StoreError(f"cannot write {self._file} ({error.strerror}): make room there") from None

    def content(self) -> bytes:
        """The whole lines in the file. Raises StoreError."""
        try:
            content = self._file.read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read {self._file} ({error.strerror})") from None
        return content[: content.rfind(b"\n") + 1]

    def begin_anew(self, lines: bytes) -> None:
        """Put a file with only these lines in the old one's place. Raises StoreError."""
        handle = _replace(self._file, lines)
        os.close(self._handle)
        self._handle = handle

    def close(self) -> None:
        """Release the file. Idempotent."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def empty(store: Store) -> None:
    """Begin with an empty file, as memory begins empty: for the process that owns the store, before it answers."""
    os.close(_replace(_path(store), b""))


def open_fresh(store: Store) -> Fresh | None:
    """The file as it stands, to append to; None where the store does not read the file that we write, as on a server
    elsewhere. Raises StoreError."""
    file = _path(store)
    mark = secrets.randbits(62)
    try:
        fresh = Fresh(file)
    except OSError:
        return None
    fresh.append(_PROBE % mark)
    found = store.rows(f"SELECT count() FROM {TABLE} WHERE generation = 0 AND trade_id = {mark}")
    if int(found[0][0]) == 1:
        return fresh
    fresh.close()
    return None


def _path(store: Store) -> Path:
    return Path(store.rows(_PATH)[0][0])


def _replace(file: Path, lines: bytes) -> int:
    new = file.with_suffix(".new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            new.unlink()
        handle = os.open(new, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            _write(handle, lines)
            new.rename(file)
        except OSError:
            os.close(handle)
            raise
    except OSError as error:
        raise StoreError(f"cannot write {new} ({error.strerror}): make room there") from None
    return handle


def _write(handle: int, lines: bytes) -> None:
    rest = memoryview(lines)
    while rest:
        rest = rest[os.write(handle, rest) :]
