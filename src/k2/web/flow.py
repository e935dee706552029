"""The way of a trade as a drawing needs it: its edges, how much passes, how late, and what stands.

    exchange -> feed -> log -> loader -> store -> web
                        log -> archiver -> cold

Rates, latencies and which processes live come from the processes' metrics; how far behind a consumer is, from the log.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from k2.config import Config
from k2.web.freshness import AT_LEAST_S, SILENCES, enabled, loader_limit_s
from k2.web.streams import StreamState

State = Literal["ok", "slow", "stopped"]
Verdict = tuple[State, str]  # and why
SLOW_P99_S = 0.25  # of a stage within the platform
SLOW_ANSWER_S = 1.0
QUEUE_SHARE = 0.1  # of a feed's queue
OFFLOADS = 2.0  # periods after which the archiver is late
GRACE_S = 120.0  # and so long more: an offload takes its time


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
    serving: Serving = msgspec.field(default_factory=Serving)


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
    state: Annotated[State, Meta(description="`stopped` where something stands, `slow` where it is late.")]
    reason: Annotated[str, Meta(description="Why it is slow or stopped; else empty.")]


class Facts(NamedTuple):
    """What edges are judged by. `store_error`: why the store did not answer, "" if it did. `missing`: services that
    ought to run and do not. `streams` is the log's word. `cold_age_s`: age of the newest cold snapshot, `cold_rate`:
    rows a second that were archived lately; None: not known."""

    config: Config
    look: Look
    streams: Sequence[StreamState]
    store_error: str
    missing: Sequence[str]
    cold_age_s: float | None
    cold_rate: float | None


def expected(config: Config) -> list[str]:
    """The services that a running platform has, in the order of the way of a trade."""
    feeds = [f"feed-handler-{name}" for name in enabled(config)]
    return [*feeds, "loader", "store", *(["archiver"] if config.tier.every_s else []), "web"]


def edges(facts: Facts) -> list[Edge]:
    """The edges, in the order of the way of a trade."""
    return [
        _received(facts),
        _logged(facts),
        _read(facts),
        _loaded(facts),
        _served(facts),
        _followed(facts),
        _archived(facts),
    ]


def worst(found: Sequence[Edge]) -> State:
    """The worst state of all edges."""
    order: Mapping[State, int] = {"ok": 0, "slow": 1, "stopped": 2}
    return max((edge.state for edge in found), key=lambda state: order[state])


def _edge(
    facts: Facts, source: str, target: str, stage: str, rate: float | None, lag: int | None, lag_s: float | None,
    verdict: Verdict, path: Literal["hot", "cold"] = "hot",
) -> Edge:  # fmt: skip
    timed = facts.look.stages.get(stage)
    return Edge(
        source, target, path, "trades" if path == "hot" else "records", rate if rate is None else round(rate, 1),
        lag, lag_s, timed.p50_s if timed else None, timed.p99_s if timed else None, *verdict,
    )  # fmt: skip


def _rate(facts: Facts, stage: str) -> float | None:
    timed = facts.look.stages.get(stage)
    return timed.rate if timed else 0.0 if facts.look.span_s else None


def _gone(facts: Facts, *services: str) -> str:
    """Which of these services do not run or do not answer, in words."""
    deaf = [process.service for process in facts.look.processes if not process.answers]
    words = [f"{name} does not run" for name in services if name in facts.missing]
    return ", ".join(words + [f"{name} does not answer" for name in services if name in deaf])


def _feeds(facts: Facts) -> Verdict | None:
    names = [f"feed-handler-{name}" for name in enabled(facts.config)]
    if not names:
        return "stopped", "every exchange is switched off in the configuration"
    if gone := _gone(facts, *names):
        return "stopped" if all(_gone(facts, name) for name in names) else "slow", gone
    return None


def _received(facts: Facts) -> Edge:
    wanted = enabled(facts.config)
    venues = [venue for venue in facts.look.venues if venue.exchange in wanted]
    ages = {venue.exchange: venue.age_s for venue in venues if venue.age_s is not None}
    verdict = _feeds(facts) or ("ok", "")
    quiet = [f"no trade of {name} for {age:.0f} s" for name, age in ages.items() if age > 2 * SILENCES * AT_LEAST_S]
    down = [f"{venue.exchange} is not connected" for venue in venues if not venue.connected]
    if verdict[0] == "ok" and (down or quiet):
        verdict = "stopped" if venues and len(down) == len(venues) else "slow", ", ".join(down + quiet)
    rate = sum(venue.rate for venue in venues) if facts.look.span_s else None
    worst_age = max(ages.values(), default=None)
    return _edge(facts, "exchange", "feed", "exchange_to_receive", rate, None, worst_age, verdict)


def _logged(facts: Facts) -> Edge:
    queue = sum(process.queue for process in facts.look.processes if process.service.startswith("feed-handler-"))
    age = min((one.age_s for one in facts.streams if one.kind == "trades"), default=None)
    verdict = _feeds(facts) or _late(facts, "decoded_to_durable", "a frame waits for the log")
    if queue > QUEUE_SHARE * facts.config.feed.queue_frames and verdict[0] == "ok":
        verdict = "slow", f"{queue:,} frames wait to be written"
    rate = _rate(facts, "decoded_to_durable")
    return _edge(facts, "feed", "log", "decoded_to_durable", rate, queue, age, verdict)


def _late(facts: Facts, stage: str, what: str) -> Verdict:
    timed = facts.look.stages.get(stage)
    if timed and timed.p99_s > SLOW_P99_S:
        return "slow", f"{what} up to {timed.p99_s:.2f} s (p99)"
    return "ok", ""


def _behind(facts: Facts, consumer: str, kinds: Sequence[str]) -> tuple[int, float]:
    """Records that a consumer has yet to read, and the age in seconds of the oldest; also where it has never read."""
    lag, oldest = 0, 0.0
    for one in facts.streams:
        if one.kind in kinds:
            at = next((at for at in one.consumers if at.consumer == consumer), None)
            lag += at.lag if at else one.records
            oldest = max(oldest, at.lag_s if at else one.age_s)
    return lag, oldest


def _standing(facts: Facts, age: float) -> Verdict | None:
    limit = loader_limit_s(facts.config)
    if age > limit:
        return "stopped" if age > 2 * limit else "slow", f"the oldest trade not yet in the store is {age:.0f} s old"
    return None


def _read(facts: Facts) -> Edge:
    lag, age = _behind(facts, "loader", ("trades",))
    gone = _gone(facts, "loader")
    verdict: Verdict = ("stopped", gone) if gone else _late(facts, "log_to_loader", "a trade waits for the loader")
    if not gone and (standing := _standing(facts, age)):
        verdict = standing
    return _edge(facts, "log", "loader", "log_to_loader", _rate(facts, "log_to_loader"), lag, age, verdict)


def _loaded(facts: Facts) -> Edge:
    lag, age = _behind(facts, "loader", ("trades",))
    gone = _gone(facts, "store", "loader") or facts.store_error
    verdict: Verdict = ("stopped", gone) if gone else _late(facts, "loader_to_visible", "a trade waits for the store")
    if not gone and (standing := _standing(facts, age)):
        verdict = standing
    return _edge(facts, "loader", "store", "loader_to_visible", _rate(facts, "loader_to_visible"), lag, age, verdict)


def _served(facts: Facts) -> Edge:
    serving = facts.look.serving
    verdict: Verdict = ("ok", "")
    if facts.store_error:
        verdict = "stopped", facts.store_error
    elif serving.p99 is not None and serving.p99 > SLOW_ANSWER_S:
        verdict = "slow", f"answers take up to {serving.p99:.1f} s (p99)"
    rate = round(serving.requests, 1) if facts.look.span_s else None
    return Edge("store", "web", "hot", "requests", rate, None, None, serving.p50, serving.p99, *verdict)


def _offloading(facts: Facts, lag: int, age: float) -> Verdict:
    every = facts.config.tier.every_s
    if not every:
        return "ok", "offloads by itself are switched off (tier.every_s = 0): `k2 archive` does one" if lag else ""
    if gone := _gone(facts, "archiver"):
        return "stopped", gone
    limit = OFFLOADS * every + GRACE_S
    if age > limit:
        words = f"the oldest record that is not archived is {age:.0f} s old, an offload is due every {every:.0f} s"
        return "stopped" if age > 3 * limit else "slow", words
    return "ok", ""


def _followed(facts: Facts) -> Edge:
    lag, age = _behind(facts, "archiver", ("trades", "frames", "gaps"))
    return _edge(facts, "log", "archiver", "", facts.cold_rate, lag, age, _offloading(facts, lag, age), "cold")


def _archived(facts: Facts) -> Edge:
    lag, age = _behind(facts, "archiver", ("trades", "frames", "gaps"))
    state, reason = _offloading(facts, lag, age)
    job = facts.look.jobs.get("offload")
    if state == "ok" and job and job.failed and not job.ok:
        state, reason = "slow", f"{job.failed} offloads failed and none ended well: read archiver.log in the run folder"
    return _edge(facts, "archiver", "cold", "", facts.cold_rate, None, facts.cold_age_s, (state, reason), "cold")
