"""An event loop in a thread of its own, for code that iterates without one, or inside of one that runs already."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class Pump:
    """Runs one step after the other; the caller waits for each."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="k2-stream", daemon=True)
        self._thread.start()
        self._pending: Future[Any] | None = None

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        """The step's result, or what it raises. Raises concurrent.futures.CancelledError after `interrupt`."""
        pending: Future[T] = asyncio.run_coroutine_threadsafe(step, self._loop)
        self._pending = pending
        try:
            return pending.result()
        except KeyboardInterrupt:
            pending.cancel()
            raise
        finally:
            self._pending = None

    def interrupt(self) -> None:
        """Give up the step that is waited for. From any thread."""
        if (pending := self._pending) is not None:
            pending.cancel()

    def close(self, source: AsyncGenerator[Any, None]) -> None:
        """End what `source` holds open, then the loop."""
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(source.aclose(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
