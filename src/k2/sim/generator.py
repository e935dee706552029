"""The market: seeded arrivals at all instruments, prices that walk, ids without a hole.

Arrivals are a Poisson process in which each arrival is one taker order; it makes one trade or, as real orders that eat
through the book do, a burst of trades with one time and one side. The generator works by the clock it is given and
never waits for anybody: what was due is made, with the time at which it was due.
"""

import math
import random
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

from k2.sim.truth import Made, flags

USD_PRICES = {
    "BTC": 105_000.0,
    "ETH": 3_900.0,
    "BNB": 1_100.0,
    "SOL": 180.0,
    "XRP": 2.5,
    "ADA": 0.65,
    "DOT": 3.1,
    "LINK": 17.0,
    "DOGE": 0.19,
    "LTC": 95.0,
    "AVAX": 19.0,
    "ATOM": 3.1,
    "USDT": 1.0,
    "USD": 1.0,
    "EUR": 1.15,
    "GBP": 1.3,
}
WEIGHTS = {"BTC": 30, "ETH": 20, "SOL": 12, "XRP": 8, "DOGE": 6, "BNB": 5}
# (trade_id, index of the price level, index of the quantity, and what `Venue.moment` gave) to the trade's text
Row = Callable[[int, int, int, bytes, bytes], bytes]
_TABLE = 4096
_STEPS = 256
LEVELS = 2048  # prices that an instrument can have; about 2 % to either side of the middle
_WAITS = [-math.log(1 - (n + 0.5) / _TABLE) for n in range(_TABLE)]  # exponential waits, mean 1, equally likely
_WORTHS = [random.Random(n).lognormvariate(5.0, 1.6) for n in range(_TABLE)]  # of single trades, in the quote asset
LONGEST_BURST = 24


def reference_price(symbol: str) -> float:
    """A plausible price for any BASE-QUOTE; unknown assets get one from their name, the same in every run."""
    base, quote = (USD_PRICES.get(asset) or _price_from_name(asset) for asset in symbol.split("-"))
    return base / quote


def _price_from_name(asset: str) -> float:
    return float(10 ** (random.Random(asset).uniform(-1, 2)))


def _unprepared(trade_id: int, level: int, size: int, head: bytes, tail: bytes) -> bytes:
    raise AssertionError("a venue has to prepare an instrument before it trades")


