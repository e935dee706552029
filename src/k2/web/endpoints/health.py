"""`/healthz`, `/readyz`, `/metrics`: for load balancers, schedulers and Prometheus."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from msgspec import Meta
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from k2 import __version__
from k2.ask.times import format_time
from k2.log import LogError
from k2.store import StoreError
from k2.web.answer import Plain, Stream
from k2.web.freshness import COMMITTED, Check, log_checks
from k2.web.parts import Parts
from k2.web.problems import Problem
from k2.web.route import Call, Nothing, Route
from k2.web.streams import in_thread

STORE_WITHIN_S = 5.0
_FRESH = {"Cache-Control": "no-store"}


class Health(msgspec.Struct):
    """The process lives."""

    status: Annotated[str, Meta(description="Always `ok`.")]
    version: Annotated[str, Meta(description="K2's version.")]
    up_s: Annotated[float, Meta(description="Seconds since the process's start.")]


class Readiness(msgspec.Struct):
    """Data flows."""

    status: Annotated[str, Meta(description="Always `ready`: otherwise the answer is a problem document.")]
    time: Annotated[str, Meta(description="When this was found (RFC 3339, UTC).")]
    checks: Annotated[list[Check], Meta(description="What was looked at.")]


async def healthz(call: Call[Nothing]) -> Plain:
    """`GET /healthz`."""
    up_s = round(time.time() - call.parts.started, 3)
    return Plain(Health("ok", __version__, up_s), _FRESH)


async def readyz(call: Call[Nothing]) -> Plain:
    """`GET /readyz`."""
    positions, store = await _store(call.parts)
    checks = [store, *await _log(call.parts, positions)]
    failed = [check for check in checks if not check.ok]
    if failed:
        raise Problem(
            503,
            "Data does not flow",
            "; ".join(f"{check.name}: {check.detail}" for check in failed),
            "; ".join(dict.fromkeys(check.remedy for check in failed)),
            "not-ready",
            headers={**_FRESH, "Retry-After": "5"},
            failed=[check.name for check in failed],
            checks=[msgspec.to_builtins(check) for check in checks],
        )
    return Plain(Readiness("ready", format_time(time.time_ns(), 3), checks), _FRESH)


async def _store(parts: Parts) -> tuple[dict[str, int] | None, Check]:
    """How far the store has the log (None: it does not tell), and whether it answers."""
    remedy = (
        f"see in `k2 --data {parts.config.data} status` whether the store runs, and read"
        f" {parts.config.run_dir / 'store.log'}; `k2 up` starts what does not run"
    )
    try:
        async with asyncio.timeout(STORE_WITHIN_S):
            rows = await parts.store.rows(COMMITTED)
    except StoreError as error:
        return None, Check("store", False, str(error), None, remedy)
    except TimeoutError:
        return None, Check("store", False, f"it did not answer within {STORE_WITHIN_S:.0f} s", None, remedy)
    streams, offsets = rows[0] if rows else ((), ())
    return dict(zip(streams, map(int, offsets), strict=True)), Check("store", True, "it answers", None, "")


async def _log(parts: Parts, positions: dict[str, int] | None) -> list[Check]:
    if parts.log is None:
        return [Check("log", False, "this process has no log to read", None, "serve the platform's own data folder")]
    try:
        return await in_thread(log_checks, parts.log, parts.config, positions)
    except LogError as error:
        return [Check("log", False, str(error), None, "`k2 streams --check` tells which streams are whole")]


async def metrics(call: Call[Nothing]) -> Stream:
    """`GET /metrics`."""

    async def page() -> AsyncIterator[bytes]:
        yield await asyncio.to_thread(generate_latest)

    return Stream(CONTENT_TYPE_PLAIN_0_0_4, page(), _FRESH)


ROUTES = (
    Route(
        "GET",
        "/healthz",
        healthz,
        Nothing,
        Health,
        "Does the process live?",
        "200 whenever the process answers, whatever the state of the data.",
        "platform",
        open=True,
    ),
    Route(
        "GET",
        "/readyz",
        readyz,
        Nothing,
        Readiness,
        "Does data flow?",
        "200 only if every enabled exchange's newest trade in the log is fresh (or, where nobody trades, its newest"
        " heartbeat), the store answers and has what the log has. Otherwise 503 with a problem document that names what"
        " is not fresh, since when, and what to do. Judged from log and store, not from what processes say.",
        "platform",
        open=True,
    ),
    Route(
        "GET",
        "/metrics",
        metrics,
        Nothing,
        str,
        "This process's metrics",
        "In Prometheus's text format.",
        "platform",
        media=("text/plain",),
    ),
)
