"""How long trades took, stage by stage: every live trade is counted, none is sampled."""

from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from k2 import trace
from k2.log import Batch
from k2.metrics import STAGE, STAGE_BUCKETS, observe_many
from k2.store.seen import Admission

_BOUNDS = [int(bucket * 1e9) for bucket in STAGE_BUCKETS]


class Latencies:
    """Counts into the stage histogram, and into a file if one is given: for each trade five native int64, in ns:
    exchange_ts, recv_ts, append_ts, the time the loader had read it, the time it was visible."""

    def __init__(self, file: BinaryIO | None = None) -> None:
        self._file = file

    def record(
        self,
        exchanges: Mapping[str, str],
        batches: Sequence[Batch],
        admissions: Sequence[Admission],
        read_ts: int,
        visible_ts: int,
    ) -> None:
        """Trades of `batches` have become visible. `exchanges` tells a stream's exchange."""
        received: dict[str, list[int]] = {}
        for batch, admission in zip(batches, admissions, strict=True):
            exchange = exchanges[batch.stream]
            count = len(admission.keys)
            trace.note("loaded", batch.stream, batch.offset, len(batch.values), read_ts, visible_ts)
            _observe("log_to_loader", exchange, read_ts - batch.append_ts, count)
            _observe("loader_to_visible", exchange, visible_ts - read_ts, count)
            received.setdefault(exchange, []).extend([visible_ts - key.recv_ts for key in admission.keys])
            if self._file:
                self._write(batch.append_ts, admission, read_ts, visible_ts)
        for exchange, times in received.items():
            counts = [0] * (len(_BOUNDS) + 1)
            for time in times:
                counts[bisect_left(_BOUNDS, time)] += 1
            for stage in ("receive_to_visible", "candle_visible"):  # the candle views read the same tail
                observe_many(STAGE.labels(stage, exchange), counts, sum(times) / 1e9)

    def _write(self, append_ts: int, admission: Admission, read_ts: int, visible_ts: int) -> None:
        out = array("q")
        for key in admission.keys:
            out.extend((key.exchange_ts, key.recv_ts, append_ts, read_ts, visible_ts))
        assert self._file
        self._file.write(out.tobytes())


def _observe(stage: str, exchange: str, time: int, count: int) -> None:
    counts = [0] * (len(_BOUNDS) + 1)
    counts[bisect_left(_BOUNDS, time)] = count
    observe_many(STAGE.labels(stage, exchange), counts, time * count / 1e9)
