"""Progress that several threads make."""

import threading
from collections.abc import Callable

from k2.tier import Progress

Say = Callable[[Progress], object]


class Counting:
    """Adds up rows and tells them, one thread at a time. More than `total` raises the total."""

    def __init__(self, table: str, say: Say | None, total: int) -> None:
        self._table = table
        self._say = say
        self._total = total
        self._done = 0
        self._lock = threading.Lock()

    def __call__(self, rows: int) -> None:
        with self._lock:
            self._done += rows
            if self._say:
                self._say(Progress(self._table, self._done, max(self._total, self._done)))
