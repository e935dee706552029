"""Candles side by side, and holes against their excuses."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from k2.core.candle import Candle, candles
from k2.core.islands import Islands
from k2.core.types import Trade
from k2.ops.evidence import LogSide

Window = tuple[str, str, int]  # exchange, symbol, window start in s
_SECOND = 1_000_000_000


class Difference(NamedTuple):
    """A candle that the store does not have as the log has it. Values are exact text; None: no such candle."""

    exchange: str
    symbol: str
    window_start: int
    stored: dict[str, str] | None
    recomputed: dict[str, str] | None


def compare_candles(
    side: LogSide, expected: Sequence[Candle], answered: Sequence[Candle], newer: Iterable[Trade], width: int
) -> tuple[int, list[Difference]]:
    """How many candles of `width` seconds were compared, and those that differ.

    `newer` are the trades that the log has got since `expected` was computed, in its order.
    """
    should, have = side.scope.windows(expected, width), side.scope.windows(answered, width)
    since: dict[Window, list[Trade]] = {}
    for trade in newer:
        start = trade.exchange_ts // (width * _SECOND) * width
        since.setdefault((trade.exchange, trade.symbol, start), []).append(trade)
    checked, wrong = 0, []
    for key in sorted(should.keys() | have.keys()):
        recomputed, stored = should.get(key), have.get(key)
        if stored and _older_than_log(side, stored):
            continue
        checked += 1
        if stored != recomputed and not (stored and _grew_into(recomputed, stored, since.get(key, []), width)):
            wrong.append(Difference(*key, _plain(stored), _plain(recomputed)))
    return checked, wrong


def _older_than_log(side: LogSide, stored: Candle) -> bool:
    """The log no longer retains the candle's first trades: it cannot be recomputed."""
    return stored.first_trade_id < side.floor((stored.exchange, stored.symbol, 0))


def _grew_into(before: Candle | None, stored: Candle, newer: Sequence[Trade], width: int) -> bool:
    """Whether `stored` is `before` and the first of the newer trades. `complete` may lag behind, so it is left out."""
    more = stored.trade_count - (before.trade_count if before else 0)
    if not 0 < more <= len(newer):
        return False
    added = candles(newer[:more], width)
    if len(added) != 1:
        return False
    merged = _merged(before, added[0]) if before else added[0]
    return merged._replace(complete=stored.complete, vwap=stored.vwap) == stored


def _merged(a: Candle, b: Candle) -> Candle:
    first, last = min(a, b, key=lambda c: c.first_trade_id), max(a, b, key=lambda c: c.last_trade_id)
    return a._replace(
        open=first.open,
        high=max(a.high, b.high),
        low=min(a.low, b.low),
        close=last.close,
        volume=a.volume + b.volume,
        quote_volume=a.quote_volume + b.quote_volume,
        buy_volume=a.buy_volume + b.buy_volume,
        trade_count=a.trade_count + b.trade_count,
        first_trade_id=first.first_trade_id,
        last_trade_id=last.last_trade_id,
    )


def _plain(candle: Candle | None) -> dict[str, str] | None:
    return {name: str(value) for name, value in candle._asdict().items()} if candle else None


def unexplained(holes: Iterable[tuple[int, int]], excused: Islands) -> list[tuple[int, int]]:
    """The parts of the holes that are not excused."""
    return [part for first, last in holes for part in excused.holes(first, last)]