class Instrument:
    """One symbol at one venue: its counter, its walking price and what it made since the last flush.

    Prices and quantities come from tables, so that a venue can print all of them beforehand: `levels` are prices in
    ticks of 10**-`price_decimals`, `sizes` quantities in steps of 10**-`quantity_decimals`.
    """

    def __init__(
        self,
        symbol: str,
        native: str,
        price_decimals: int,
        quantity_decimals: int,
        printed_decimals: int,
        rng: random.Random,
    ) -> None:
        """`printed_decimals`: places that the venue prints at least, beyond what its tick has (0: none)."""
        self.symbol, self.native = symbol, native
        self.weight = WEIGHTS.get(symbol.split("-", maxsplit=1)[0], 2)
        self.price_decimals, self.quantity_decimals = price_decimals, quantity_decimals
        reference = reference_price(symbol)
        self.levels = _levels(max(10, round(reference * 10**price_decimals)), rng)
        unit = 10**quantity_decimals / reference * rng.uniform(0.7, 1.4)
        self.sizes = [max(1, round(worth * unit)) for worth in _WORTHS]
        price_scale, quantity_scale = (max(n, printed_decimals) for n in (price_decimals, quantity_decimals))
        self._prices = [n * 10 ** (price_scale - price_decimals) for n in self.levels]
        self._quantities = [n * 10 ** (quantity_scale - quantity_decimals) for n in self.sizes]
        self._flags = [flags(price_scale, quantity_scale, buy) for buy in (0, 1)]
        steps = [round(rng.gauss(0, 2)) for _ in range(_STEPS // 2)]
        self._steps = steps + [-step for step in steps]
        self._level = LEVELS // 2
        self.last_id = rng.randrange(1_000_000, 900_000_000)
        self.last_ts = 0
        self.epoch = 0
        self.pending: list[int] = []  # as `truth.packed` wants it
        self.row: Row = _unprepared

    def trade(self, exchange_ts: int, buy: int, count: int, word: int, head: bytes, tail: bytes) -> list[bytes]:
        """Make `count` trades of one taker order and print each with `row`. Fills `pending`.

        `word` holds 20 random bits for each trade; more are drawn from it as needed.
        """
        steps, prices, quantities, flag = self._steps, self._prices, self._quantities, self._flags[buy]
        level, trade_id, row, pending = self._level, self.last_id, self.row, self.pending.extend
        rows = []
        while True:
            moved = level + steps[word & 255]
            if 0 <= moved < LEVELS:
                level = moved
            trade_id += 1
            size = word >> 8 & 4095
            pending((trade_id, exchange_ts, prices[level], quantities[size], flag))
            rows.append(row(trade_id, level, size, head, tail))
            count -= 1
            if count <= 0:
                break
            word = (word * 6364136223846793005 + 1442695040888963407 >> 11) & 0xFFFFFFFFFFFFF
        self._level, self.last_id, self.last_ts = level, trade_id, exchange_ts
        return rows

    def resume(self, newest: Made) -> None:
        """Go on after the newest trade on disk."""
        self.last_id, self.last_ts = newest.trade_id, newest.exchange_ts
        self._level = min(LEVELS - 1, bisect_left(self._prices, newest.price))

    def restart_ids(self) -> None:
        """Begin a new epoch: the venue lists the symbol anew and counts from 1."""
        self.epoch += 1
        self.last_id = 0


def _levels(middle: int, rng: random.Random) -> list[int]:
    """Ascending prices in ticks around `middle`, unevenly spaced."""
    spacing = max(1, round(middle * 2e-5))
    price = max(1, middle - spacing * LEVELS // 2)
    levels = []
    for _ in range(LEVELS):
        price += rng.randint(1, 2 * spacing - 1)
        levels.append(price)
    return levels


class Arrivals:
    """When which instrument trades, and how many trades its taker order makes.

    `burst` is the mean number of trades an order; 1 gives a plain Poisson process of single trades.
    """

    def __init__(self, weights: Sequence[int], rate: float, burst: float, seed: str) -> None:
        if burst < 1:
            raise ValueError(f"a burst of {burst} trades an order is not possible: write 1 or more")
        self.rng = random.Random(seed)
        self.next = 0  # ns, when the next order arrives
        self._words = self._draw()
        self._sizes = self._burst_sizes(burst)
        self._mean = sum(self._sizes) / len(self._sizes)
        self.set_weights(weights)
        self.set_rate(rate)

    def set_weights(self, weights: Sequence[int]) -> None:
        """Share the rate among instruments 0, 1, ... by these weights."""
        total = sum(weights)
        picks: list[int] = []
        reached = 0
        for index, weight in enumerate(weights):
            reached += weight
            picks += [index] * (round(reached * _TABLE / total) - len(picks))
        self._picks = picks

    def set_rate(self, rate: float) -> None:
        """Trades a second over all instruments; 0 makes none."""
        if not (0 <= rate <= 1_000_000):
            raise ValueError(f"a rate of {rate} trades a second is not possible: write 0 to 1000000")
        self.rate = rate
        self._interval = 1e9 * self._mean / rate if rate else 1e18

    @staticmethod
    def _burst_sizes(burst: float) -> list[int]:
        """How large orders are, by 1024ths."""
        sizes: list[int] = []
        reached, p = 0.0, 1 / burst
        for size in range(1, LONGEST_BURST + 1):
            reached += p * (1 - p) ** (size - 1)
            sizes += [size] * (round(reached * 1024) - len(sizes))
        return sizes + [LONGEST_BURST] * (1024 - len(sizes))

    def _draw(self) -> Iterator[int]:
        while True:
            yield from array("Q", self.rng.randbytes(8 * 512))

    def word(self) -> int:
        """64 random bits."""
        return next(self._words)

    def due(self, now: int, room: int) -> list[tuple[int, int, int, int]]:
        """The orders that have arrived by `now` (ns): (time, instrument, number of trades, random word).

        Stops early when they make `room` trades or more. `next` is then the time of the order after the last one.
        """
        words, sizes, picks, waits, interval = self._words, self._sizes, self._picks, _WAITS, self._interval
        at, orders = self.next, []
        while at <= now and room > 0:
            word = next(words)
            count = sizes[word & 1023]
            orders.append((at, picks[word >> 10 & 4095], count, word >> 22))
            room -= count
            at += int(waits[word >> 52] * interval)
        self.next = at
        return orders


class VenueClock:
    """A venue's clock: ours plus a skew. It jumps ahead at once, and is slewed back at half speed as NTP slews a clock:
    a venue's trade times never run backwards."""

    def __init__(self) -> None:
        self.skew = 0  # ns, what it is meant to be
        self.offset = 0  # ns, what it is now
        self.steady = True  # the two are equal
        self._last = 0

    def start(self, now: int, latest: int) -> None:
        """`latest` is the time of the newest trade on disk: the clock goes on from there."""
        self.offset = max(self.skew, latest - now) if latest else self.skew
        self._last = now
        self.steady = self.offset == self.skew

    def turn(self, skew: int) -> None:
        """Aim at another skew."""
        self.skew = skew
        self.steady = self.offset == skew

    def at(self, now: int) -> int:
        """The venue's time (ns) at our time `now`; `now` never goes back from call to call."""
        if self.offset > self.skew:
            self.offset = max(self.skew, self.offset - max(0, now - self._last) // 2)
        else:
            self.offset = self.skew
        self.steady = self.offset == self.skew
        self._last = max(now, self._last)
        return now + self.offset
