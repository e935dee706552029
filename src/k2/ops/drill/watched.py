"""Alerts, as Alertmanager sends them, while a drill's platform is broken and mended."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from k2.config import Config
from k2.ops.drill import DrillError
from k2.ops.watch.notices import Notice
from k2.ops.watch.watch import Watch, WatchError

SETTLE_WITHIN_S = 90.0
ALWAYS = "Watchdog"


class Watched:
    """A watch, by rounds. Times are monotonic seconds."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._since = watch.now()

    def begin(self) -> None:
        """A round begins: wait until no alert stands, and forget what came before. Raises DrillError."""
        try:
            self._watch.settle(SETTLE_WITHIN_S)
        except WatchError as error:
            raise DrillError(f"alerts stood before anything was broken: {error}") from None
        self._since = self._watch.now()

    def fired(self) -> Mapping[str, float]:
        """The alerts of which word came that they fire, and when it came first."""
        found: dict[str, float] = {}
        for notice in self._notices():
            if notice.firing:
                found.setdefault(notice.name, _monotonic(notice.at))
        return found

    def cleared(self) -> Mapping[str, float]:
        """Those that fired and of which, for all that they spoke of, word came that they are over; the last such."""
        standing: dict[str, set[tuple[str, str]]] = {}
        over: dict[str, float] = {}
        for notice in self._notices():
            about = (notice.receiver, str(sorted(notice.labels.items())))
            if notice.firing:
                standing.setdefault(notice.name, set()).add(about)
            elif about in standing.get(notice.name, ()):
                standing[notice.name].remove(about)
                over[notice.name] = _monotonic(notice.at)
        return {name: at for name, at in over.items() if not standing[name]}

    def _notices(self) -> list[Notice]:
        return [notice for notice in self._watch.book.notices(self._since) if notice.name != ALWAYS]


def _monotonic(epoch: float) -> float:
    return epoch - time.time() + time.monotonic()


@contextmanager
def watching(config: Config, folder: Path) -> Iterator[Watched]:
    """Watch a platform while inside. Raises DrillError when Prometheus or Alertmanager do not start."""
    watch = Watch(config, folder)
    try:
        watch.__enter__()
    except WatchError as error:
        raise DrillError(str(error)) from None
    try:
        yield Watched(watch)
    finally:
        watch.__exit__(None, None, None)
