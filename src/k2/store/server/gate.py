"""How many statements run at once: a bounded number, with a bounded queue before it and threads of their own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

from k2 import metrics
from k2.store.server.status import refusal

WAITING = 64
_P = ParamSpec("_P")
_T = TypeVar("_T")


class Gate:
    """Lets in so many statements of one kind of account; the rest wait, up to a bound. Used in the event loop."""

    def __init__(self, kind: str, running: int) -> None:
        self._pool = ThreadPoolExecutor(running, thread_name_prefix=f"store-{kind}")
        self._slots = asyncio.Semaphore(running)
        self._waiting = 0
        self._depth = metrics.QUEUE.labels(f"store-{kind}")

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Raises StoreError 202 when too many wait already."""
        if self._slots.locked():
            if self._waiting >= WAITING:
                raise refusal(202, "TOO_MANY_SIMULTANEOUS_QUERIES", f"Too many simultaneous queries: {WAITING} wait")
            self._waiting += 1
            self._depth.set(self._waiting)
            try:
                await self._slots.acquire()
            finally:
                self._waiting -= 1
                self._depth.set(self._waiting)
        else:
            await self._slots.acquire()
        try:
            yield
        finally:
            self._slots.release()

    def submit(self, function: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> Future[_T]:
        """Run a blocking function in a thread of this gate. Done means that it has ended, or will never begin."""
        return self._pool.submit(function, *arguments, **named)

    def run(self, function: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> "asyncio.Future[_T]":
        """The same, to be awaited. Who is cancelled meanwhile goes away; the function may still be running then."""
        return asyncio.wrap_future(self.submit(function, *arguments, **named))

    async def close(self) -> None:
        """Wait for the threads to end."""
        await asyncio.to_thread(self._pool.shutdown, True, cancel_futures=True)
