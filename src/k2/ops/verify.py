"""The proof: every trade of the log is in the store once (hot and cold as one), none is missing between the first and
the last id, and every candle equals its recomputation from the log.

It may be asked while everything runs. What came in meanwhile is told apart: a candle that grew must equal the
recomputed one with as many of the newer trades, in the log's order, as it has more.
"""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from k2.config import EXCHANGES, Config
from k2.core.candle import INTERVALS, Candle
from k2.core.islands import Islands
from k2.log import Log
from k2.ops import outcome
from k2.ops.compare import Difference, compare_candles, unexplained
from k2.ops.evidence import (
    NOTHING,
    Counter,
    LogSide,
    Scope,
    Stored,
    Sums,
    stored_candles,
    stored_gaps,
    stored_trades,
)
from k2.ops.report import Check, at_least, equal, report
from k2.store import Store
from k2.store.commit import last_commit
from k2.wire import open_log, open_store

STALLED = 15.0  # seconds without progress after which waiting for the loader is given up
ROUNDS = 6  # so often the question is put while holes are being healed or `complete` is about to be corrected
PAUSE = 2.0
SHOWN = 5  # differing candles that are shown in full, for each interval

Say = Callable[[str], None]
Result = dict[str, Any]


class CannotVerifyError(Exception):
    """There was no way to come to a verdict; the text says why and what to do."""


def verify(
    config: Config,
    exchange: str | None = None,
    symbol: str | None = None,
    since: int | None = None,
    until: int | None = None,
    say: Say = lambda _: None,
) -> Result:
    """Prove the store from the log: the report of all checks. Raises CannotVerifyError, StoreError, LogError."""
    if symbol and not re.fullmatch(r"[A-Z0-9]+-[A-Z0-9]+", symbol):
        raise CannotVerifyError(f"{symbol!r} is not a symbol: write BASE-QUOTE in upper case, such as BTC-USDT")
    scope = Scope((exchange,) if exchange else EXCHANGES, symbol, since, until)
    log, store = open_log(config), open_store(config)
    try:
        side = LogSide(log, scope)
        for attempt in range(1, ROUNDS):
            round_ = Round(log, store, side, say)
            if all(check.ok for check in round_.checks):
                return _told(config, scope, round_.report(), say)
            say(f"not proven yet ({attempt}): {', '.join(check.name for check in round_.checks if not check.ok)}")
            time.sleep(PAUSE)
        return _told(config, scope, Round(log, store, side, say).report(), say)
    finally:
        store.close()
        log.close()


def _told(config: Config, scope: Scope, found: Result, say: Say) -> Result:
    """The result, once word of it has been left for metrics and alerts."""
    whole = scope.whole and scope.symbol is None and scope.exchanges == EXCHANGES
    try:
        outcome.leave(config.data_dir, found, whole)
    except OSError as error:
        say(f"what was found could not be left in {config.data_dir} for the metrics: {error}")
    return found


