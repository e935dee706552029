"""How far a consumer is behind, in records and in time: measured whenever metrics are asked for, never on its way.

So it is right also while the consumer stands still, which is when it matters.
"""

import time
from collections.abc import Callable, Iterable, Mapping

from k2 import metrics
from k2.log import Log, LogError

Positions = Callable[[], Mapping[str, int]]
_REMEMBERED_S = 0.2  # the gauges of one page are asked one after the other: they share a look


class Lag:
    """One consumer of one stream. `positions` gives the offset of the record that it wants next, as of now."""

    def __init__(self, log: Log, stream: str, positions: Positions, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._stream = stream
        self._positions = positions
        self._clock = clock
        self._looked = 0.0
        self._found = (0.0, 0.0)

    def records(self) -> float:
        """Records yet to be read; NaN if the log cannot tell."""
        return self._look()[0]

    def seconds(self) -> float:
        """Age of the oldest of them; 0 if there is none, NaN if the log cannot tell."""
        return self._look()[1]

    def _look(self) -> tuple[float, float]:
        if abs(time.monotonic() - self._looked) > _REMEMBERED_S or not self._looked:
            try:
                self._found = self._measure()
            except LogError:
                self._found = (float("nan"), float("nan"))
            self._looked = time.monotonic()
        return self._found

    def _measure(self) -> tuple[float, float]:
        start, end = self._log.bounds(self._stream)
        wanted = max(self._positions().get(self._stream, start), start)
        if wanted >= end:
            return 0.0, 0.0
        oldest = self._log.read(self._stream, wanted, 1)
        age = self._clock() - oldest[0].append_ts / 1e9 if oldest else 0.0
        return float(end - wanted), max(0.0, age)


def measure(log: Log, consumer: str, streams: Iterable[str], positions: Positions) -> None:
    """Have the consumer's lag in these streams shown from now on."""
    for stream in streams:
        lag = Lag(log, stream, positions)
        metrics.LAG.labels(consumer, stream).set_function(lag.records)
        metrics.LAG_SECONDS.labels(consumer, stream).set_function(lag.seconds)


def measure_candles(log: Log, exchanges: Mapping[str, str], positions: Positions) -> None:
    """Have it shown how far candles are behind the trades in the log. `exchanges` tells a stream's exchange."""
    for stream, exchange in exchanges.items():
        metrics.CANDLE_DELAY.labels(exchange).set_function(Lag(log, stream, positions).seconds)
