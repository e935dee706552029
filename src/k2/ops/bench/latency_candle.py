"""From silver to candle, as a reader sees it who asks for both by turns, as quickly as one may (`reader.py`).

A candle view reads the same rows as `silver_trades`, so the question is not when somebody writes a candle, but whether
an answer ever lags. For each answer about candles: of the trades that it lacks, the one that had been visible in silver
for the longest when the question was asked, by the loader's own note; how long that was is how far the candle was
behind, and zero if it lacked none. A question meets the trades of the last milliseconds whenever it comes, so a lag
shows however far apart questions are. That a person waits for the question itself is reported beside it.
"""

from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from k2.ops.bench.latency_join import Trades
from k2.ops.bench.samples import spread


class Seen(NamedTuple):
    """A trade that became visible. Times in ns."""

    trade_id: int
    received: int
    visible: int


class Judged(NamedTuple):
    """What answers of one kind came to. `in_hand`: from each trade's receipt to the end of the first answer that shows
    it. `behind`: of each answer, how long the trade had been visible, before the question, that it lacked longest.
    `untrue`: how often an answer lacked a trade that had been visible before the question was asked. All in ns."""

    in_hand: list[int]
    behind: list[int]
    untrue: int


class _Market:
    """One symbol's trades, ids ascending, and how many of them the answers so far have shown."""

    def __init__(self, trades: list[Seen]) -> None:
        self.trades = sorted(trades)
        self.ids = [trade.trade_id for trade in self.trades]
        self.shown = 0
        self.oldest = array("q", [trade.visible for trade in self.trades])  # of this trade and those after it
        for i in range(len(self.oldest) - 2, -1, -1):
            self.oldest[i] = min(self.oldest[i], self.oldest[i + 1])


def judge(markets: Mapping[str, list[Seen]], answers: Sequence[Mapping[str, Any]]) -> Judged:
    """Hold answers against what was visible. An answer: `start` and `end` (ns), `last`: market to the newest id shown;
    what one answer has shown need not be in the next."""
    found = Judged([], [], 0)
    untrue = 0
    books = {name: _Market(trades) for name, trades in markets.items()}
    for answer in answers:
        start, behind = answer["start"], 0
        for name, book in books.items():
            reached = max(book.shown, bisect_right(book.ids, answer["last"].get(name, -1)))
            found.in_hand.extend(answer["end"] - trade.received for trade in book.trades[book.shown : reached])
            book.shown = reached
            if reached < len(book.trades) and book.oldest[reached] < start:
                behind = max(behind, start - book.oldest[reached])
                untrue += sum(trade.visible < start for trade in book.trades[reached:])
        found.behind.append(behind)
    return found._replace(untrue=untrue)


def ids_behind(answers: Sequence[Mapping[str, Any]]) -> list[int]:
    """Of each answer about candles that follows one about silver: how many ids of one symbol, at most, silver had shown
    and the candle did not."""
    found = []
    for before, answer in pairwise(answers):
        if (before["kind"], answer["kind"]) == ("silver", "candle"):
            lacking = [last - answer["last"].get(market, last) for market, last in before["last"].items()]
            found.append(max(0, *lacking) if lacking else 0)
    return found


def markets(stretches: Sequence[Trades], since: int, before: int) -> dict[str, list[Seen]]:
    """The trades with exchange times in since..before (ns) that became visible."""
    found: dict[str, list[Seen]] = {}
    for trades in stretches:
        times = trades.times
        columns = (trades.counters, trades.ids, times["exchange"], times["received"], times["visible"])
        for (symbol, _), trade_id, due, received, visible in zip(*columns, strict=True):
            if since <= due < before and visible:
                found.setdefault(f"{trades.exchange}:{symbol}", []).append(Seen(trade_id, received, visible))
    return found


def figures(
    stretches: Sequence[Trades], answers: Sequence[Mapping[str, Any]], since: int, before: int
) -> dict[str, Any]:
    """What the reader found in a window: the segment `silver_to_candle` and what puts it into proportion, ms."""
    trades = markets(stretches, since, before)
    asked = {kind: [answer for answer in answers if answer["kind"] == kind] for kind in ("silver", "candle")}
    candle, silver = judge(trades, asked["candle"]), judge(trades, asked["silver"])
    lacking = ids_behind(answers)
    return {
        "trades": sum(map(len, trades.values())),
        "questions": len(answers),
        "silver_to_candle": spread(candle.behind, 1e-6),
        "candle_ids_behind_silver": max(lacking, default=0),
        "candle_untrue": candle.untrue,
        "silver_untrue": silver.untrue,
        "candle_question": spread([answer["end"] - answer["start"] for answer in asked["candle"]], 1e-6),
        "silver_question": spread([answer["end"] - answer["start"] for answer in asked["silver"]], 1e-6),
        "receive_to_candle_in_hand": spread(candle.in_hand, 1e-6),
        "receive_to_silver_in_hand": spread(silver.in_hand, 1e-6),
    }
