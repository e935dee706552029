"""The recorder's figures, gathered a batch at a time and handed to Prometheus once a second."""

from collections import Counter, deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from statistics import median_low
from typing import NamedTuple

from k2 import metrics
from k2.core.sequence import Sequences
from k2.core.session import Decoded
from k2.core.types import Frame, Gap, Trade
from k2.tally import StageTally

OFFSETS_KEPT = 201  # live trades whose receive time less exchange time make the clock offset
STATES = ("start", "open", "healed", "unavailable", "epoch")


class Batch(NamedTuple):
    """New trades that were decoded together, at `decoded_ts` (ns)."""

    decoded_ts: int
    live: int
    backfill: int


class Meter:
    """Everything that one exchange's recorder counts."""

    def __init__(self, exchange: str) -> None:
        self.exchange = exchange
        self.frames = 0
        self.frame_bytes = 0
        self.live = 0
        self.backfill = 0
        self.duplicates = 0
        self.faults: Counter[str] = Counter()
        self.gaps: Counter[str] = Counter()
        self.last_trade: dict[str, int] = {}
        self.offsets: deque[int] = deque(maxlen=OFFSETS_KEPT)
        self.receive = StageTally("exchange_to_receive", exchange)
        self.decode = StageTally("receive_to_decoded", exchange)
        self.durable = StageTally("decoded_to_durable", exchange)
        self.lost = 0
        self.pauses = 0
        for state in STATES:  # a counter that first appears with its first event hides that event from `increase`
            metrics.GAPS.labels(exchange, state)
        metrics.LOST.labels(exchange)
        metrics.BACKPRESSURE.labels(exchange)

    def add_decoded(self, frames: Sequence[Frame], decoded: Decoded, gaps: Sequence[Gap], decoded_ts: int) -> Batch:
        """What these frames came to, and the events that go to the ledger with it; for `add_durable`."""
        self.frames += len(frames)
        self.frame_bytes += sum([len(frame.payload) for frame in frames])
        self.duplicates += decoded.duplicates + decoded.stale
        self.faults.update([fault.reason for fault in decoded.faults])
        self.gaps.update([gap.state for gap in gaps])
        self.lost += sum(last - first + 1 for gap in gaps if gap.state == "unavailable" for first, last in gap.missing)
        live = [trade for trade in decoded.fresh if trade.source == "live"]
        self._add_live(live, decoded_ts)
        return Batch(decoded_ts, len(live), len(decoded.fresh) - len(live))

    def add_durable(self, batch: Batch, durable_ts: int) -> None:
        """The batch's trades are in the log."""
        self.live += batch.live
        self.backfill += batch.backfill
        self.durable.add_same(durable_ts - batch.decoded_ts, batch.live)

    def _add_live(self, live: Sequence[Trade], decoded_ts: int) -> None:
        self.last_trade.update({trade.symbol: trade.recv_ts for trade in live})
        behind = [trade.recv_ts - trade.exchange_ts for trade in live]
        self.offsets.extend(behind)
        behind.sort()
        self.receive.add(behind)
        received = [trade.recv_ts for trade in live]
        received.sort()
        self.decode.add_until(decoded_ts, received)

    def forget(self, symbols: Collection[str]) -> None:
        """These are not captured any more: that they are silent means nothing."""
        for symbol in symbols:
            self.last_trade.pop(symbol, None)
            with suppress(KeyError):
                metrics.LAST_TRADE.remove(self.exchange, symbol)

    def flush(self, queued: int, pauses: int, sequences: Sequences) -> None:
        """Hand everything over. Call about once a second."""
        name = self.exchange
        metrics.FRAMES.labels(name).inc(self.frames)
        metrics.FRAME_BYTES.labels(name).inc(self.frame_bytes)
        metrics.TRADES.labels(name, "live").inc(self.live)
        metrics.TRADES.labels(name, "backfill").inc(self.backfill)
        metrics.DUPLICATES.labels(name).inc(self.duplicates)
        self.frames = self.frame_bytes = self.live = self.backfill = self.duplicates = 0
        for reason, count in self.faults.items():
            metrics.FAULTS.labels(name, reason).inc(count)
        for state, count in self.gaps.items():
            metrics.GAPS.labels(name, state).inc(count)
        self.faults.clear()
        self.gaps.clear()
        for symbol, at in self.last_trade.items():
            metrics.LAST_TRADE.labels(name, symbol).set(at / 1e9)
        self.last_trade.clear()
        if self.offsets:
            metrics.CLOCK_OFFSET.labels(name).set(median_low(self.offsets) / 1e9)
        metrics.QUEUE.labels("feed-frames").set(queued)
        metrics.LOST.labels(name).inc(self.lost)
        metrics.BACKPRESSURE.labels(name).inc(pauses - self.pauses)
        self.lost, self.pauses = 0, pauses
        self._flush_completeness(sequences)
        for tally in (self.receive, self.decode, self.durable):
            tally.flush()

    def _flush_completeness(self, sequences: Sequences) -> None:
        counters = sequences.by_symbol.values()
        gaps = [gap for counter in counters for gap in counter.missing]
        known = sum(counter.head - counter.first_id + 1 for counter in counters)
        open_gaps = [gap for gap in gaps if gap.state == "open"]
        metrics.GAPS_OPEN.labels(self.exchange).set(len(open_gaps))
        metrics.MISSING.labels(self.exchange).set(sum(gap.left for gap in open_gaps))
        if known > 0:
            metrics.COMPLETENESS.labels(self.exchange).set(1 - sum(gap.left for gap in gaps) / known)
