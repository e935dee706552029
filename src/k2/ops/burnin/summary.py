"""From samples to figures. Pure: rows in, plain values out; the same rows always give the same report."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, pairwise
from statistics import median
from typing import Any, NamedTuple, TypeVar

from k2.ops.burnin.folder import Parameters, PlatformRow, ProcessRow
from k2.ops.burnin.sampler import JOB, OUTSIDE
from k2.ops.burnin.slope import Point, Slope, slope, steady

WINDOW_S = 300.0  # of the tables
WARM_UP_S = 1800.0
MISSED = 3.0  # looks that are due and not there make a gap
POINTS = 240  # of a curve
TO_JUDGE_H = 0.5  # steady hours below which a slope is shown and not judged
PARTS = ("log", "store", "cold", "run")

Plain = dict[str, Any]
Row = TypeVar("Row", ProcessRow, PlatformRow)


class Scale(NamedTuple):
    """The lengths that a run is cut into, in seconds: as they are in a run of hours, shorter in a shorter one."""

    window: float
    warm_up: float

    @classmethod
    def of(cls, parameters: Parameters) -> "Scale":
        return cls(min(WINDOW_S, parameters.seconds / 6), min(WARM_UP_S, parameters.seconds / 4))


class Life(NamedTuple):
    """One process from its first look to its last."""

    service: str
    session: int
    rows: Sequence[ProcessRow]
    times: Sequence[float]

    def between(self, begin: float, end: float) -> Sequence[ProcessRow]:
        """The looks from one time to another, both included."""
        return self.rows[bisect_left(self.times, begin) : bisect_right(self.times, end)]


class Run:
    """A burn-in's samples, in the order of time. There must be two looks at least."""

    def __init__(self, parameters: Parameters, processes: Sequence[ProcessRow], looks: Sequence[PlatformRow]) -> None:
        self.parameters = parameters
        self.scale = Scale.of(parameters)
        self.looks = looks
        self.began = looks[0].at
        self.by_look = [list(rows) for _, rows in groupby(processes, key=lambda row: row.at)]
        self.services = list(dict.fromkeys(row.service for row in processes))
        lives: dict[tuple[str, int, int], list[ProcessRow]] = {}
        for row in processes:
            lives.setdefault((row.service, row.session, row.pid), []).append(row)
        self.lives = [
            Life(service, session, rows, [row.at for row in rows]) for (service, session, _), rows in lives.items()
        ]

    @property
    def standing(self) -> list[str]:
        """The platform's services: all but what comes and goes, and what is no part of it."""
        return [service for service in self.services if service not in (JOB, *OUTSIDE)]

    def gaps(self) -> list[Plain]:
        """Where looks are missing, in seconds since the first look. `session`: the number of the one that ended there,
        None where a look was merely late."""
        return [
            {
                "from_s": round(a.at - self.began, 1),
                "to_s": round(b.at - self.began, 1),
                "session": a.session if a.session != b.session else None,
            }
            for a, b in pairwise(self.looks)
            if a.session != b.session or b.at - a.at > MISSED * self.parameters.every_s
        ]

    def seconds(self) -> float:
        """How long it was looked on, without interruptions."""
        return sum(b.at - a.at for a, b in pairwise(self.looks) if a.session == b.session)

    def restarts(self) -> dict[str, int]:
        """How often each service came back with another process within a session."""
        seen: dict[tuple[str, int], int] = {}
        for life in self.lives:
            if life.service in self.standing:
                seen[life.service, life.session] = seen.get((life.service, life.session), -1) + 1
        found: dict[str, int] = {}
        for (service, _), count in seen.items():
            found[service] = found.get(service, 0) + count
        return {service: count for service, count in found.items() if count}

    def cpu(self, service: str, begin: float, end: float) -> float | None:
        """Percent of a core that a service used between two times; None if it was never seen twice in it."""
        used = seen = 0.0
        for life in self.lives:
            if life.service == service:
                rows = life.between(begin, end)
                if len(rows) > 1:
                    used += rows[-1].cpu_s - rows[0].cpu_s
                    seen += rows[-1].at - rows[0].at
        return used / seen * 100 if seen else None

    def memory(self, services: Iterable[str], begin: float = 0.0, end: float = float("inf")) -> list[int]:
        """At each look, what those of the services that ran had resident together."""
        wanted = set(services)
        return [
            sum(row.rss for row in rows if row.service in wanted)
            for rows in self.by_look
            if begin <= rows[0].at <= end and any(row.service in wanted for row in rows)
        ]

    def windows(self) -> list[tuple[float, float]]:
        """The windows of the tables in which there was a look, as times."""
        width = self.scale.window
        numbers = sorted({int((look.at - self.began) / width) for look in self.looks})
        return [
            (self.began + number * width, self.began + (number + 1) * width)
            for number in numbers
            if sum(self.began + number * width <= look.at <= self.began + (number + 1) * width for look in self.looks)
            > 1
        ]


