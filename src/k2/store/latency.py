"""How long trades took, stage by stage: every live trade is counted, none is sampled."""

import time
from collections.abc import Mapping, Sequence

from k2 import trace
from k2.log import Batch
from k2.store.seen import Admission
from k2.tally import StageTally

HAND_OVER_S = 1.0


class Stages:
    """One exchange's."""

    def __init__(self, exchange: str) -> None:
        self.read = StageTally("log_to_loader", exchange)
        self.shown = StageTally("loader_to_visible", exchange)
        self.whole = StageTally("receive_to_visible", exchange)
        self.candle = StageTally("candle_visible", exchange)


class Latencies:
    """Counts into the stage histogram, and notes each batch in the trace, if there is one."""

    def __init__(self) -> None:
        self._stages: dict[str, Stages] = {}
        self._handed_over = time.monotonic()

    def record(
        self,
        exchanges: Mapping[str, str],
        batches: Sequence[Batch],
        admissions: Sequence[Admission],
        read_ts: int,
        visible_ts: int,
    ) -> None:
        """Trades of `batches` have become visible. `exchanges` tells a stream's exchange."""
        for batch, admission in zip(batches, admissions, strict=True):
            exchange = exchanges[batch.stream]
            stages = self._stages.get(exchange)
            if stages is None:
                stages = self._stages[exchange] = Stages(exchange)
            count = len(admission.keys)
            trace.note("loaded", batch.stream, batch.offset, len(batch.values), read_ts, visible_ts)
            stages.read.add_same(read_ts - batch.append_ts, count)
            stages.shown.add_same(visible_ts - read_ts, count)
            received = sorted([key.recv_ts for key in admission.keys])
            stages.whole.add_until(visible_ts, received)
            stages.candle.add_until(visible_ts, received)  # the candle views read the same tail

    def hand_over(self, now: float) -> None:
        """Give Prometheus what was gathered, once a second. `now`: the monotonic clock."""
        if now - self._handed_over >= HAND_OVER_S:
            self._handed_over = now
            for stages in self._stages.values():
                for tally in (stages.read, stages.shown, stages.whole, stages.candle):
                    tally.flush()
