"""Pipes between the event loop and the engine, which takes them for files. Neither end ever blocks the loop."""

import asyncio
import fcntl
import os
from contextlib import suppress

from k2.store.server.native import Blocks

_READ = 1 << 18
_F_SETPIPE_SZ = 1031  # Linux


class Pipe:
    """The end of a pipe that the event loop reads, and the number of the end that the engine writes."""

    def __init__(self, native_revision: int = 0) -> None:
        self._blocks = Blocks(native_revision) if native_revision else None
        self._loop = asyncio.get_running_loop()
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        with suppress(OSError):
            fcntl.fcntl(self._reader, _F_SETPIPE_SZ, _READ)

    async def read(self) -> bytes:
        """What is there, waiting for it if need be; empty at the end."""
        if self._blocks is None:
            return await self._read()
        while piece := await self._read():
            if blocks := self._blocks.feed(piece):
                return blocks
        return self._blocks.feed(b"", last=True)

    async def _read(self) -> bytes:
        while True:
            with suppress(BlockingIOError):
                return os.read(self._reader, _READ)
            ready = asyncio.Event()
            self._loop.add_reader(self._reader, ready.set)
            try:
                await ready.wait()
            finally:
                self._loop.remove_reader(self._reader)

    def close_writer(self) -> None:
        """Called from the worker when the statement is over."""
        os.close(self.writer)

    def close(self) -> None:
        """Stop reading: the engine's next write fails, and with it the statement."""
        os.close(self._reader)


class Feed:
    """The end of a pipe that the event loop writes, and the number of the end that the engine reads."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        with suppress(OSError):
            fcntl.fcntl(self._writer, _F_SETPIPE_SZ, _READ)

    async def write(self, data: bytes) -> bool:
        """Write all, waiting for the engine to read. False once it no longer reads: then the statement is over."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._writer, view) :]
            except BlockingIOError:
                await self._ready()
            except BrokenPipeError:
                return False
        return True

    async def _ready(self) -> None:
        ready = asyncio.Event()
        self._loop.add_writer(self._writer, ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_writer(self._writer)

    def close_reader(self) -> None:
        """Called when the statement is over."""
        os.close(self.reader)

    def close(self) -> None:
        """The end of the data."""
        os.close(self._writer)
