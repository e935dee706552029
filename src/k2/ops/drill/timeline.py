"""What is wrong, and since when: a thread looks again and again and writes it down, another asks."""

import threading
from collections.abc import Mapping
from typing import NamedTuple


class Spell(NamedTuple):
    """Something was wrong from `since` to `until` (monotonic seconds); `until` None: it still is."""

    what: str
    since: float
    until: float | None
    why: str


class Timeline:
    """Thread-safe. Times are monotonic seconds, ascending."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wrong: dict[str, tuple[float, str]] = {}
        self._past: list[Spell] = []
        self._clean_since: float | None = None
        self.looks = 0

    def note(self, at: float, wrong: Mapping[str, str]) -> list[str]:
        """What a look at that time found wrong, with the reason. Returns what was not wrong at the look before."""
        with self._lock:
            self.looks += 1
            for what in self._wrong.keys() - wrong.keys():
                since, why = self._wrong.pop(what)
                self._past.append(Spell(what, since, at, why))
            new = [what for what in wrong if what not in self._wrong]
            for what in new:
                self._wrong[what] = (at, wrong[what])
            if wrong:
                self._clean_since = None
            elif self._clean_since is None:
                self._clean_since = at
            return new

    def clean_since(self) -> float | None:
        """Since which look nothing has been wrong; None: something is, or nobody has looked yet."""
        with self._lock:
            return self._clean_since

    def wrong(self) -> dict[str, str]:
        """What is wrong now, and why."""
        with self._lock:
            return {what: why for what, (_, why) in self._wrong.items()}

    def spells(self, since: float) -> list[Spell]:
        """Everything that was or is wrong after that time, in the order in which it began."""
        with self._lock:
            now = [Spell(what, at, None, why) for what, (at, why) in self._wrong.items()]
            past = [one for one in self._past if one.until is not None and one.until > since]
        return sorted(past + now, key=lambda one: one.since)
