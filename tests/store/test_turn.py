"""What becomes of a statement's pipe when its client goes away."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from tests.patience import PATIENCE_S

from k2.store.embedded import Answer
from k2.store.server.gate import Gate
from k2.store.server.turn import Turn


class Work:
    """A statement that is slow to open its data, and looks afterwards whether they are still there."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.over = threading.Event(), threading.Event(), threading.Event()
        self.killed = 0
        self.seen: list[Any] = []

    def insert_from(self, ask: Any, statement: Any, form: str, source: int) -> Answer:
        before = os.fstat(source).st_ino
        self.begun.set()
        self.go_on.wait(PATIENCE_S)
        try:
            self.seen.append(os.fstat(source).st_ino == before)
        except OSError as error:
            self.seen.append(error)
        self.over.set()
        return Answer(b"")

    def kill(self, query_id: str) -> bool:
        self.killed += 1
        return self.killed > 2  # the engine knows of the statement a moment after it was begun


async def never() -> AsyncIterator[bytes]:
    await asyncio.sleep(60)
    yield b""


@pytest.mark.parametrize("all_sent", [True, False])
def test_a_pipe_stays_open_until_its_statement_has_ended(all_sent: bool) -> None:
    async def scenario() -> Work:
        gate, work = Gate("write", 1), Work()
        incoming = SimpleNamespace(ask=SimpleNamespace(query_id="1"), statement=None, first=b"1\n", rest=None)
        turn = Turn(None, incoming, "TSV", gate, work)  # type: ignore[arg-type]
        task = asyncio.create_task(turn._insert_stream(b"1\n", None if all_sent else never()))
        await asyncio.to_thread(work.begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        taken = [os.pipe() for _ in range(8)]  # whoever comes next takes the numbers that are free
        work.go_on.set()
        await asyncio.to_thread(work.over.wait, 10)
        for pair in taken:
            for end in pair:
                os.close(end)
        await gate.close()
        return work

    work = asyncio.run(scenario())
    assert work.seen == [True]
    assert work.killed == (0 if all_sent else 3)
