"""The ids of one symbol: which are there, which are missing, and when the venue began to count anew.

Verdict and epoch of a trade depend on the trades observed before it and on nothing else: no clock, no heartbeat.
"""

from bisect import bisect_right, insort
from enum import Enum
from typing import NamedTuple

import msgspec

from k2.core.islands import Islands
from k2.core.types import Gap, GapState, Hole, Trade

EPOCH_IDS = 1_000  # an id so far below the newest one ...
EPOCH_NS = 1_000_000_000  # ... of a trade so much younger than the youngest one: the venue restarted its counter


class Verdict(Enum):
    """NEW: record it. DUPLICATE: recorded before. STALE: from before the capture (or the epoch) began, leave it out."""

    NEW = 1
    DUPLICATE = 2
    STALE = 3


class Observation(NamedTuple):
    """What one trade tells. `epoch` is the one to record it with; `gaps` are ledger events, to be written after it.

    The ledger events are pure too: their times are the trade's `recv_ts`, so observing again gives the same bytes.
    """

    verdict: Verdict
    epoch: int
    gaps: tuple[Gap, ...] = ()


class Missing(msgspec.Struct):
    """One gap that is not healed. `left` of its ids are still missing."""

    first_id: int
    last_id: int
    left: int
    before_ts: int
    after_ts: int
    detected_ts: int
    state: GapState = "open"
    reason: str = ""
    event_ts: int = 0


class CounterState(msgspec.Struct):
    """A symbol's sequence as it stands in a checkpoint."""

    symbol: str
    native_symbol: str
    epoch: int
    present: list[tuple[int, int]]
    head: int
    last_ts: int
    newest_ts: int
    began_ts: int
    began_recv_ts: int
    missing: list[Missing]
    began_id: int
    first_id: int
    after_ts: int = 0


