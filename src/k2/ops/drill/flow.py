"""Does every trade arrive? What the exchanges made against what the store shows, by symbol, some times a second.

An exchange's flow is good if of each of its symbols every trade that is older than `FRESH_S` is visible: from the first
to the newest none is missing, which the ids tell. So "fresh again" and "every hole healed" are one condition. That the
newest are visible, whatever is missing before them, is kept as well: it comes first, healing takes as long as the
exchange's REST interface lets it.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from k2.ops.drill.timeline import Timeline
from k2.sim.truth import RECORD, SIZE, truth_dir
from k2.store import Store, StoreError

LOOK_EVERY_S = 0.25
FRESH_S = 1.0
ASK_WITHIN_S = 2.0
ASKED = (
    "SELECT exchange, symbol, epoch, count(), uniqExact(trade_id), min(trade_id), max(trade_id) "
    "FROM k2.silver_trades GROUP BY exchange, symbol, epoch"
)

Symbol = tuple[str, str, int]  # exchange, symbol, epoch


class Span(NamedTuple):
    """The trades of a symbol, `first` to `last`: `distinct` ids in `rows` rows."""

    first: int
    last: int
    distinct: int
    rows: int

    @property
    def dense(self) -> bool:
        return self.distinct == self.last - self.first + 1


Spans = Mapping[Symbol, Span]


class Tapes:
    """What the simulator has made, by symbol; read from the sizes of its truth files, whose ids are dense."""

    def __init__(self, data: Path) -> None:
        self._folder = truth_dir(data)
        self._first: dict[Path, int] = {}

    def spans(self) -> dict[Symbol, Span]:
        """What was made until now. Of one symbol's epochs each is a symbol of its own."""
        found = {}
        for file in self._folder.glob("*/*.trades"):
            count = file.stat().st_size // SIZE
            if not count:
                continue
            if file not in self._first:
                with file.open("rb") as tape:
                    self._first[file] = RECORD.unpack(tape.read(SIZE))[0]
            first = self._first[file]
            symbol, epoch, _ = file.name.split(".")
            found[file.parent.name, symbol, int(epoch)] = Span(first, first + count - 1, count, count)
        return found


def stored(store: Store) -> dict[Symbol, Span]:
    """What `silver_trades` shows. Raises StoreError."""
    return {
        (str(exchange), str(symbol), int(epoch)): Span(int(first), int(last), int(distinct), int(rows))
        for exchange, symbol, epoch, rows, distinct, first, last in store.rows(ASKED)
    }


def behind(made: Spans, shown: Spans) -> tuple[dict[str, str], dict[str, str]]:
    """The exchanges whose newest trades are not shown, and those whose trades are not all shown; each with the first
    symbol that lacks some, in words."""
    late: dict[str, str] = {}
    lacking: dict[str, str] = {}
    for symbol, wanted in made.items():
        have = shown.get(symbol)
        if have is None:
            late.setdefault(symbol[0], f"no trade of {symbol[1]} is visible")
        elif have.last < wanted.last:
            late.setdefault(symbol[0], f"{symbol[1]} is visible up to {have.last}, made up to {wanted.last}")
        elif have.first > wanted.first or not have.dense:
            missing = have.last - wanted.first + 1 - have.distinct
            lacking.setdefault(symbol[0], f"{symbol[1]} lacks {missing} before {have.last}")
    return late, {**lacking, **late}


class Flow(threading.Thread):
    """Looks until `end` is called. Its timelines name exchanges: `timeline` those that lack any trade, `newest` those
    that lack their newest. `twice` is the most repeated rows ever seen at once.

    `made` and `shown` tell what was made and what is visible now; `shown` may raise StoreError.
    """

    def __init__(self, made: Callable[[], Spans], shown: Callable[[], Spans]) -> None:
        super().__init__(name="flow", daemon=True)
        self.timeline, self.newest = Timeline(), Timeline()
        self.twice = 0
        self._made, self._shown = made, shown
        self._history: deque[tuple[float, Spans]] = deque()
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            self.look()

    def look(self) -> None:
        """One look."""
        asked = time.monotonic()
        made = self._made()
        self._history.append((asked, made))
        while len(self._history) > 1 and self._history[1][0] <= asked - FRESH_S:
            self._history.popleft()
        at, wanted = self._history[0]
        try:
            shown = self._shown()
        except StoreError as error:
            dark = {symbol[0]: f"the store: {error}" for symbol in made}
            self.newest.note(time.monotonic(), dark)
            self.timeline.note(time.monotonic(), dark)
            return
        self.twice = max(self.twice, sum(span.rows - span.distinct for span in shown.values()))
        due = wanted if at <= asked - FRESH_S else {}
        late, lacking = behind(due, shown)
        self.newest.note(time.monotonic(), late)
        self.timeline.note(time.monotonic(), lacking)

    def end(self) -> None:
        self._over.set()
        if self.is_alive():
            self.join(ASK_WITHIN_S + 3.0)
