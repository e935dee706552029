"""The healer: asks the venue's REST interface for missing trades, one hole at a time, longest known first.

Its answers go through the recorder like any frame, so what they bring is decoded, deduplicated and written on the one
way that everything takes; whether a hole is healed is read from the trade ids afterwards, never from the answer.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from k2 import metrics
from k2.config import FeedConfig
from k2.core.exchange import Exchange
from k2.core.pacing import Backoff, TokenBucket
from k2.core.sequence import Sequences
from k2.core.types import Fault, Frame, Hole, RestRequest, Trade
from k2.feed.recorder import Recorder
from k2.feed.rest import Answer, Rest, RestError

LOOK_EVERY = 0.05  # s, at the most often
RETRIES = (
    2.0,
    8.0,
    30.0,
)  # s between asking again for what the venue said it does not have: REST may lag behind the feed
SETTLE = 5.0  # s after the start in which the HTTP library is not loaded unless something is missing
AGAIN = (300.0, 86_400.0)  # s: first and longest time until a hole that was given up is tried once more, quietly
STRETCH = 900  # ids: about a page
TRIES = 5  # times one page is asked for before another hole gets its turn
PROBE_AGAIN = 5.0  # s until a probe that got no answer is made again
OUTCOMES = (
    "ok", "rate-limited", "refused", "server-error", "unreadable", "timeout", "unreachable", "too-large",
)  # fmt: skip
HOPELESS = 2  # answers without the trades after which an open hole is shown as one that does not heal
LONGEST_WAIT = 300.0  # s that a Retry-After is honoured for

_log = logging.getLogger("k2.feed")


@dataclass
class _Case:
    """What was tried for a hole."""

    since: float
    next_at: float
    conclusive: int = 0
    last_error: str = "the venue did not answer"
    given_up: bool = False
    backoff: Backoff = field(default_factory=lambda: Backoff(1.0, 60.0))
    rare: Backoff = field(default_factory=lambda: Backoff(*AGAIN))


class _Page(NamedTuple):
    """What came of one request; `frame` None: no answer at all."""

    outcome: str
    trades: list[Trade]
    frame: Frame | None
    error: str


class Healer:
    """One exchange's. `run` goes on until cancelled."""

    def __init__(
        self, exchange: Exchange, config: FeedConfig, sequences: Sequences, recorder: Recorder, rest: Rest
    ) -> None:
        self.exchange = exchange
        self.config = config
        self.sequences = sequences
        self.recorder = recorder
        self.rest = rest
        self.bucket = TokenBucket(exchange.limits.rest_per_second, exchange.limits.rest_burst)
        self._cases: dict[tuple[str, int, int], _Case] = {}
        for outcome in OUTCOMES:
            metrics.REST_REQUESTS.labels(exchange.name, outcome)
        self._now = asyncio.get_running_loop().time
        self._news = asyncio.Event()
        self._suspects: dict[str, tuple[float, int]] = {}

    def suspect(self, symbols: Iterable[str]) -> None:
        """A newest trade of these symbols may be missing with none after it to show that: ask REST once."""
        for symbol in symbols:
            self._suspects.setdefault(symbol, (self._now(), 1))
        self._news.set()

    def measure(self) -> None:
        """Show how many gaps the venue does not heal. Call about once a second."""
        hopeless = sum(case.conclusive >= HOPELESS and not case.given_up for case in self._cases.values())
        metrics.UNHEALABLE.labels(self.exchange.name).set(hopeless)

    def wake(self) -> None:
        """There may be a new hole."""
        self._news.set()

    async def run(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE):
                await self._news.wait()
        await self.rest.open()
        while True:
            began = self._now()
            hole = self._ripest()
            if hole is not None:
                await self._treat(hole)
                continue
            due = [symbol for symbol, (at, _) in self._suspects.items() if at <= began]
            if due:
                await self._probe(due[0], self._suspects.pop(due[0])[1])
                continue
            await asyncio.sleep(max(LOOK_EVERY, 20 * (self._now() - began)))
            times = [case.next_at for case in self._cases.values()] + [at for at, _ in self._suspects.values()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(times, default=None)):
                    await self._news.wait()
            self._news.clear()

    def _ripest(self) -> Hole | None:
        """The longest known hole that is due; one that was given up only when no other is."""
        now = self._now()
        cases = {}
        ripest = None
        for given_up in (False, True):
            for hole in self.sequences.holes(given_up=given_up):
                key = _key(hole)
                case = cases[key] = self._cases.get(key) or _Case(now, now + self.config.heal_delay)
                case.given_up = given_up
                if ripest is None and now >= case.next_at:
                    ripest = hole
        self._cases = cases
        return ripest

    def _with_neighbours(self, hole: Hole) -> Hole:
        """The hole, stretched over the ones that follow closely: one page may fill them all."""
        near = [
            other
            for other in self.sequences.holes()
            if (other.symbol, other.epoch) == (hole.symbol, hole.epoch)
            and hole.first_id <= other.first_id <= hole.first_id + STRETCH
        ]
        last = max(near, key=lambda other: other.last_id, default=hole)
        return hole._replace(last_id=last.last_id, after_ts=last.after_ts) if last.last_id > hole.last_id else hole

    async def _treat(self, hole: Hole) -> None:
        """One walk through the venue's pages for this hole, and what follows from it."""
        case = self._cases[_key(hole)]
        conclusive = await self._walk(self._with_neighbours(hole), case)
        missing = self.sequences.missing(hole)
        if not missing:
            _log.info("%s: healed %d..%d", hole.symbol, hole.first_id, hole.last_id)
            return
        now = self._now()
        case.conclusive += conclusive
        if not case.given_up and (case.conclusive > len(RETRIES) or now - case.since >= self.config.heal_give_up):
            self._give_up(hole, case)
            case.given_up = True
        if case.given_up:
            case.next_at = now + case.rare.next(random.random())
        else:
            pause = RETRIES[case.conclusive - 1] if conclusive else case.backoff.next(random.random())
            case.next_at = now + pause

    def _give_up(self, hole: Hole, case: _Case) -> None:
        event = self.sequences.unavailable(hole, case.last_error, time.time_ns())
        if event is not None:
            _log.error("%s: trades %d..%d cannot be had: %s", hole.symbol, hole.first_id, hole.last_id, case.last_error)
            self.recorder.note([event])

    async def _walk(self, hole: Hole, case: _Case) -> bool:
        """Ask page after page. True: the venue's answer is conclusive, what is missing now it does not have."""
        request: RestRequest | None = self.exchange.heal(hole)
        backoff = Backoff(0.5, 30.0)
        failures = 0
        while request is not None and self.sequences.missing(hole):
            page = await self._get(request, backoff)
            if page.outcome == "ok" and page.frame is not None:
                case.last_error = "the venue's REST interface does not have them"
                if page.trades:
                    case.since = self._now()
                request, failures = self.exchange.heal_next(hole, request, page.trades, page.frame), 0
                backoff.reset()
                continue
            case.last_error = page.error
            if page.outcome == "refused":
                return True
            if page.outcome == "rate-limited":
                if self._now() - case.since >= self.config.heal_give_up:
                    return False
                continue
            failures += 1
            if failures >= TRIES:
                return False
            await asyncio.sleep(backoff.next(random.random()))
        return request is None

    async def _probe(self, symbol: str, tries: int) -> None:
        """Ask for what may have followed a symbol's newest trade. It goes to the recorder like any page."""
        hole = self.sequences.following(symbol)
        if hole is None:
            return
        page = await self._get(self.exchange.heal(hole), Backoff(0.5, 30.0))
        if page.outcome not in ("ok", "refused") and tries < TRIES:
            self._suspects[symbol] = (self._now() + PROBE_AGAIN, tries + 1)

    async def _get(self, request: RestRequest, backoff: Backoff) -> _Page:
        """One request, within the venue's rate limit; the answer is recorded and counted."""
        await asyncio.sleep(self.bucket.wait(self._now(), request.weight))
        try:
            answer = await self.rest.get(request.path)
        except RestError as error:
            self._count(error.outcome)
            return _Page(error.outcome, [], None, f"{self.rest.url}: {error}")
        frame = Frame(time.time_ns(), "rest", "rest", f"{answer.status} {request.path}", answer.body)
        events = await self.recorder.ask(frame)
        trades = [event for event in events if isinstance(event, Trade)]
        outcome = _outcome(answer, trades, [event for event in events if isinstance(event, Fault)])
        self._count(outcome)
        if outcome == "rate-limited":
            wait = answer.retry_after if answer.retry_after is not None else backoff.next(random.random())
            self.bucket.penalise(self._now(), min(wait, LONGEST_WAIT))
        return _Page(outcome, trades, frame, f"the venue answers {answer.status} ({outcome}) to {request.path}")

    def _count(self, outcome: str) -> None:
        metrics.REST_REQUESTS.labels(self.exchange.name, outcome).inc()
        if outcome != "ok":
            _log.info("REST request for missing trades: %s", outcome)


def _outcome(answer: Answer, page: list[Trade], faults: list[Fault]) -> str:
    """ok, rate-limited, refused (asking again is no use), server-error (it may be), unreadable."""
    if answer.status in (418, 429) or any(fault.reason == "rate-limited" for fault in faults):
        return "rate-limited"
    if answer.status >= 500 or answer.status in (408, 425):
        return "server-error"
    if answer.status >= 300:
        return "refused"
    return "unreadable" if faults and not page else "ok"


def _key(hole: Hole) -> tuple[str, int, int]:
    return hole.symbol, hole.epoch, hole.first_id