def summarise(run: Run) -> Plain:
    """Everything that the report says of the samples."""
    looks = run.looks
    return {
        "seconds_run": round(run.seconds(), 1),
        "looks": len(looks),
        "every_s": run.parameters.every_s,
        "window_s": round(run.scale.window, 1),
        "warm_up_s": round(run.scale.warm_up, 1),
        "gaps": run.gaps(),
        "made_per_s": round(_grown(looks, lambda row: row.made) / max(run.seconds(), 1e-9), 1),
        "restarts": run.restarts(),
        "processes": [_process(run, service) for service in run.services],
        "all": _together(run),
        "growth": growth(run),
        "flow": _flow(run),
        "disk": _disk(run),
        "windows": [_window(run, begin, end) for begin, end in run.windows()],
        "curves": _curves(run),
    }


def _process(run: Run, service: str) -> Plain:
    rows = [row for rows in run.by_look for row in rows if row.service == service]
    steady_from = run.began + run.scale.warm_up
    together = run.memory([service])
    return {
        "process": service,
        "cpu_percent": None if service == JOB else _short(run.cpu(service, steady_from, float("inf"))),
        "cpu_percent_worst_window": None if service == JOB else _short(_worst(run, [service])),
        "rss_mb_max": _mb(max(*together, *(row.peak for row in rows))),
        "rss_mb_median": _mb(median(together)),
        "own_mb_max": _mb(max(row.own for row in rows)),
        "pss_mb_max": _mb(known) if (known := max(row.pss for row in rows)) >= 0 else None,
        "uss_mb_max": _mb(known) if (known := max(row.uss for row in rows)) >= 0 else None,
        "threads_max": max(row.threads for row in rows),
        "files_max": max(row.files for row in rows),
        "queue_max": max(row.queue for row in rows),
    }


def _together(run: Run) -> Plain:
    steady_from = run.began + run.scale.warm_up
    standing, everything = run.memory(run.standing), run.memory([*run.standing, JOB])
    shared = [
        sum(row.pss for row in rows if row.service in run.standing)
        for rows in run.by_look
        if all(row.pss >= 0 for row in rows if row.service in run.standing)
    ]
    cpu = [found for name in run.standing if (found := run.cpu(name, steady_from, float("inf"))) is not None]
    return {
        "cpu_percent": _short(sum(cpu)) if cpu else None,
        "cpu_percent_worst_window": _short(_worst(run, run.standing)),
        "rss_mb_max": _mb(max(standing)),
        "rss_mb_median": _mb(median(standing)),
        "pss_mb_max": _mb(max(shared)) if shared else None,
        "with_jobs_rss_mb_max": _mb(max(everything)),
        "jobs_ran_percent": round(
            100 * sum(a != b for a, b in zip(standing, everything, strict=True)) / len(standing), 1
        ),
    }


def _worst(run: Run, services: Sequence[str]) -> float | None:
    """The most that the services used together in one of the windows after the warm-up."""
    found = []
    for begin, end in run.windows():
        if begin >= run.began + run.scale.warm_up - 1:
            used = [cpu for service in services if (cpu := run.cpu(service, begin, end)) is not None]
            found += [sum(used)] if used else []
    return max(found, default=None)


def growth(run: Run) -> list[Plain]:
    """The slope of every standing service's own and resident memory, open files and threads after its warm-up."""
    kinds: tuple[tuple[str, Callable[[ProcessRow], float]], ...] = (
        ("memory_mb", lambda row: row.own / 1e6),
        ("resident_mb", lambda row: row.rss / 1e6),
        ("files", lambda row: float(row.files)),
        ("threads", lambda row: float(row.threads)),
    )
    found = []
    for service in run.standing:
        for kind, value in kinds:
            lives = [_steady(run, life, value) for life in run.lives if life.service == service]
            hours = sum(life[-1][0] - life[0][0] for life in lives if life)
            found.append({"process": service, "of": kind, "hours": round(hours, 3), **_told(slope(lives))})
    return found


def _steady(run: Run, life: Life, value: Callable[[ProcessRow], float]) -> list[Point]:
    points = [((row.at - run.began) / 3600, value(row)) for row in life.rows]
    return steady(points, run.scale.warm_up / 3600)


def _told(found: Slope | None) -> Plain:
    """Growth over 24 hours, and the ends of its interval."""
    if found is None:
        return {"per_24h": None, "low": None, "high": None}
    return {"per_24h": _fine(found.per_hour * 24), "low": _fine(found.low * 24), "high": _fine(found.high * 24)}


