"""The way of a trade as a drawing needs it: its edges, how much passes, how late, and what stands.

    exchange -> feed -> log -> loader -> store -> web
                        log -> archiver -> cold

Rates, latencies and which processes live come from the processes' metrics; how far behind a consumer is, from the log.
Each exchange has its own part of the way, up to the loader and the archiver, which serve all.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from k2.web.flow import Edge, Facts, Stage, State, Venue, worst
from k2.web.freshness import AT_LEAST_S, SILENCES, enabled, loader_limit_s

Verdict = tuple[State, str]  # and why
SLOW_P99_S = 0.25  # of a stage within the platform
SLOW_ANSWER_S = 1.0
QUEUE_SHARE = 0.1  # of a feed's queue
OFFLOADS = 2.0  # periods after which the archiver is late
GRACE_S = 120.0  # and so long more: an offload takes its time


class _Part(NamedTuple):
    """A part of the way: of all exchanges that are captured, or of one."""

    facts: Facts
    names: Sequence[str]
    stages: Mapping[str, Stage]
    whole: bool

    def edge(
        self, source: str, target: str, stage: str, rate: float | None, lag: int | None, lag_s: float | None,
        verdict: Verdict, path: Literal["hot", "cold"] = "hot", took_s: float | None = None,
    ) -> Edge:  # fmt: skip
        timed = self.stages.get(stage)
        p50, p99 = (timed.p50_s, timed.p99_s) if timed else (None, None)
        unit = "trades" if path == "hot" else "records"
        rounded = None if rate is None else round(rate, 1)
        return Edge(source, target, path, unit, rounded, lag, lag_s, p50, p99, took_s, *verdict)

    def rate(self, stage: str) -> float | None:
        timed = self.stages.get(stage)
        return timed.rate if timed else 0.0 if self.facts.look.span_s else None

    def feeds(self) -> list[str]:
        return [f"feed-handler-{name}" for name in self.names]

    def behind(self, consumer: str, kinds: Sequence[str]) -> tuple[int | None, float | None]:
        """Records that a consumer has yet to read, and the age in seconds of the oldest; also where it has never read.
        None where the log does not tell."""
        lag, oldest = 0, 0.0
        if self.facts.log_error:
            return None, None
        for one in self.facts.streams:
            if one.kind in kinds and (self.whole or one.exchange in self.names):
                at = next((at for at in one.consumers if at.consumer == consumer), None)
                lag += at.lag if at else one.records
                oldest = max(oldest, at.lag_s if at else one.age_s)
        return lag, oldest


def edges(facts: Facts) -> list[Edge]:
    """The edges, in the order of the way of a trade."""
    part = _Part(facts, enabled(facts.config), facts.look.stages, whole=True)
    return [
        _received(part),
        _logged(part),
        _read(part),
        _loaded(part),
        _served(facts),
        _followed(part),
        _archived(part),
    ]


def tell(facts: Facts, venue: Venue) -> None:
    """Fill in an exchange's own edges, and the state that follows from them."""
    part = _Part(facts, [venue.exchange], venue.stages, whole=False)
    captured = [_received(part), _logged(part)]
    venue.state = worst(captured)
    venue.reason = next((edge.reason for edge in captured if edge.state == venue.state and edge.reason), "")
    venue.edges = [*captured, _read(part), _followed(part)]


def silent(facts: Facts) -> list[Venue]:
    """Exchanges that are captured and of which no process speaks: what the log knows of them."""
    told = {venue.exchange for venue in facts.look.venues}
    found = []
    for name in enabled(facts.config):
        if name not in told:
            age = next((one.age_s for one in facts.streams if one.kind == "trades" and one.exchange == name), None)
            newest = None if age is None else time.time() - age
            found.append(Venue(name, False, 0.0, 0, newest, 0, 0, 0, 0, 0, None, 0, age_s=age, silent=True))
    return found


def _gone(facts: Facts, *services: str) -> str:
    """Which of these services do not run or do not answer, in words."""
    deaf = [process.service for process in facts.look.processes if not process.answers]
    words = [f"{name} does not run" for name in services if name in facts.missing]
    return ", ".join(words + [f"{name} does not answer" for name in services if name in deaf])


def _late(part: _Part, stage: str, what: str) -> Verdict:
    timed = part.stages.get(stage)
    if timed and timed.p99_s > SLOW_P99_S:
        return "slow", f"{what} up to {timed.p99_s:.2f} s (p99)"
    return "ok", ""


# -- from the exchanges into the log -----------------------------------------------------------------------------------


def _captures(part: _Part) -> Verdict | None:
    if not part.names:
        return "stopped", "every exchange is switched off in the configuration"
    if gone := _gone(part.facts, *part.feeds()):
        return "stopped" if all(_gone(part.facts, name) for name in part.feeds()) else "slow", gone
    return None


