"""Samples to figures: medians, quantiles, processor time."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil

QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))


def quantile(ordered: Sequence[float], q: float) -> float:
    """The q-quantile of samples in ascending order: the smallest sample that q of them do not exceed."""
    rank = -(-int(q * 1_000_000) * len(ordered) // 1_000_000)
    return ordered[min(len(ordered), max(1, rank)) - 1]


def spread(samples: Sequence[float], scale: float = 1.0, digits: int = 3) -> dict[str, float | int]:
    """Count, p50, p90, p99, p99.9 and max, each sample times `scale`; only the count of no samples."""
    ordered = sorted(samples)
    found: dict[str, float | int] = {"count": len(ordered)}
    if ordered:
        found.update({name: round(quantile(ordered, q) * scale, digits) for name, q in QUANTILES})
    return found


def middle(samples: Sequence[float], digits: int = 3) -> float:
    """The median."""
    return round(median(samples), digits)


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time that a process and its threads have used."""
    times = process.cpu_times()
    return float(times.user + times.system)


class Memory(NamedTuple):
    """Bytes: resident, and resident with shared pages divided among those who share them."""

    rss: int
    pss: int


def memory(process: psutil.Process) -> Memory:
    """A process's memory now. Where the system does not tell the proportional share, it equals the resident size."""
    try:
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return Memory(process.memory_info().rss, int(line.split()[1]) << 10)
    except (OSError, ValueError):
        pass
    rss = int(process.memory_info().rss)
    return Memory(rss, rss)
