"""One LMDB environment in this process, whoever uses it: opened late, once, checked first, and closed now and then.

LMDB forbids opening an environment twice in a process, so all share the one in the register. Its pages are mapped into
memory and count as resident once they were touched, for as long as the map lives: so after some megabytes the
environment is closed and opened anew at a moment when nobody is inside.
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

import lmdb

from k2.log import LogCorrupt, LogError, LogFull
from k2.log.datafile import Damaged, present, tails

TOUCH_LIMIT = 16 << 20  # bytes read and written before the map is given back
_ROOM = 256 << 10  # bytes that a commit may take beyond its records, and some
_LOCK_BYTES = 8192  # for LMDB's 126 readers
_STALE_CHECK = 10.0  # seconds between two searches for readers that were killed
CLOSE_WITHIN = 10.0  # seconds that a close waits for those inside
_ATTEMPTS = 8  # readings of a file that another process may be writing

E = TypeVar("E", bound="Environment")
_register: dict[Path, "Environment"] = {}
_register_lock = threading.Lock()


class Handles(NamedTuple):
    env: lmdb.Environment
    trees: tuple[lmdb._Database, ...]


class Environment:
    """An environment with a fixed set of named trees. `acquire` and `release` bracket every use of its handles."""

    def __init__(self, folder: Path, map_bytes: int, names: tuple[bytes, ...]) -> None:
        self.folder = folder
        self.map_bytes = map_bytes
        self.names = names
        self._users = 0
        self._lock = threading.Lock()
        self._gate = threading.Condition(self._lock)
        self._inside = 0
        self._touched = 0
        self._leaving = False
        self._ended = False
        self._handles: Handles | None = None
        self._checked = False
        self._stale_check = 0.0

    @property
    def file(self) -> Path:
        return self.folder / "data.mdb"

    def acquire(self, create: bool = False) -> Handles | None:
        """The open handles; None if there is nothing to open and `create` is False. Raises LogError, LogCorrupt."""
        with self._lock:
            while self._leaving:
                self._gate.wait()
            if self._ended:
                raise LogError(f"the log in {self.folder.parent} was closed")
            if self._handles is None:
                self._handles = self._open(create)
            if self._handles is not None:
                self._inside += 1
            return self._handles

    def enter(self) -> Handles | None:
        """As `acquire`, if the environment is open and nobody has to be waited for, as is who writes when it is opened;
        else None."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if self._handles is None or self._leaving:
                return None
            self._inside += 1
            return self._handles
        finally:
            self._lock.release()

    def release(self, touched: int) -> None:
        """The handles are out of use; about `touched` bytes of the map were looked at through them."""
        with self._lock:
            self._inside -= 1
            self._touched += touched
            if self._touched > TOUCH_LIMIT:
                self._leaving = True
            if not self._inside:
                if self._leaving:
                    self._shut()
                elif self._ended:
                    self._gate.notify_all()

    def renew(self) -> None:
        """Open anew at the next use: LMDB gives up on an environment whose meta page could not be written."""
        with self._lock:
            self._leaving = True
            if not self._inside:
                self._shut()

    def drop_stale_readers(self, handles: Handles) -> None:
        """Free the places of readers that were killed: they would keep freed pages from being used again."""
        now = time.monotonic()
        if now - self._stale_check > _STALE_CHECK:
            self._stale_check = now
            handles.env.reader_check()

    def check(self) -> None:
        """Look into the file without LMDB, which a damaged one could bring down. Raises LogCorrupt."""
        for attempt in range(_ATTEMPTS):
            try:
                self.inspect(tails(self.file))
                return
            except Damaged as error:
                damage = str(error)
                time.sleep(0.003 * attempt)
        raise self.diagnose(damage)

    def inspect(self, last: Mapping[bytes, tuple[bytes, bytes] | None]) -> None:
        """Judge the last entry of every tree. Raises Damaged."""

    def diagnose(self, damage: str) -> LogCorrupt:
        """What to tell about a damaged file."""
        return LogCorrupt(f"{self.file} is damaged: {damage}{mend(self.folder.name)}", self.folder.name)

    def _open(self, create: bool) -> Handles | None:
        if not self.folder.is_dir() or not present(self.file):
            if not create:
                return None
            _make(self.folder)
        elif not self._checked:
            self.check()
        try:
            _reserve(self.folder / "lock.mdb")
            env = lmdb.open(
                str(self.folder),
                map_size=self.map_bytes,
                max_dbs=len(self.names),
                max_spare_txns=2,
                lib_version=0,
            )
        except (lmdb.Error, OSError) as error:
            raise explain(error, self.folder, "opened") from error
        try:
            trees = self._open_trees(env, create)
        except lmdb.Error as error:
            env.close()
            raise explain(error, self.folder, "opened") from error
        if trees is None:
            env.close()
            return None
        if create and not self._checked:
            sync_folder(self.folder)
        self._checked = True
        return Handles(env, trees)

    def _open_trees(self, env: lmdb.Environment, create: bool) -> tuple[lmdb._Database, ...] | None:
        env.reader_check()
        with env.begin(write=True) as txn:
            try:
                return tuple(env.open_db(name, txn=txn, create=create) for name in self.names)
            except lmdb.NotFoundError:
                return None

    def _shut(self) -> None:
        if self._handles is not None:
            self._handles.env.close()
            self._handles = None
        self._touched = 0
        self._leaving = False
        self._gate.notify_all()

    def close(self) -> None:
        """Leave the register; the last user closes the file.

        Not for ever does it wait for those inside: who was interrupted by a signal may not have told that it left. The
        file is then left open, which harms nobody.
        """
        with _register_lock:
            self._users -= 1
            if self._users:
                return
            with self._lock:
                self._ended = True
                if self._gate.wait_for(lambda: not self._inside, CLOSE_WITHIN):
                    self._shut()
            self.closed()
            _register.pop(self.folder, None)

    def closed(self) -> None:
        """The file was closed for good: let go of what belongs to it."""


