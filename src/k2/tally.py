"""Latencies of a stage, gathered a batch at a time and handed to Prometheus now and then: what each process keeps."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from k2 import metrics

_BOUNDS_NS = [int(bound * 1e9) for bound in metrics.STAGE_BUCKETS]


class StageTally:
    """Latencies of one stage as bucket counts, for the histogram `k2_stage_seconds`."""

    def __init__(self, stage: str, exchange: str) -> None:
        self.metric = metrics.STAGE.labels(stage, exchange)
        self.counts = [0] * (len(_BOUNDS_NS) + 1)
        self.total_ns = 0

    def add(self, sorted_ns: Sequence[int]) -> None:
        """Latencies in ns, ascending. Costs a search per touched bucket, not per value."""
        self.total_ns += sum(sorted_ns)
        at, end = 0, len(sorted_ns)
        for i, bound in enumerate(_BOUNDS_NS):
            upto = bisect_right(sorted_ns, bound, at)
            self.counts[i] += upto - at
            at = upto
            if at == end:
                return
        self.counts[-1] += end - at

    def add_until(self, end_ns: int, sorted_starts: Sequence[int]) -> None:
        """The latencies from each of these times, ascending, until `end_ns`, without writing them down."""
        self.total_ns += end_ns * len(sorted_starts) - sum(sorted_starts)
        end = len(sorted_starts)
        for i, bound in enumerate(_BOUNDS_NS):
            at = bisect_left(sorted_starts, end_ns - bound, 0, end)
            self.counts[i] += end - at
            end = at
            if not at:
                return
        self.counts[-1] += end

    def add_same(self, ns: int, times: int) -> None:
        """One latency that `times` trades share."""
        self.total_ns += ns * times
        self.counts[bisect_left(_BOUNDS_NS, ns)] += times

    def flush(self) -> None:
        """Hand over what was gathered."""
        metrics.observe_many(self.metric, self.counts, self.total_ns / 1e9)
        self.counts = [0] * len(self.counts)
        self.total_ns = 0