def _flow(run: Run) -> Plain:
    looks = run.looks
    visible = [row.visible_p99 for row in looks if row.visible_p99 > 0]
    return {
        "lag_loader_max": max(row.lag_loader for row in looks),
        "lag_archiver_max": max(row.lag_archiver for row in looks),
        "visible_p99_ms_median": round(median(visible) * 1e3, 1) if visible else None,
        "visible_p99_ms_max": round(max(visible) * 1e3, 1) if visible else None,
        "machine_cpu_median": round(median(row.machine_cpu for row in looks[1:]), 1),
        "machine_cpu_max": round(max(row.machine_cpu for row in looks[1:]), 1),
        "gaps_open_last": looks[-1].gaps_open,
        "gaps_healed": _grown(looks, lambda row: row.gaps_healed),
        "duplicates": _grown(looks, lambda row: row.duplicates),
        "faults": _grown(looks, lambda row: row.faults),
        "reconnects": _grown(looks, lambda row: row.reconnects),
        "offloads": _grown(looks, lambda row: row.offloads),
        "offloads_failed": _grown(looks, lambda row: row.offloads_failed),
    }


def _disk(run: Run) -> Plain:
    """Use by part at the last look, and growth over 24 hours of running between the first look and the last."""
    days = run.seconds() / 86400
    found: Plain = {}
    for part in PARTS:
        known = [use for look in run.looks if (use := getattr(look, f"disk_{part}")) >= 0]
        if known:
            grown = (known[-1] - known[0]) / days if days else 0.0
            found[part] = {"mb": _mb(known[-1]), "mb_24h": _mb(grown)}
    return found


def _window(run: Run, begin: float, end: float) -> Plain:
    looks = [look for look in run.looks if begin <= look.at <= end]
    names = [*run.standing, JOB]
    found: Plain = {"from_s": round(begin - run.began, 1), "cpu_percent": {}, "rss_mb": {}}
    for service in names:
        memory = run.memory([service], begin, end)
        if memory:
            found["rss_mb"][service] = _mb(max(memory))
        if service != JOB and (cpu := run.cpu(service, begin, end)) is not None:
            found["cpu_percent"][service] = round(cpu, 1)
    found["cpu_percent"]["all"] = round(sum(found["cpu_percent"].values()), 1)
    found["rss_mb"]["all"] = _mb(max(run.memory(run.standing, begin, end), default=0))
    found["lag_loader"] = max(look.lag_loader for look in looks)
    found["gaps_open"] = max(look.gaps_open for look in looks)
    found["disk_mb"] = _mb(max(sum(getattr(look, f"disk_{part}") for part in PARTS) for look in looks))
    return found


def _curves(run: Run) -> Plain:
    """A point every so many seconds for the pictures; None where there was no look."""
    width = max(run.parameters.every_s * 2, (run.looks[-1].at - run.began) / POINTS)
    count = int((run.looks[-1].at - run.began) / width) + 1
    found: Plain = {"step_s": round(width, 2), "rss_mb": {}, "cpu_percent": {}, "lag_loader": [], "visible_p99_ms": []}
    looks = _cut(run.looks, run.began, width, count)
    for service in [*run.standing, JOB]:
        rows = _cut(
            [row for life in run.lives if life.service == service for row in life.rows], run.began, width, count
        )
        found["rss_mb"][service] = [_mb(max(row.rss for row in part)) if part else None for part in rows]
        if service != JOB:
            edges = [(run.began + i * width, run.began + (i + 2) * width) for i in range(count)]
            found["cpu_percent"][service] = [
                _short(run.cpu(service, *edge)) if part else None for edge, part in zip(edges, rows, strict=True)
            ]
    found["lag_loader"] = [max(row.lag_loader for row in part) if part else None for part in looks]
    found["visible_p99_ms"] = [
        round(max(row.visible_p99 for row in part) * 1e3, 1) if part and part[0].visible_p99 >= 0 else None
        for part in looks
    ]
    for part in PARTS:
        found[f"disk_{part}_mb"] = [
            _mb(max(getattr(row, f"disk_{part}") for row in rows)) if rows else None for rows in looks
        ]
    return found


def _cut(rows: Sequence[Row], began: float, width: float, count: int) -> list[list[Row]]:
    parts: list[list[Row]] = [[] for _ in range(count)]
    for row in rows:
        parts[min(count - 1, int((row.at - began) / width))].append(row)
    return parts


def _grown(looks: Sequence[PlatformRow], value: Callable[[PlatformRow], int]) -> int:
    """What a counter grew by, over sessions and restarts: it begins at 0 in each."""
    total = 0
    for a, b in pairwise(looks):
        if min(value(a), value(b)) >= 0:
            grown = value(b) - value(a)
            total += grown if a.session == b.session and grown >= 0 else 0
    return total


def _mb(size: float) -> float:
    return round(size / 1e6, 1)


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _fine(value: float) -> float:
    return round(value, 2) if abs(value) < 100 else float(round(value))
