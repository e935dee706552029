"""What the platform says of itself, for `/v1/status` and the page: processes, venues, edges. `edges.py` judges them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from k2.config import Config
from k2.web.freshness import enabled
from k2.web.streams import StreamState

State = Literal["ok", "slow", "stopped"]


class Stage(msgspec.Struct):
    """One stage on the way of a trade."""

    p50_s: Annotated[float, Meta(description="Half of the trades took at most so many seconds.")]
    p99_s: Annotated[float, Meta(description="99 of 100 trades took at most so many seconds.")]
    rate: Annotated[float | None, Meta(description="Trades a second that went through it; null: not told.")] = None


class Process(msgspec.Struct):
    """One process of the platform."""

    service: Annotated[str, Meta(description="What it does.", examples=["loader"])]
    pid: int
    up: Annotated[float, Meta(description="Seconds since its start.")]
    cpu: Annotated[float, Meta(description="Percent of one core since the last look.")]
    memory: Annotated[int, Meta(description="Resident bytes.")]
    answers: Annotated[bool, Meta(description="Whether it answered just now.")]
    queue: Annotated[int, Meta(description="What waits in its bounded queues.")] = 0
    restarts: Annotated[
        int | None, Meta(description="Times that the supervisor started it again; null: none runs that would.")
    ] = None


class Edge(msgspec.Struct):
    """One edge on the way of a trade."""

    source: Annotated[str, Meta(description="Where it begins.", examples=["feed"])]
    target: Annotated[str, Meta(description="Where it ends.", examples=["log"])]
    path: Annotated[Literal["hot", "cold"], Meta(description="The way into the hot store, or into the cold tier.")]
    unit: Annotated[str, Meta(description="What `rate` counts.", examples=["trades"])]
    rate: Annotated[float | None, Meta(description="So many a second; null: not known (yet).")]
    lag: Annotated[
        int | None, Meta(description="Records that its end has yet to confirm; null: nothing can wait there.")
    ]
    lag_s: Annotated[
        float | None, Meta(description="Age of the oldest of them, or of the newest that came, in seconds.")
    ]
    p50_s: Annotated[float | None, Meta(description="Half took at most so many seconds; null: nothing passed.")]
    p99_s: Annotated[float | None, Meta(description="99 of 100 took at most so many seconds; null: nothing passed.")]
    took_s: Annotated[
        float | None, Meta(description="Seconds that the last run took, where runs come now and then; else null.")
    ]
    state: Annotated[State, Meta(description="`stopped` where something stands, `slow` where it is late.")]
    reason: Annotated[str, Meta(description="Why it is slow or stopped; else empty.")]


class Venue(msgspec.Struct):
    """One exchange."""

    exchange: str
    connected: Annotated[bool, Meta(description="Whether a connection is open and subscribed.")]
    rate: Annotated[float, Meta(description="Trades a second since the last look.")]
    trades: Annotated[int, Meta(description="Trades since the feed handler's start.")]
    last_trade: Annotated[float | None, Meta(description="Receive time of the newest trade, seconds since 1970.")]
    gaps_open: Annotated[int, Meta(description="Gaps that are open.")]
    gaps_healed: Annotated[int, Meta(description="Gaps healed since the feed handler's start.")]
    duplicates: Annotated[int, Meta(description="Trades that arrived again and were left out.")]
    faults: Annotated[int, Meta(description="Frames that could not be understood.")]
    reconnects: Annotated[int, Meta(description="Dials after the first.")]
    clock_offset: Annotated[float | None, Meta(description="Median of receive time less exchange time, in seconds.")]
    lag: Annotated[int, Meta(description="Trades in the log that the loader has yet to commit.")]
    stages: Annotated[dict[str, Stage], Meta(description="Latencies of its own trades, by stage.")] = {}
    age_s: Annotated[float | None, Meta(description="Seconds since the newest trade; null: there was none.")] = None
    silent: Annotated[
        bool,
        Meta(description="Its feed handler does not run, or answer: `last_trade` is the log's, other figures are 0."),
    ] = False
    state: Annotated[State, Meta(description="The worst state of its edges into the log.")] = "ok"
    reason: Annotated[str, Meta(description="Why it is slow or stopped; else empty.")] = ""
    edges: Annotated[
        list[Edge], Meta(description="Its own part of the way: exchange to feed, log, loader, and log to archiver.")
    ] = []


class Job(msgspec.Struct):
    """A job of the archiver."""

    ok: Annotated[int, Meta(description="Runs that ended well since the archiver's start.")]
    failed: Annotated[int, Meta(description="Runs that did not.")]
    last_success: Annotated[float | None, Meta(description="When the last one ended well, seconds since 1970.")]
    seconds: Annotated[float | None, Meta(description="How long that one took.")]


class Serving(msgspec.Struct):
    """What store and web answer; rates are a second, over the time since the last look."""

    queries: Annotated[float, Meta(description="Queries that the store answered.")] = 0.0
    queries_failed: Annotated[float, Meta(description="Those of them that failed.")] = 0.0
    requests: Annotated[float, Meta(description="Requests that the API answered.")] = 0.0
    subscribers: Annotated[int, Meta(description="Live streams that are open.")] = 0
    p50: Annotated[float | None, Meta(description="Half of the requests took at most so many seconds.")] = None
    p99: Annotated[float | None, Meta(description="99 of 100 requests took at most so many seconds.")] = None


class Look(msgspec.Struct):
    """The platform's vitals, as `k2 status --json` gives them."""

    at: float
    span_s: float = 0.0
    memory_bytes: int = 0
    cpu_percent: float = 0.0
    processes: list[Process] = []
    venues: list[Venue] = []
    stages: dict[str, Stage] = {}
    jobs: dict[str, Job] = {}
    restarts: dict[str, int] = {}
    serving: Serving = msgspec.field(default_factory=Serving)


class Facts(NamedTuple):
    """What edges are judged by. `store_error`: why the store did not answer, "" if it did. `missing`: services that
    ought to run and do not. `streams` is the log's word, `log_error` why it gave none. `cold_age_s`: age of the newest
    cold snapshot, `cold_rate`: rows a second that were archived lately; None: not known."""

    config: Config
    look: Look
    streams: Sequence[StreamState]
    store_error: str
    missing: Sequence[str]
    cold_age_s: float | None
    cold_rate: float | None
    log_error: str = ""


def expected(config: Config) -> list[str]:
    """The services that a running platform has, in the order of the way of a trade."""
    feeds = [f"feed-handler-{name}" for name in enabled(config)]
    return [*feeds, "loader", "store", *(["archiver"] if config.tier.every_s else []), "web"]


def worst(found: Sequence[Edge]) -> State:
    """The worst state of all edges."""
    order: Mapping[State, int] = {"ok": 0, "slow": 1, "stopped": 2}
    return max((edge.state for edge in found), key=lambda state: order[state])
