"""A TCP proxy that can behave as a broken network does: hold everything back, reset, delay, go slowly.

A network that is cut closes nothing: it forwards no more, and both ends wait. That is what `cut` does. What the ends
sent meanwhile arrives when it heals, as TCP's retransmissions would bring it; a connection that is made during the cut
is accepted by the kernel's queue and hears nothing.
"""

import asyncio
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

CHUNK = 1 << 16
ANSWER_WITHIN = 10.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards from a loopback port to `target`, in a thread of its own, until `close`. A context manager.

    `counted` is the number of connections ever accepted, `carried` that of bytes forwarded in both directions.
    """

    def __init__(
        self, target: tuple[str, int], host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        """`port` 0: any free one. `tls`: the proxy's own side is TLS, the target's is not. Raises OSError."""
        self.target = target
        self.counted = 0
        self.carried = 0
        self._tls = tls
        self._delay = 0.0
        self._rate = 0.0  # bytes a second in each direction; 0: no limit
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._fars: set[asyncio.StreamWriter] = set()
        self._forgotten: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        try:
            self._server = self._run(self._listen(host, port))
        except BaseException:
            self._end_loop()
            raise
        self.host, self.port = self._server.sockets[0].getsockname()[:2]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._pumps)

    def cut(self) -> None:
        """From now on nothing goes through, either way, and nothing is closed."""
        self._call(self._open.clear)

    def heal(self, forget: bool = False) -> None:
        """Everything goes through again, also what was held back. `forget`: but not on the connections that there are,
        which are closed on the target's side and stay silent for ever on this one, as when a router has forgotten them.
        """
        if forget:
            self._run(self._forget())
        self._call(self._open.set)

    def reset(self) -> None:
        """End all connections with a reset, on both sides. New ones are taken."""
        self._run(self._reset())

    def delay(self, seconds: float) -> None:
        """Forward everything so much later; 0: at once."""
        self._call(setattr, self, "_delay", seconds)

    def throttle(self, bytes_per_s: float) -> None:
        """Forward at most so much in each direction of each connection; 0: without a limit."""
        self._call(setattr, self, "_rate", bytes_per_s)

    def close(self) -> None:
        """End all connections and stop listening. Idempotent."""
        if self._thread.is_alive():
            self._run(self._close())
            self._end_loop()

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _call(self, function: Any, *arguments: Any) -> None:
        async def call() -> None:
            function(*arguments)

        self._run(call())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(ANSWER_WITHIN)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ANSWER_WITHIN)
        self._loop.close()

    async def _listen(self, host: str, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._take, host, port, limit=CHUNK, backlog=1024, ssl=self._tls)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counted += 1
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        try:
            await self._open.wait()
            far_reader, far_writer = await asyncio.open_connection(*self.target, limit=CHUNK)
            self._fars.add(far_writer)
            try:
                async with asyncio.TaskGroup() as both:
                    self._pump(both, reader, far_writer)
                    self._pump(both, far_reader, writer)
            finally:
                self._fars.discard(far_writer)
                _hang_up(far_writer)
        except* (OSError, asyncio.CancelledError):
            pass  # an end is gone: so is the other, below
        finally:
            self._pumps.discard(task)
            if writer not in self._forgotten:
                self._writers.discard(writer)
                _hang_up(writer)

    def _pump(self, tasks: asyncio.TaskGroup, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction until its end. What is delayed is read on, so that a delay slows nothing down."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)
        tasks.create_task(self._read(reader, waiting))
        tasks.create_task(self._write(writer, waiting))

    async def _read(self, reader: asyncio.StreamReader, waiting: "asyncio.Queue[tuple[float, bytes]]") -> None:
        while data := await reader.read(CHUNK):
            await waiting.put((time.monotonic() + self._delay, data))
            if self._rate:
                await asyncio.sleep(len(data) / self._rate)
            await self._open.wait()
        await waiting.put((time.monotonic() + self._delay, b""))

    async def _write(self, writer: asyncio.StreamWriter, waiting: "asyncio.Queue[tuple[float, bytes]]") -> None:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._open.wait()
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(data)
            self.carried += len(data)
            await writer.drain()

    async def _forget(self) -> None:
        pumps, self._pumps = self._pumps, set()
        self._forgotten |= self._writers
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _reset(self) -> None:
        for writer in [*self._writers, *self._fars, *self._forgotten]:
            handle: socket.socket | None = writer.get_extra_info("socket")
            if handle is not None:
                with suppress(OSError):
                    handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()
        self._forgotten.clear()

    async def _close(self) -> None:
        self._server.close()
        await self._reset()
        for task in list(self._pumps):
            task.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)


def _hang_up(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, RuntimeError):
        writer.close()


def serve_tls(listen: str, target: str, cert: Path, key: Path) -> None:
    """A proxy that speaks TLS at `listen` and plainly with `target` (`host:port` each), until its standard input ends:
    what stands before an exchange's servers, for a simulator in a network of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    host, _, port = listen.rpartition(":")
    far, _, far_port = target.rpartition(":")
    with Proxy((far, int(far_port)), host, int(port), context):
        sys.stdin.buffer.read()


if __name__ == "__main__":
    serve_tls(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
