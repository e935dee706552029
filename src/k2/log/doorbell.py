"""The doorbell: a commit in one process wakes those who wait in others, at once, and costs nothing while all is quiet.

Who waits binds a datagram socket in the stream's `bell` folder; who commits sends one byte to each of them and never
blocks. A bell that was missed (a file system without sockets, a socket just bound) only delays: waiters look by
themselves now and then.
"""

import os
import secrets
import select
import socket
import time
from contextlib import suppress

SLOW_POLL = 0.25  # seconds between two looks without a bell
DEAF_POLL = 0.01  # the same where no socket can be bound
_LONGEST_PATH = 100  # the kernel allows 107 bytes, 103 on macOS
_SETTLED_NS = 100_000_000  # a folder changed this recently may change again without a newer time stamp


class _Folder:
    """A folder whose sockets can be addressed however long its path is."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1

    @property
    def fd(self) -> int:
        if self._fd < 0:
            _make(self.path)
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        return self._fd

    def address(self, name: str) -> str:
        direct = f"{self.path}/{name}"
        return direct if len(os.fsencode(direct)) <= _LONGEST_PATH else f"/proc/self/fd/{self.fd}/{name}"

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _make(path: str) -> None:
    with suppress(FileExistsError):
        os.mkdir(path)


class Bell:
    """The writer's side, for one folder. Not thread-safe: who commits holds the writer's lock."""

    def __init__(self, path: str) -> None:
        self._folder = _Folder(path)
        self._socket: socket.socket | None = None
        self._listed = (0, False)  # time stamp of the folder when it was listed, and whether that can be trusted
        self._waiting: list[str] = []

    def ring(self) -> None:
        """Wake every waiter. Never blocks, never raises."""
        try:
            changed = os.fstat(self._folder.fd).st_mtime_ns
            if self._listed != (changed, True):
                self._waiting = os.listdir(self._folder.path)
                self._listed = (changed, time.time_ns() - changed > _SETTLED_NS)
        except OSError:
            return
        for name in self._waiting:
            self._send(name)

    def _send(self, name: str) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        try:
            self._socket.sendto(b"\0", self._folder.address(name))
        except ConnectionRefusedError:  # its process is gone
            with suppress(OSError):
                os.unlink(f"{self._folder.path}/{name}")
        except OSError:  # full: its owner has a bell to answer already; or gone meanwhile
            pass

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._folder.close()


class Ear:
    """A socket in a folder, that hears its bell; readable once it has rung. Makes the folder, but not the one that it
    lies in. Raises OSError: FileNotFoundError where that one is not there, another where no socket can be bound."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._folder = _Folder(path)
        self._name = secrets.token_hex(8)
        try:
            _make(path)
            self._socket.bind(self._folder.address(self._name))
        except OSError:
            self._socket.close()
            self._folder.close()
            raise
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def hear(self) -> None:
        """Take note of every ring until now."""
        with suppress(OSError):
            while self._socket.recv(16):
                pass

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()
        with suppress(OSError):
            os.unlink(f"{self._folder.path}/{self._name}")
        self._folder.close()


class Waiter:
    """The waiting side, for one thread at a time, over any number of folders."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._hear, self._shout = socket.socketpair()
        self._hear.setblocking(False)
        self._poll.register(self._hear, select.POLLIN)
        self._ears: dict[str, Ear] = {}
        self._by_fd: dict[int, Ear] = {}
        self._deaf: set[str] = set()

    def listen(self, path: str) -> None:
        """Hear the bell of this folder from now on; makes the folder, but not the one that it lies in."""
        if path in self._ears or path in self._deaf:
            return
        try:
            ear = Ear(path)
        except FileNotFoundError:
            return
        except OSError:
            self._deaf.add(path)
            return
        self._ears[path] = self._by_fd[ear.fileno()] = ear
        self._poll.register(ear, select.POLLIN)

    def sleep(self, timeout: float) -> None:
        """Until a bell rings, `wake` is called, it is time to look again, or `timeout` seconds are over."""
        limit = min(timeout, DEAF_POLL if self._deaf else SLOW_POLL)
        for fd, _ in self._poll.poll(limit * 1000):
            if (ear := self._by_fd.get(fd)) is not None:
                ear.hear()
            else:
                with suppress(OSError):
                    while self._hear.recv(16):
                        pass

    def wake(self) -> None:
        """End a `sleep` in another thread."""
        with suppress(OSError):
            self._shout.send(b"\0")

    def close(self) -> None:
        for ear in self._ears.values():
            ear.close()
        self._ears.clear()
        self._hear.close()
        self._shout.close()
