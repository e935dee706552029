"""An event loop in a thread of its own, for code that iterates without one, or inside of one that runs already."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Pump:
    """Runs one step after the other; the caller waits for each."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="k2-stream", daemon=True)
        self._thread.start()
        self._step: asyncio.Task[Any] | None = None

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        """The step's result, or what it raises. Raises concurrent.futures.CancelledError after `interrupt`."""
        return asyncio.run_coroutine_threadsafe(self._held(step), self._loop).result()

    def interrupt(self) -> None:
        """Give up the step that is waited for. From any thread."""
        self._loop.call_soon_threadsafe(self._cancel)

    def close(self, source: AsyncGenerator[Any, None]) -> None:
        """End the step under way and what `source` holds open, then the loop."""
        asyncio.run_coroutine_threadsafe(self._end(source), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _held(self, step: Coroutine[Any, Any, T]) -> T:
        self._step = asyncio.current_task()
        try:
            return await step
        finally:
            self._step = None

    def _cancel(self) -> None:
        if self._step is not None:
            self._step.cancel()

    async def _end(self, source: AsyncGenerator[Any, None]) -> None:
        if (step := self._step) is not None:
            step.cancel()
            await asyncio.wait((step,))
        await source.aclose()
