"""A file system of the drill's own, on a file: it can be full without filling anybody's disk, and lose its power.

Losing power means what it means to a disk's user: what was synced is there, what was only written may not be. The
kernel does it on request (EXT4_IOC_SHUTDOWN without flushing the journal, as its own tests do): from then on the file
system reads and writes nothing, and when it is mounted again it holds what the journal and the disk had.
"""

import errno
import fcntl
import os
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from k2.ops.drill import DrillError
from k2.ops.drill.shell import run

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH
WITHIN_S = 20.0
_STEP = 1 << 20


class Volume:
    """An ext4 of `mb` megabytes, mounted at `at` until `close`. A context manager. Needs root."""

    def __init__(self, at: Path, image: Path, mb: int) -> None:
        """`at` is made if it is missing; what it held is hidden meanwhile. Raises DrillError."""
        self.at, self.image = at, image
        self._ballast = at / ".ballast"
        at.mkdir(parents=True, exist_ok=True)
        with image.open("wb") as file:
            file.truncate(mb << 20)
        run("mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-E", "lazy_itable_init=0,nodiscard", str(image))
        self.mount()
        with suppress(OSError):
            (at / "lost+found").rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def mount(self) -> None:
        """Raises DrillError."""
        run("mount", "-t", "ext4", "-o", "loop", str(self.image), str(self.at))

    def unmount(self) -> None:
        """Raises DrillError: also where a process still has files open there."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                run("umount", str(self.at))
                return
            except DrillError:
                if time.monotonic() > deadline or not self.at.is_mount():
                    raise
                time.sleep(0.1)

    def fill(self, leave: int = 0) -> int:
        """Take all free space but `leave` bytes away. Returns how many bytes it took. Raises DrillError."""
        with self._ballast.open("ab", buffering=0) as file:
            while (room := self.free() - leave) > 0:
                before = file.tell()
                try:
                    os.posix_fallocate(file.fileno(), before, min(room, _STEP))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise DrillError(f"{self.at} cannot be filled: {error}") from None
                    if room < 4096 * 4:
                        break
                    with suppress(OSError):
                        os.posix_fallocate(file.fileno(), before, 4096)
                if file.seek(0, os.SEEK_END) == before:
                    break
            return file.tell()

    def give_back(self) -> None:
        """Give the space back that `fill` took. Idempotent."""
        self._ballast.unlink(missing_ok=True)

    def free(self) -> int:
        """Bytes that may still be written."""
        return os.statvfs(self.at).f_bavail * os.statvfs(self.at).f_frsize

    def lose_power(self) -> None:
        """From now on the file system does nothing any more. Raises DrillError."""
        handle = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        except OSError as error:
            raise DrillError(f"{self.at}: the kernel does not let it lose power: {error}") from None
        finally:
            os.close(handle)

    def close(self) -> None:
        """Unmount it, whatever it takes, and remove its file. Idempotent."""
        if self.at.is_mount():
            try:
                self.unmount()
            except DrillError:
                with suppress(DrillError):
                    run("umount", "-l", str(self.at))
        self.image.unlink(missing_ok=True)
