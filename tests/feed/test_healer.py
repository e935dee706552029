"""Healing by a hand-turned clock: what is asked for, when, and when it is given up."""

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise
from urllib.parse import parse_qsl, urlsplit

import pytest
from feed_kit import page_frame, page_payload, trade_frame

from k2.config import FeedConfig
from k2.core.sequence import Sequences
from k2.core.session import Decoder
from k2.core.types import Event, Frame, Gap
from k2.exchanges import venue
from k2.feed.healer import AGAIN, RETRIES, TRIES, Healer
from k2.feed.rest import Answer, RestError, _retry_after

Reply = Answer | RestError


class TurnedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer as soon as there is nothing else to do."""

    def __init__(self) -> None:
        self.at = 1000.0
        super().__init__()

    def time(self) -> float:
        return self.at

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.at = max(self.at, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class Venue:
    """REST that is a function of the path, and a recorder that decodes at once."""

    url = "https://rest.example"

    def __init__(self, reply: Callable[[int, int], Reply]) -> None:
        self.reply = reply
        self.decoder = Decoder(venue("binance"), Sequences("binance"))
        self.asked: list[tuple[float, int]] = []
        self.noted: list[Gap] = []
        self.healed: list[Gap] = []

    async def open(self) -> None: ...

    async def get(self, path: str) -> Answer:
        query = dict(parse_qsl(urlsplit(path).query))
        self.asked.append((asyncio.get_running_loop().time() - 1000, int(query["fromId"])))
        reply = self.reply(int(query["fromId"]), int(query["limit"]))
        if isinstance(reply, RestError):
            raise reply
        return reply

    def ask(self, frame: Frame) -> "asyncio.Future[list[Event]]":
        out = self.decoder.run([frame])
        self.healed += [gap for gap in out.gaps if gap.state == "healed"]
        future = asyncio.get_running_loop().create_future()
        future.set_result(out.pages[0][1])
        return future

    def note(self, gaps: list[Gap]) -> None:
        self.noted += gaps

    def heal(self, *live: int, seconds: float, suspects: tuple[str, ...] = (), **config: float) -> None:
        """Live trades arrive at once, then `seconds` go by."""
        loop = TurnedLoop()

        async def passing() -> None:
            self.decoder.run([trade_frame(number) for number in live])
            settings = FeedConfig(heal_delay=0.3, **config)  # type: ignore[arg-type]
            healer = Healer(venue("binance"), settings, self.decoder.sequences, self, self)  # type: ignore[arg-type]
            task = asyncio.ensure_future(healer.run())
            healer.wake()
            healer.suspect(suspects)
            await asyncio.sleep(seconds)
            assert not task.done()
            task.cancel()

        try:
            loop.run_until_complete(passing())
        finally:
            loop.close()


def page(first: int, limit: int, last: int = 10**9, without: tuple[int, ...] = ()) -> Answer:
    numbers = [n for n in range(first, min(first + limit, last + 1)) if n not in without]
    return Answer(200, page_payload(numbers), None)


def test_a_hole_is_asked_for_after_the_delay_and_healed() -> None:
    rest = Venue(lambda first, limit: page(first, limit, last=20))
    rest.heal(1, 10, seconds=2)
    assert [gap.first_id for gap in rest.healed] == [2]
    ((at, first),) = rest.asked
    assert (round(at, 1), first) == (0.3, 2)


def test_many_pages_are_walked_within_the_rate_limit() -> None:
    rest = Venue(lambda first, limit: page(first, limit, last=50_000))
    rest.heal(1, 40_002, seconds=60)
    assert rest.healed
    assert len(rest.asked) == 40
    limits = venue("binance").limits
    least = (40 * 25 - limits.rest_burst) / limits.rest_per_second
    assert rest.asked[-1][0] >= least * 0.95


def test_one_page_fills_the_holes_that_follow_closely() -> None:
    rest = Venue(lambda first, limit: page(first, limit, last=1000))
    rest.heal(1, 5, 100, 200, 300, seconds=5)
    assert len(rest.healed) == 4
    assert len(rest.asked) == 1


def test_a_last_trade_that_nothing_follows_is_asked_for_once() -> None:
    rest = Venue(lambda first, limit: page(first, limit, last=12))
    rest.heal(9, 10, seconds=100, suspects=("BTC-USDT", "ETH-USDT"))
    assert [first for _, first in rest.asked] == [11]
    assert rest.decoder.sequences.last_id("BTC-USDT") == 12
    assert not rest.noted


def test_a_probe_without_an_answer_is_made_again_and_not_for_ever() -> None:
    rest = Venue(lambda first, limit: RestError("unreachable", "connection refused"))
    rest.heal(9, 10, seconds=300, suspects=("BTC-USDT",))
    assert len(rest.asked) == TRIES
    assert not rest.noted


def test_what_the_venue_does_not_have_is_asked_for_again_and_then_given_up_with_the_reason() -> None:
    rest = Venue(lambda first, limit: page(first, limit, last=20, without=(5,)))
    rest.heal(1, 10, seconds=60)
    (gap,) = rest.noted
    assert (gap.state, gap.missing) == ("unavailable", ((5, 5),))
    assert "does not have" in gap.reason
    assert len(rest.asked) >= 1 + len(RETRIES)
    assert rest.asked[-1][0] >= sum(RETRIES)


def test_a_venue_whose_rest_lags_behind_is_waited_for() -> None:
    replies = iter([page(2, 0)])
    rest = Venue(lambda first, limit: next(replies, page(first, limit, last=20)))
    rest.heal(1, 10, seconds=30)
    assert rest.healed
    assert not rest.noted


def test_rate_limits_are_respected_as_the_venue_asks() -> None:
    replies = iter([Answer(429, b"{}", 7.0), Answer(418, b"{}", 20.0)])
    rest = Venue(lambda first, limit: next(replies, page(first, limit, last=20)))
    rest.heal(1, 10, seconds=60)
    assert rest.healed
    times = [at for at, _ in rest.asked]
    assert times[1] - times[0] >= 7
    assert times[2] - times[1] >= 20


def test_errors_and_timeouts_are_tried_again_with_back_off() -> None:
    replies: list[Reply] = [Answer(503, b"busy", None), RestError("timeout", "too slow"), Answer(500, b"", None)]
    left = iter(replies)
    rest = Venue(lambda first, limit: next(left, page(first, limit, last=20)))
    rest.heal(1, 10, seconds=60)
    assert rest.healed
    waits = [b - a for (a, _), (b, _) in zip(rest.asked, rest.asked[1:], strict=False)]
    assert waits == sorted(waits)


def test_a_venue_that_stays_away_is_given_up_after_the_configured_time() -> None:
    rest = Venue(lambda first, limit: RestError("unreachable", "connection refused"))
    rest.heal(1, 10, seconds=100, heal_give_up=60.0)
    (gap,) = rest.noted
    assert gap.state == "unavailable"
    assert "connection refused" in gap.reason
    assert 60 <= rest.asked[-1][0] <= 100


def test_endless_rate_limiting_is_given_up_too() -> None:
    rest = Venue(lambda first, limit: Answer(429, b"{}", 5.0))
    rest.heal(1, 10, seconds=200, heal_give_up=60.0)
    assert [gap.state for gap in rest.noted] == ["unavailable"]


def test_an_unreachable_venue_does_not_starve_the_holes_of_other_symbols() -> None:
    rest = Venue(lambda first, limit: page(first, limit, 20) if first != 2 else Answer(400, b'{"code":-1121}', None))
    rest.decoder.run([trade_frame(11, "ETHUSDT"), trade_frame(15, "ETHUSDT")])
    rest.heal(1, 10, seconds=60)
    assert [gap.symbol for gap in rest.healed] == ["ETH-USDT"]
    assert [gap.symbol for gap in rest.noted] == ["BTC-USDT"]
    assert "400" in rest.noted[0].reason


def test_a_hole_that_was_given_up_is_tried_at_the_start_and_then_ever_more_rarely() -> None:
    rest = Venue(lambda first, limit: page(first, limit, last=20, without=(5,)))
    rest.decoder.run([trade_frame(1), trade_frame(10), page_frame(2, [2, 3, 4, 6, 7, 8, 9])])
    (hole,) = rest.decoder.sequences.holes()
    rest.decoder.sequences.unavailable(hole, "gone", 1)
    rest.heal(11, seconds=7200)
    times = [at for at, _ in rest.asked]
    assert times[0] < 1
    assert 4 <= len(times) <= 7
    assert all(b - a >= AGAIN[0] / 2 for a, b in pairwise(times))
    assert not rest.noted


def test_a_hole_that_was_given_up_heals_when_the_venue_has_it_after_all() -> None:
    rest = Venue(lambda first, limit: page(first, limit, last=20, without=(5,)))
    rest.heal(1, 10, seconds=100)
    assert [gap.state for gap in rest.noted] == ["unavailable"]
    rest.reply = lambda first, limit: page(first, limit, last=20)
    rest.heal(12, seconds=10)
    assert [(gap.state, gap.first_id) for gap in rest.healed] == [("healed", 2)]


@pytest.mark.parametrize(("text", "seconds"), [("7", 7.0), (None, None), ("soon", None), ("", None)])
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert _retry_after(text) == seconds


def test_retry_after_may_be_a_date() -> None:
    assert _retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert (_retry_after("Wed, 21 Oct 2099 07:28:00 GMT") or 0) > 1e9


def test_the_kit_speaks_binance() -> None:
    assert json.loads(page_payload([3]))[0]["id"] == 3