def _received(part: _Part) -> Edge:
    look = part.facts.look
    venues = [venue for venue in look.venues if venue.exchange in part.names]
    ages = {venue.exchange: venue.age_s for venue in venues if venue.age_s is not None}
    verdict = _captures(part) or ("ok", "")
    quiet = [f"no trade of {name} for {age:.0f} s" for name, age in ages.items() if age > 2 * SILENCES * AT_LEAST_S]
    down = [f"{venue.exchange} is not connected" for venue in venues if not venue.connected]
    if verdict[0] == "ok" and (down or quiet):
        verdict = "stopped" if venues and len(down) == len(venues) else "slow", ", ".join(down + quiet)
    heard = [venue for venue in venues if not venue.silent]
    rate = sum(venue.rate for venue in heard) if look.span_s and (heard or not venues) else None
    return part.edge("exchange", "feed", "exchange_to_receive", rate, None, max(ages.values(), default=None), verdict)


def _logged(part: _Part) -> Edge:
    facts, feeds = part.facts, part.feeds()
    queue = sum(process.queue for process in facts.look.processes if process.service in feeds)
    streams = [one for one in facts.streams if one.kind == "trades" and (part.whole or one.exchange in part.names)]
    age = min((one.age_s for one in streams), default=None)
    verdict = _captures(part) or _late(part, "decoded_to_durable", "a frame waits for the log")
    if queue > QUEUE_SHARE * facts.config.feed.queue_frames and verdict[0] == "ok":
        verdict = "slow", f"{queue:,} frames wait to be written"
    return part.edge("feed", "log", "decoded_to_durable", part.rate("decoded_to_durable"), queue, age, verdict)


# -- into the hot store, and from there to those who ask ---------------------------------------------------------------


def _standing(part: _Part, age: float | None) -> Verdict | None:
    limit = loader_limit_s(part.facts.config)
    if age is not None and age > limit:
        return "stopped" if age > 2 * limit else "slow", f"the oldest trade not yet in the store is {age:.0f} s old"
    return None


def _read(part: _Part) -> Edge:
    lag, age = part.behind("loader", ("trades",))
    if gone := _gone(part.facts, "loader") or part.facts.log_error:
        verdict: Verdict = ("stopped", gone)
    else:
        verdict = _standing(part, age) or _late(part, "log_to_loader", "a trade waits for the loader")
    return part.edge("log", "loader", "log_to_loader", part.rate("log_to_loader"), lag, age, verdict)


def _loaded(part: _Part) -> Edge:
    lag, age = part.behind("loader", ("trades",))
    if gone := _gone(part.facts, "store", "loader") or part.facts.store_error:
        verdict: Verdict = ("stopped", gone)
    else:
        verdict = _standing(part, age) or _late(part, "loader_to_visible", "a trade waits for the store")
    return part.edge("loader", "store", "loader_to_visible", part.rate("loader_to_visible"), lag, age, verdict)


def _served(facts: Facts) -> Edge:
    serving = facts.look.serving
    verdict: Verdict = ("ok", "")
    if facts.store_error:
        verdict = "stopped", facts.store_error
    elif serving.p99 is not None and serving.p99 > SLOW_ANSWER_S:
        verdict = "slow", f"answers take up to {serving.p99:.1f} s (p99)"
    rate = round(serving.requests, 1) if facts.look.span_s else None
    return Edge("store", "web", "hot", "requests", rate, None, None, serving.p50, serving.p99, None, *verdict)


# -- into the cold tier ------------------------------------------------------------------------------------------------


def _offloading(part: _Part, lag: int | None, age: float | None) -> Verdict:
    every = part.facts.config.tier.every_s
    if not every:
        return "ok", "offloads by itself are switched off (tier.every_s = 0): `k2 archive` does one" if lag else ""
    if gone := _gone(part.facts, "archiver") or part.facts.log_error:
        return "stopped", gone
    limit = OFFLOADS * every + GRACE_S
    if age is not None and age > limit:
        words = f"the oldest record that is not archived is {age:.0f} s old, an offload is due every {every:.0f} s"
        return "stopped" if age > 3 * limit else "slow", words
    return "ok", ""


def _followed(part: _Part) -> Edge:
    lag, age = part.behind("archiver", ("trades", "frames", "gaps"))
    rate = part.facts.cold_rate if part.whole else None
    return part.edge("log", "archiver", "", rate, lag, age, _offloading(part, lag, age), "cold")


def _archived(part: _Part) -> Edge:
    lag, age = part.behind("archiver", ("trades", "frames", "gaps"))
    state, reason = _offloading(part, lag, age)
    job = part.facts.look.jobs.get("offload")
    if state == "ok" and job and job.failed and not job.ok:
        state, reason = "slow", f"{job.failed} offloads failed and none ended well: read archiver.log in the run folder"
    took = job.seconds if job else None
    facts = part.facts
    return part.edge("archiver", "cold", "", facts.cold_rate, None, facts.cold_age_s, (state, reason), "cold", took)
