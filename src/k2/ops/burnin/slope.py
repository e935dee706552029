"""Does it grow? The slope of a series of samples, with an interval that does not take neighbours for independent.

Memory is no white noise: caches fill in steps, collectors saw teeth, and one sample is much like the one before. Over
such series the usual interval of a fitted line is far too narrow. A simulation of series without any slope, 540
samples long, at a nominal 1 % of false alarms:

    errors                          least squares, Newey-West    this
    independent                     4 to 16 %                    1 to 3 %
    autoregressive, 0.98            22 to 27 %                   2 to 3 %
    autoregressive, 0.995           46 %                         4 to 6 %
    a random walk                   55 to 66 %                   9 %

What is done: samples are averaged over `BLOCKS` equal stretches of time; a line is fitted by least squares through the
blocks' means, with a level of its own for each process's life; the long-run variance of its scores is estimated by
equally weighted cosines, as many as Lazarus, Lewis, Stock and Watson (2018) advise for so few blocks, and the slope
less its truth over that error is held against Student's t with as many degrees of freedom. That is 9.9 standard errors
to each side: a slope has to be plain to be called one, and the price is that small ones are not.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

BLOCKS = 12
COSINES = 2  # 0.4 * BLOCKS ** (2 / 3), rounded down
T99 = 9.925  # Student's t, two-sided 99 %, two degrees of freedom
LEAST_PER_BLOCK = 3
DAY_H = 24.0

Point = tuple[float, float]  # hours, value


class Slope(NamedTuple):
    """Growth an hour, and the ends of its 99 % interval."""

    per_hour: float
    low: float
    high: float

    @property
    def flat(self) -> bool:
        """The interval includes 0."""
        return self.low <= 0.0 <= self.high


def steady(points: Sequence[Point], warm_up: float) -> list[Point]:
    """A life without its first `warm_up` hours."""
    return [point for point in points if point[0] - points[0][0] >= warm_up]


def slope(lives: Sequence[Sequence[Point]]) -> Slope | None:
    """The common slope of the lives of a process, each in the order of time; None when there is too little to tell."""
    total = sum(life[-1][0] - life[0][0] for life in lives if life)
    if total <= 0 or sum(map(len, lives)) < BLOCKS * LEAST_PER_BLOCK:
        return None
    means = [found for life in lives if len(found := _blocks(life, total / BLOCKS)) > 1]
    times = [time - _mean([t for t, _ in life]) for life in means for time, _ in life]
    values = [value - _mean([v for _, v in life]) for life in means for _, value in life]
    if len(times) < BLOCKS // 2:
        return None
    spread = sum(time * time for time in times)
    per_hour = sum(time * value for time, value in zip(times, values, strict=True)) / spread
    scores = [time * (value - per_hour * time) for time, value in zip(times, values, strict=True)]
    half = T99 * math.sqrt(_long_run_variance(scores) * len(scores)) / spread
    return Slope(per_hour, per_hour - half, per_hour + half)


def _blocks(life: Sequence[Point], length: float) -> list[Point]:
    """Mean time and value of each whole stretch of `length` hours."""
    if not life:
        return []
    begin = life[0][0]
    count = max(1, math.floor((life[-1][0] - begin) / length + 1e-6))
    stretches: list[list[Point]] = [[] for _ in range(count)]
    for point in life:
        stretches[min(count - 1, int((point[0] - begin) / length))].append(point)
    return [
        (_mean([time for time, _ in stretch]), _mean([value for _, value in stretch]))
        for stretch in stretches
        if len(stretch) >= LEAST_PER_BLOCK
    ]


def _long_run_variance(scores: Sequence[float]) -> float:
    """The mean of the squared projections on the first cosines: low frequencies, where correlated errors live."""
    count = len(scores)
    found = 0.0
    for order in range(1, COSINES + 1):
        projection = sum(
            score * math.cos(math.pi * order * (index + 0.5) / count) for index, score in enumerate(scores)
        )
        found += 2.0 / count * projection * projection
    return found / COSINES


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
