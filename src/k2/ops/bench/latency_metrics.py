"""The histograms `k2_stage_seconds`, as the processes serve them, held against the trace: one truth, told twice."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from k2.metrics import parse, read_status
from k2.ops.bench.lab import LabError

Counts = dict[tuple[str, str], list[int]]  # stage and exchange to the number in each bucket, the last without a bound


def counted(run_dir: Path) -> Counts:
    """What every process of a platform has counted until now. Raises LabError when one does not answer."""
    found: Counts = {}
    for service, word in read_status(run_dir).items():
        if service == "loader" or service.startswith("feed-handler-"):
            found |= of_page(_page(service, int(word["metrics_port"])))
    return found


def of_page(text: str) -> Counts:
    """The stage histograms of one metrics page."""
    cumulative: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for (name, labels), value in parse(text).items():
        if name == "k2_stage_seconds_bucket":
            of = dict(labels)
            cumulative.setdefault((of["stage"], of["exchange"]), []).append((float(of["le"]), int(value)))
    return {key: _apart([number for _, number in sorted(rows)]) for key, rows in cumulative.items()}


def _apart(cumulative: Sequence[int]) -> list[int]:
    return [number - before for number, before in zip(cumulative, [0, *cumulative], strict=False)]


def different(expected: Mapping[tuple[str, str], Sequence[int]], found: Mapping[tuple[str, str], Sequence[int]]) -> int:
    """How many trades are not in the bucket where they belong, over all stages that are expected."""
    total = 0
    for key, counts in expected.items():
        have = found.get(key, [0] * len(counts))
        apart = [a - b for a, b in zip(counts, have, strict=True)]
        total += max(sum(one for one in apart if one > 0), -sum(one for one in apart if one < 0))
    return total


def _page(service: str, port: int) -> str:
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        with urlopen(url, timeout=10) as answer:
            return str(answer.read(), "utf-8")
    except (URLError, OSError) as error:
        raise LabError(f"{service} does not serve its metrics at {url}: {error}") from None