def shared(folder: Path, map_bytes: int, make: Callable[[Path, int], E]) -> E:
    """This process's environment for the folder; to be closed by each who asked for it."""
    with _register_lock:
        environment = _register.get(folder)
        if environment is None:
            environment = _register[folder] = make(folder, map_bytes)
        environment._users += 1
        return cast(E, environment)


def in_use_here(folder: Path) -> bool:
    """Whether this process has the environment open."""
    with _register_lock:
        environment = _register.get(folder)
        return environment is not None and environment._handles is not None


def _make(folder: Path) -> None:
    """The folder, and its name in the folders above, safe on disk."""
    try:
        missing = [folder, *folder.parents]
        missing = missing[: next(i for i, path in enumerate(missing) if path.is_dir())]
        folder.mkdir(parents=True, exist_ok=True)
        for path in missing:
            sync_folder(path.parent)
    except OSError as error:
        raise explain(error, folder, "made") from error


def _reserve(lock: Path) -> None:
    """Give the lock file its place on the disk: LMDB writes it through a map, and on a full disk that kills."""
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if hasattr(os, "posix_fallocate") and os.fstat(fd).st_blocks * 512 < _LOCK_BYTES:
            os.posix_fallocate(fd, 0, _LOCK_BYTES)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def why_unwritten(error: Exception, file: Path, needed: int) -> Exception:
    """LMDB calls a write that the disk could take only in part an input/output error: ask the disk itself."""
    if getattr(error, "code", 0) != errno.EIO or not hasattr(os, "posix_fallocate"):
        return error
    try:
        with file.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), file.stat().st_size, needed + _ROOM)
    except OSError as refused:
        return refused
    return error


def explain(error: Exception, folder: Path, doing: str, needed: int = 0) -> LogError:
    """What LMDB or the system refused, in words for the person who runs K2."""
    code = error.errno if isinstance(error, OSError) else getattr(error, "code", 0)
    if isinstance(error, lmdb.MapFullError):
        return LogFull(
            f"{folder} has reached the size that log.map_gb allows: raise log.map_gb, or keep less (log.max_gb)"
        )
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        ask = f"; {needed} bytes more were to be written" if needed else ""
        free = os.statvfs(folder if folder.is_dir() else folder.parent)
        left = free.f_bavail * free.f_frsize
        return LogFull(
            f"{folder} could not be {doing}: {os.strerror(code)} ({left} bytes are free there{ask}): "
            "free space or raise the limit; nothing that was acknowledged is lost, and appends go on by themselves"
        )
    if isinstance(error, lmdb.CorruptedError | lmdb.PageNotFoundError | lmdb.InvalidError | lmdb.VersionMismatchError):
        return LogCorrupt(f"{folder} could not be {doing}: {error}{mend(folder.name)}", folder.name)
    if code == errno.ENOMEM:
        return LogError(f"{folder} could not be {doing}: no address space for log.map_gb: make it smaller")
    return LogError(f"{folder} could not be {doing}: {error}")


def mend(stream: str) -> str:
    """What to do about a damaged stream."""
    return f": stop K2, then run `k2 streams --repair {stream}`, which keeps all whole blocks up to the damage"
