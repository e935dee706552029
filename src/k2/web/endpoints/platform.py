"""`/v1/status`: the platform at a glance, for the page's pipeline and for `curl`."""

import asyncio
import platform
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

from k2 import __version__
from k2.ask.times import format_time
from k2.log import LogError
from k2.store import StoreError
from k2.tier import TierError
from k2.web.answer import Plain
from k2.web.cold import archiving_rate, histories
from k2.web.disk import Disk, disk
from k2.web.edges import edges, silent, tell
from k2.web.flow import Edge, Facts, Job, Look, Process, Serving, Stage, State, Venue, expected, worst
from k2.web.parts import Parts
from k2.web.route import Call, Nothing, Route
from k2.web.streams import StreamState, in_thread, states

STORE_WITHIN_S = 3.0
LATELY_S = 300.0  # or three offloads
BETWEEN_LOOKS_S = 1.1  # the first look of a process can tell no rates


class Versions(msgspec.Struct):
    """What runs."""

    k2: str
    python: str
    store: Annotated[str, Meta(description="The store's version; empty if it does not answer.")]


class Status(msgspec.Struct):
    """The platform at a glance."""

    time: Annotated[str, Meta(description="When this was found (RFC 3339, UTC).")]
    state: Annotated[State, Meta(description="The worst state of all edges.")]
    span_s: Annotated[float, Meta(description="Rates and latencies are those of so many seconds before.")]
    edges: Annotated[list[Edge], Meta(description="The way of a trade, in order.")]
    venues: Annotated[list[Venue], Meta(description="All exchanges that are captured, each with its own edges.")]
    processes: Annotated[list[Process], Meta(description="The processes that run.")]
    missing: Annotated[list[str], Meta(description="Services that belong to the platform and do not run.")]
    restarts: Annotated[
        dict[str, int],
        Meta(description="Times that the supervisor started each service again, since its own start; empty: none."),
    ]
    stages: Annotated[dict[str, Stage], Meta(description="Latencies on the way of a trade, by stage.")]
    jobs: Annotated[dict[str, Job], Meta(description="The archiver's jobs, `offload` and `maintenance`.")]
    serving: Annotated[Serving, Meta(description="What store and API answer.")]
    cpu_percent: Annotated[float, Meta(description="Percent of one core, of all processes together.")]
    memory_bytes: Annotated[int, Meta(description="Resident bytes of all processes together.")]
    disk: Annotated[Disk, Meta(description="Disk use.")]
    versions: Annotated[Versions, Meta(description="What runs.")]


async def status(call: Call[Nothing]) -> Plain:
    """`GET /v1/status`."""
    parts = call.parts
    (look, streams, log_error), (store_version, store_error), (cold_age_s, cold_rate), used = await asyncio.gather(
        _look(parts), _store(parts), in_thread(_cold, parts), in_thread(disk, parts.config.data_dir)
    )
    runs = {process.service for process in look.processes}
    missing = [name for name in expected(parts.config) if name not in runs]
    facts = Facts(parts.config, look, streams, store_error, missing, cold_age_s, cold_rate, log_error)
    look.venues = sorted(look.venues + silent(facts), key=lambda venue: venue.exchange)
    for venue in look.venues:
        tell(facts, venue)
    found = edges(facts)
    answer = Status(
        time=format_time(time.time_ns(), 3),
        state=worst(found),
        span_s=round(look.span_s, 3),
        edges=found,
        venues=look.venues,
        processes=look.processes,
        missing=missing,
        restarts=look.restarts,
        stages=look.stages,
        jobs=look.jobs,
        serving=look.serving,
        cpu_percent=look.cpu_percent,
        memory_bytes=look.memory_bytes,
        disk=used,
        versions=Versions(__version__, platform.python_version(), store_version),
    )
    return Plain(answer, {"Cache-Control": "no-store"})


async def _look(parts: Parts) -> tuple[Look, list[StreamState], str]:
    """The processes' word and the log's, of about the same moment; and why the log gave none."""
    plain = await parts.look()
    if not plain.get("span_s"):
        await asyncio.sleep(BETWEEN_LOOKS_S)
        plain = await parts.look()
    look = msgspec.convert(plain, Look)
    for venue in look.venues:
        if venue.last_trade is not None:
            venue.age_s = round(max(0.0, time.time() - venue.last_trade), 3)
    try:
        return look, await in_thread(states, parts.log) if parts.log else [], ""
    except LogError as error:
        return look, [], str(error)


async def _store(parts: Parts) -> tuple[str, str]:
    """The store's version, and why it did not tell it."""
    try:
        async with asyncio.timeout(STORE_WITHIN_S):
            ((version,),) = await parts.store.rows("SELECT version()")
            return str(version), ""
    except StoreError as error:
        return "", str(error)
    except TimeoutError:
        return "", f"the store did not answer within {STORE_WITHIN_S:.0f} s"


def _cold(parts: Parts) -> tuple[float | None, float | None]:
    """Seconds since the newest commit of the cold tier, and rows a second that it was given lately; None: not known."""
    try:
        found = [one for history in histories(parts.config).values() for one in history]
    except (TierError, OSError):
        return None, None
    if not found:
        return None, None
    now = datetime.now(UTC)
    newest = max(datetime.fromisoformat(one.time) for one in found)
    lately = now - timedelta(seconds=max(LATELY_S, 3 * parts.config.tier.every_s))
    return round((now - newest).total_seconds(), 3), archiving_rate(found, lately)


ROUTES = (
    Route(
        "GET",
        "/v1/status",
        status,
        Nothing,
        Status,
        "The platform at a glance",
        "Venues, processes, latencies, disk, and each edge on the way of a trade with its rate, its lag and, where it"
        " is slow or stands, the reason in words. The first answer of a process takes a second: rates need two looks.",
        "platform",
    ),
)
