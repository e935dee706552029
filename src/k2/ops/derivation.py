"""From frames to a log: the feed's own decoder over archived frames, and a gap ledger that is true of what came out.

Trades that were received outside of the span are known to the decoder (as they were known when its frames arrived) but
are not in the new log; the ledger says so.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from k2.core.codec import GAPS_STREAM, encode_frames, encode_gap, frames_stream, trades_stream
from k2.core.exchange import Exchange
from k2.core.islands import Islands
from k2.core.sequence import Sequences
from k2.core.session import Decoded, Decoder
from k2.core.types import Frame, Gap
from k2.log import Entry, Log

OUTSIDE = "received outside of the time that was rederived"
FROM_HERE = "rederived from here on"

Counter = tuple[str, int]  # symbol, epoch
Ids = dict[Counter, Islands]


class Derived(NamedTuple):
    """What the frames came to. Times are receive times, ns; 0 where there was no frame.

    `absent`: log offsets between the first and the last frame that no frame has.
    """

    frames: int = 0
    trades: int = 0
    duplicates: int = 0
    faults: int = 0
    absent: int = 0
    first_recv_ts: int = 0
    last_recv_ts: int = 0


class Derivation:
    """Writes one exchange's frames, trades and gap events to a new log. `feed` the frames in order, then `finish`."""

    def __init__(self, log: Log, exchange: Exchange, sequences: Sequences) -> None:
        self._log = log
        self._name = exchange.name
        self._decoder = Decoder(exchange, sequences)
        self._ids: Ids = {}
        self._ledger: dict[tuple[str, int, int], Gap] = {}
        self._begun: set[Counter] = set()
        self._next_offset: int | None = None
        self.done = Derived()

    def feed(self, frames: Sequence[tuple[int, Frame]]) -> None:
        """Decode these frames, given with their offsets, and append what they give. Raises LogError."""
        plain = [frame for _, frame in frames]
        decoded = self._decoder.run(plain)
        for trade in decoded.fresh:
            ids = self._ids.get((trade.symbol, trade.epoch))
            if ids is None:
                ids = self._ids[trade.symbol, trade.epoch] = Islands()
            ids.add(trade.trade_id)
        entries = [Entry(frames_stream(self._name), [""] * len(plain), encode_frames(plain))]
        if decoded.values:
            entries.append(Entry(trades_stream(self._name), decoded.keys, decoded.values))
        self._log.append(entries)
        self._note(decoded.gaps)
        self._count(frames, decoded)

    def finish(self, outside: Iterable[Ids], ledger: Iterable[Gap]) -> None:
        """Bring the ledger up to date with what is in the new log, and what is not.

        `outside`: ids that were received outside of the span; `ledger`: the old one. A hole is excused by these two
        alone: any other stays open, for the frames do not give trades that they gave before. Raises LogError.
        """
        given_up = _given_up(ledger)
        elsewhere: Ids = {}
        for known in outside:
            for counter, ids in known.items():
                for pair in ids.to_list():
                    elsewhere.setdefault(counter, Islands()).add_range(*pair)
        self._excuse_open(given_up, elsewhere)
        for counter, ids in sorted(self._ids.items(), key=lambda item: item[0]):
            self._tell_start(counter, ids)
            self._tell_holes(counter, ids, elsewhere.get(counter, Islands()))

    def _excuse_open(self, given_up: dict[Counter, list[Gap]], elsewhere: Ids) -> None:
        sequences = self._decoder.sequences
        for hole in sequences.holes():
            counter = hole.symbol, hole.epoch
            gaps = given_up.get(counter, [])
            missing = sequences.missing(hole)
            old = Islands(pair for gap in gaps for pair in gap.missing)
            left = _outside_of(missing, old)
            if _outside_of(left, elsewhere.get(counter, Islands())):
                continue
            reason = OUTSIDE if left else next(g.reason for g in gaps if _overlap(g.missing, missing))
            event = sequences.unavailable(hole, reason, self.done.last_recv_ts)
            if event is not None:
                self._note([event])

    def _tell_start(self, counter: Counter, ids: Islands) -> None:
        if counter not in self._begun:
            symbol, epoch = counter
            at = self.done.first_recv_ts
            first = ids.first or 0
            state = "epoch" if epoch else "start"
            self._note([Gap(self._name, symbol, first, first, state, FROM_HERE, at, at, (), epoch)])  # type: ignore[arg-type]

    def _tell_holes(self, counter: Counter, ids: Islands, elsewhere: Islands) -> None:
        symbol, epoch = counter
        told = Islands()
        for gap in self._ledger.values():
            if (gap.symbol, gap.epoch) == counter and gap.state in ("open", "unavailable"):
                for pair in gap.missing or ((gap.first_id, gap.last_id),):
                    told.add_range(*pair)
        holes = _outside_of(ids.holes(ids.first or 0, ids.last or 0), told)
        at = self.done.first_recv_ts
        for first, last in holes:
            if not _outside_of([(first, last)], elsewhere):
                missing = ((first, last),)
                self._note([Gap(self._name, symbol, first, last, "unavailable", OUTSIDE, at, at, missing, epoch)])

    def _note(self, gaps: Sequence[Gap]) -> None:
        for gap in gaps:
            if gap.state in ("start", "epoch"):
                self._begun.add((gap.symbol, gap.epoch))
            else:
                self._ledger[gap.symbol, gap.epoch, gap.first_id] = gap
        if gaps:
            self._log.append([Entry(GAPS_STREAM, [gap.symbol for gap in gaps], [encode_gap(gap) for gap in gaps])])

    def _count(self, frames: Sequence[tuple[int, Frame]], decoded: Decoded) -> None:
        before, offsets = self.done, [offset for offset, _ in frames]
        expected = offsets[0] if self._next_offset is None else self._next_offset
        times = [frame.recv_ts for _, frame in frames]
        self.done = Derived(
            before.frames + len(frames),
            before.trades + len(decoded.values),
            before.duplicates + decoded.duplicates + decoded.stale,
            before.faults + len(decoded.faults),
            before.absent + offsets[-1] + 1 - expected - len(offsets),
            min(before.first_recv_ts or times[0], *times),
            max(before.last_recv_ts, *times),
        )
        self._next_offset = offsets[-1] + 1


def _given_up(ledger: Iterable[Gap]) -> dict[Counter, list[Gap]]:
    """The gaps whose latest event says that they cannot be had, by symbol and epoch."""
    latest = {(gap.symbol, gap.epoch, gap.first_id, gap.state in ("start", "epoch")): gap for gap in ledger}
    found: dict[Counter, list[Gap]] = {}
    for gap in latest.values():
        if gap.state == "unavailable":
            found.setdefault((gap.symbol, gap.epoch), []).append(gap)
    return found


def _outside_of(ranges: Iterable[tuple[int, int]], ids: Islands) -> list[tuple[int, int]]:
    """The parts of the ranges that are not among the ids."""
    return [part for first, last in ranges for part in ids.holes(first, last)]


def _overlap(some: Iterable[tuple[int, int]], others: Sequence[tuple[int, int]]) -> bool:
    return any(a <= d and c <= b for a, b in some for c, d in others)