class Counter:
    """The ids of one symbol in its current epoch.

    `head` is the highest id known to exist: seen, or announced by a heartbeat. `missing` holds the gaps up to it, by
    `first_id`, disjoint; ids below `self.first_id` were never claimed: the first trade seen begins the capture, but a
    restarted counter begins with 1, seen or not. The first one seen is `began_id`. `after_ts`: the epoch before had a
    trade at that time.
    """

    __slots__ = (
        "_ends",
        "_next_id",
        "_present",
        "after_ts",
        "began_id",
        "began_recv_ts",
        "began_ts",
        "epoch",
        "exchange",
        "first_id",
        "head",
        "last_ts",
        "missing",
        "native_symbol",
        "newest_ts",
        "symbol",
    )

    def __init__(self, exchange: str, state: CounterState) -> None:
        self.exchange = exchange
        self.symbol = state.symbol
        self.native_symbol = state.native_symbol
        self.epoch = state.epoch
        self.head = state.head
        self.last_ts = state.last_ts
        self.newest_ts = state.newest_ts
        self.began_ts = state.began_ts
        self.began_recv_ts = state.began_recv_ts
        self.missing = state.missing
        self.began_id = state.began_id
        self.first_id = state.first_id
        self.after_ts = state.after_ts
        self._present = Islands.from_list(state.present)
        self._ends = self._present.ends
        self._next_id = self.head + 1 if self._present.last == self.head else 0

    def state(self) -> CounterState:
        return CounterState(
            self.symbol,
            self.native_symbol,
            self.epoch,
            self._present.to_list(),
            self.head,
            self.last_ts,
            self.newest_ts,
            self.began_ts,
            self.began_recv_ts,
            self.missing,
            self.began_id,
            self.first_id,
            self.after_ts,
        )

    def follows(self, number: int, ts: int) -> bool:
        """Take the trade of this id and time if nothing is missing between the newest one and it, as almost always."""
        if number != self._next_id:
            return False
        self._ends[-1] = self.head = number
        self._next_id = number + 1
        self.last_ts = ts
        if ts > self.newest_ts:  # noqa: PLR1730  a call of max would be a fifth of this path
            self.newest_ts = ts
        return True

    def observe(self, trade: Trade) -> Observation:
        number = trade.trade_id
        if self.follows(number, trade.exchange_ts):
            return Observation(Verdict.NEW, self.epoch)
        if trade.epoch > self.epoch:
            return self._new_epoch(trade)
        if number < self.first_id or number in self._present:
            if self._restarted(trade):
                return self._new_epoch(trade)
            return Observation(Verdict.STALE if number < self.first_id else Verdict.DUPLICATE, self.epoch)
        if self.epoch and self._left_over(trade):
            return Observation(Verdict.STALE, self.epoch)
        return Observation(Verdict.NEW, self.epoch, self._ahead(trade) if number > self.head else self._late(trade))

    def observe_last(self, last_id: int, recv_ts: int) -> tuple[Gap, ...]:
        """The venue says that `last_id` exists. Ids after the head up to it are missing from now on."""
        if last_id <= self.head:
            return ()
        gap = Missing(self.head + 1, last_id, last_id - self.head, self.last_ts, 0, recv_ts)
        self.head, self._next_id = last_id, 0
        return (self._open(gap, "a heartbeat announced a later trade", recv_ts),)

    @property
    def last_id(self) -> int:
        """The highest id seen."""
        return self._present.last or 0

    def holes(self, first_id: int, last_id: int) -> list[tuple[int, int]]:
        return self._present.holes(first_id, last_id)

    def hole(self, gap: Missing) -> Hole:
        """The gap, narrowed to what is still missing."""
        absent = self._present.holes(gap.first_id, gap.last_id)
        first, last = absent[0][0], absent[-1][1]
        return Hole(self.symbol, self.native_symbol, self.epoch, first, last, gap.before_ts, gap.after_ts)

    def following(self) -> Hole:
        return Hole(self.symbol, self.native_symbol, self.epoch, self.head + 1, self.head + 1, self.newest_ts)

    def start_event(self) -> Gap:
        state: GapState = "epoch" if self.epoch else "start"
        reason = "the venue restarted its trade ids" if self.epoch else "the first trade seen"
        first, at = self.began_id, self.began_recv_ts
        return Gap(self.exchange, self.symbol, first, first, state, reason, at, at, (), self.epoch)

    def event(self, gap: Missing) -> Gap:
        """A gap as the ledger has it: the same bytes as when its state last changed."""
        return self._event(gap, gap.state, gap.event_ts)

    def unavailable(self, hole: Hole, reason: str, now_ns: int) -> Gap | None:
        gap = self._spanning(hole.first_id)
        if gap is None or hole.epoch != self.epoch:
            return None
        gap.state, gap.reason, gap.event_ts = "unavailable", reason, now_ns
        return self.event(gap)

    def adopt(self, gap: Gap) -> tuple[Gap, ...]:
        if gap.epoch != self.epoch or gap.last_id < self.first_id:
            return ()
        opened = self.observe_last(gap.last_id, gap.detected_ts)
        known = self._spanning(gap.first_id)
        if known is None:
            return (*opened, self._settled(gap))
        if known.first_id != gap.first_id:
            return (*opened, *self._cut(known, gap.first_id))
        known.state, known.reason = gap.state, gap.reason
        known.event_ts, known.detected_ts = gap.event_ts, gap.detected_ts
        return ()

    def _restarted(self, trade: Trade) -> bool:
        return (
            trade.trade_id < self.last_id - EPOCH_IDS
            and trade.source == "live"
            and trade.exchange_ts > self.newest_ts + EPOCH_NS
        )

    def _left_over(self, trade: Trade) -> bool:
        """Whether it belongs to the epoch before, sent late or still told by REST."""
        if trade.source == "backfill":
            return trade.exchange_ts < self.after_ts
        return trade.exchange_ts < self.began_ts and trade.trade_id > self.last_id + EPOCH_IDS

    def _new_epoch(self, trade: Trade) -> Observation:
        """The restarted counter begins with 1: what of it came before this trade is missing."""
        at = trade.recv_ts
        given_up = []
        for gap in self.missing:
            gap.state, gap.reason, gap.event_ts = "unavailable", "the venue restarted its trade ids", at
            given_up.append(self.event(gap))
        state = first_state(trade, max(trade.epoch, self.epoch + 1))
        state.first_id, state.after_ts = min(1, trade.trade_id), self.newest_ts
        self.__init__(self.exchange, state)  # type: ignore[misc]
        if trade.trade_id <= 1:
            return Observation(Verdict.NEW, self.epoch, (*given_up, self.start_event()))
        before = Missing(1, trade.trade_id - 1, trade.trade_id - 1, state.after_ts, trade.exchange_ts, at)
        opened = self._open(before, "the restarted counter was not seen from 1", at)
        return Observation(Verdict.NEW, self.epoch, (*given_up, self.start_event(), opened))

    def _ahead(self, trade: Trade) -> tuple[Gap, ...]:
        number, at = trade.trade_id, trade.recv_ts
        events: tuple[Gap, ...] = ()
        if number > self.head + 1:
            first, last = self.head + 1, number - 1
            gap = Missing(first, last, last - first + 1, self.last_ts, trade.exchange_ts, at)
            events = (self._open(gap, "trade ids were skipped", at),)
        self._present.add(number)
        self.head, self._next_id = number, number + 1
        self.last_ts = trade.exchange_ts
        self.newest_ts = max(self.newest_ts, trade.exchange_ts)
        return events

    def _late(self, trade: Trade) -> tuple[Gap, ...]:
        number = trade.trade_id
        if number > self.last_id:
            self.last_ts = trade.exchange_ts
            if number == self.head:
                self._next_id = number + 1
        self._present.add(number)
        self.newest_ts = max(self.newest_ts, trade.exchange_ts)
        gap = self._spanning(number)
        if gap is None:
            return ()
        gap.left -= 1
        return () if gap.left else (self._healed(gap, trade.recv_ts),)

    def _spanning(self, number: int) -> Missing | None:
        i = bisect_right(self.missing, number, key=_first_id)
        return self.missing[i - 1] if i and number <= self.missing[i - 1].last_id else None

    def _open(self, gap: Missing, reason: str, at: int) -> Gap:
        gap.reason, gap.event_ts = reason, at
        insort(self.missing, gap, key=_first_id)
        return self.event(gap)

    def _healed(self, gap: Missing, at: int) -> Gap:
        self.missing.remove(gap)
        return self._event(gap, "healed", at)

    def _cut(self, gap: Missing, at_id: int) -> tuple[Gap, ...]:
        """Two gaps out of one: the ledger names one that begins at `at_id`."""
        upper = msgspec.structs.replace(gap, first_id=at_id)
        gap.last_id = at_id - 1
        self.missing.insert(self.missing.index(gap) + 1, upper)
        return tuple(self._recount(part) for part in (gap, upper))

    def _recount(self, gap: Missing) -> Gap:
        gap.left = sum(last - first + 1 for first, last in self._present.holes(gap.first_id, gap.last_id))
        return self.event(gap) if gap.left else self._healed(gap, gap.event_ts)

    def _settled(self, gap: Gap) -> Gap:
        """The ledger's gap whose first id arrived: what is missing of its range stands in the ledger by other names."""
        i = bisect_right(self.missing, gap.first_id, key=_first_id)
        last = min(gap.last_id, self.missing[i].first_id - 1) if i < len(self.missing) else gap.last_id
        return msgspec.structs.replace(gap, state="healed", last_id=last, missing=())

    def _event(self, gap: Missing, state: GapState, at: int) -> Gap:
        absent = tuple(self._present.holes(gap.first_id, gap.last_id)) if state == "unavailable" else ()
        return Gap(
            self.exchange,
            self.symbol,
            gap.first_id,
            gap.last_id,
            state,
            gap.reason,
            at,
            gap.detected_ts,
            absent,
            self.epoch,
        )


def _first_id(gap: Missing) -> int:
    return gap.first_id


def first_state(trade: Trade, epoch: int) -> CounterState:
    number, ts = trade.trade_id, trade.exchange_ts
    return CounterState(
        trade.symbol,
        trade.native_symbol,
        epoch,
        [(number, number)],
        number,
        ts,
        ts,
        ts,
        trade.recv_ts,
        [],
        number,
        number,
    )