class Round:
    """One comparison of the whole scope: the log as it was, the store after that, the log after that."""

    def __init__(self, log: Log, store: Store, side: LogSide, say: Say) -> None:
        self.side = side
        self.ends = side.ends()
        say(f"reading {sum(self.ends.values()) - sum(side.positions.values())} records of the log")
        side.read(self.ends)
        _wait_for_loader(store, self.ends, say)
        logged = {counter: Islands(ids.to_list()) for counter, ids in side.ids.items()}
        sums = dict(side.sums)
        expected = {interval: side.builder.candles(width) for interval, width in INTERVALS.items()}
        ledger = side.states()
        stored: dict[Counter, Stored] = {}
        answered: dict[str, list[Candle]] = {interval: [] for interval in INTERVALS}
        for exchange in side.scope.exchanges:
            say(f"asking the store about {exchange}")
            stored |= stored_trades(store, side.scope, exchange, side.floors(exchange))
            for interval, width in INTERVALS.items():
                answered[interval] += stored_candles(store, side.scope, exchange, interval, width)
        gaps = stored_gaps(store, side.scope)
        newer = side.read(side.ends())
        moved = {(trade.exchange, trade.symbol, trade.epoch) for trade in newer}
        self.counters = [
            self._counter(
                counter,
                stored.get(counter, NOTHING),
                logged.get(counter),
                None if counter in moved else sums.get(counter),
            )
            for counter in sorted(side.ids.keys() | stored.keys())
        ]
        self.candles: dict[str, tuple[int, list[Difference]]] = {
            interval: compare_candles(side, expected[interval], answered[interval], newer, width)
            for interval, width in INTERVALS.items()
        }
        now = side.states()
        self.gaps_wrong = [key for key, state in ledger.items() if gaps.get(key) not in (state, now[key])]
        self.checks = self._checks()

    def _counter(self, counter: Counter, have: Stored, logged: Islands | None, sums: Sums | None) -> Result:
        """One symbol in one epoch. `sums` None: trades came in while the store was asked, so they are not compared."""
        exchange, symbol, epoch = counter
        side = self.side
        known = side.builder.present(*counter)
        ids = have.ids if side.scope.whole else known
        within = have.ids if have.ids else known
        first, last = within.first or 0, within.last or -1
        gaps = [gap for gap in side.ledger.values() if (gap.exchange, gap.symbol, gap.epoch) == counter]
        excused = Islands(pair for gap in gaps if gap.state == "unavailable" for pair in gap.missing)
        holes = ids.holes(first, last)
        missing = unexplained(holes, excused)
        begun = [gap.first_id for gap in gaps if gap.state in ("start", "epoch")]
        unavailable = sum(b - a + 1 for a, b in holes) - sum(b - a + 1 for a, b in missing)
        return {
            "exchange": exchange,
            "symbol": symbol,
            "epoch": epoch,
            "first_id": first,
            "last_id": last,
            "expected": last - first + 1 - unavailable,
            "present": have.ids.count,
            "missing": missing,
            "duplicates": have.rows - have.ids.count,
            "duplicates_in_log": side.duplicates.get(counter, 0),
            "open_gaps": sum(gap.state == "open" for gap in gaps),
            "unavailable": unavailable,
            "start": begun[0] if begun else None,
            "start_recorded": bool(begun) or not side.from_beginning(exchange),
            "equals_log": self._equals_log(counter, have, logged or Islands()) and sums in (None, have.sums),
        }

    def _equals_log(self, counter: Counter, have: Stored, logged: Islands) -> bool:
        """All that the log held is stored, and nothing is stored that it does not hold now."""
        now = self.side.ids.get(counter, Islands())
        floor = self.side.floor(counter)
        return not any(have.ids.holes(*pair) for pair in logged.to_list()) and not any(
            now.holes(max(first, floor), last) for first, last in have.ids.to_list() if last >= floor
        )

    def _checks(self) -> list[Check]:
        counters = self.counters
        total = {
            "missing trades": sum(b - a + 1 for one in counters for a, b in one["missing"]),
            "duplicates in the store": sum(one["duplicates"] for one in counters),
            "duplicates in the log": sum(one["duplicates_in_log"] for one in counters),
            "symbols whose store and log differ": sum(not one["equals_log"] for one in counters),
            "symbols whose start is not recorded": sum(not one["start_recorded"] for one in counters),
            "open gaps": sum(one["open_gaps"] for one in counters),
            "gaps that the store has otherwise than the log": len(self.gaps_wrong),
            **{f"{interval} candles that differ": len(wrong) for interval, (_, wrong) in self.candles.items()},
        }
        present = sum(one["present"] for one in counters)
        return [at_least("trades present", present, 1, ""), *(equal(name, value, 0) for name, value in total.items())]

    def report(self) -> Result:
        scope = self.side.scope
        results = {
            "trades": sum(one["present"] for one in self.counters),
            "expected": sum(one["expected"] for one in self.counters),
            "symbols": self.counters,
            "candles": {
                interval: {
                    "checked": checked,
                    "different": len(wrong),
                    "shown": [one._asdict() for one in wrong[:SHOWN]],
                }
                for interval, (checked, wrong) in self.candles.items()
            },
            "log": {stream: {"start": self.side.starts[stream], "end": end} for stream, end in self.ends.items()},
        }
        return report({**scope._asdict(), "exchanges": list(scope.exchanges)}, results, self.checks)


def _wait_for_loader(store: Store, ends: Mapping[str, int], say: Say) -> None:
    progress, since = -1, time.monotonic()
    while True:
        positions = last_commit(store).positions
        behind = {
            stream: end - positions.get(stream, 0) for stream, end in ends.items() if positions.get(stream, 0) < end
        }
        if not behind:
            return
        if sum(positions.values()) != progress:
            progress, since = sum(positions.values()), time.monotonic()
            say(f"waiting for the loader: {sum(behind.values())} records to go")
        elif time.monotonic() - since > STALLED:
            raise CannotVerifyError(
                f"the loader has not moved for {STALLED:.0f} s and lacks {sum(behind.values())} records of the log:"
                " start it with `k2 up` or `k2 demo` (or `k2 load` alone), then ask again"
            )
        time.sleep(0.1)
