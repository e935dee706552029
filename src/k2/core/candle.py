"""Candles recomputed from trades, exactly and in one pass: the independent half of the proof that the stored are right.

Nothing here rounds but `vwap`, which keeps 18 decimals and cuts the rest off, as ClickHouse's Decimal division does.
"""

from collections.abc import Iterable
from decimal import Context, Decimal
from functools import lru_cache
from typing import NamedTuple

from k2.core.islands import Islands
from k2.core.types import Trade

INTERVALS = {"1m": 60, "5m": 300, "15m": 900, "30m": 1_800, "1h": 3_600, "1d": 86_400}

SCALE = 18  # decimals of prices and quantities, at most
_NS = 1_000_000_000
_exact = Context(prec=120)


class Candle(NamedTuple):
    """One window of one symbol. `window_start` is in seconds since 1970 UTC; a trade belongs to it by `exchange_ts`.

    Prices are in the quote asset, `volume` and `buy_volume` (takers' buys) in the base asset, `quote_volume` in the
    quote asset. `open` and `close` are the prices of the lowest and the highest (epoch, trade_id), in whatever order
    they arrived; `first_trade_id` and `last_trade_id` are those two's ids. `complete`: no id from first to last is
    missing, and the id before the first is present too, or is from before the symbol's capture (or epoch) began.
    """

    exchange: str
    symbol: str
    window_start: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    buy_volume: Decimal
    vwap: Decimal
    trade_count: int
    first_trade_id: int
    last_trade_id: int
    complete: bool


class _Window:
    """One window's sums in units of 10^-18 (10^-36 for `quote_volume`). `first` and `last` are (epoch, trade_id)."""

    __slots__ = (
        "buy_volume",
        "close",
        "count",
        "first",
        "high",
        "last",
        "low",
        "open",
        "quote_volume",
        "volume",
    )

    def __init__(self, key: tuple[int, int], price: int) -> None:
        self.first = self.last = key
        self.open = self.high = self.low = self.close = price
        self.volume = self.quote_volume = self.buy_volume = self.count = 0

    def join(self, other: "_Window") -> None:
        if other.first < self.first:
            self.first, self.open = other.first, other.open
        if other.last > self.last:
            self.last, self.close = other.last, other.close
        self.high = max(self.high, other.high)
        self.low = min(self.low, other.low)
        self.volume += other.volume
        self.quote_volume += other.quote_volume
        self.buy_volume += other.buy_volume
        self.count += other.count

    def copy(self) -> "_Window":
        twin = _Window(self.first, self.open)
        twin.last, twin.close, twin.high, twin.low = self.last, self.close, self.high, self.low
        twin.volume, twin.quote_volume = self.volume, self.quote_volume
        twin.buy_volume, twin.count = self.buy_volume, self.count
        return twin


class _Symbol:
    """One symbol in one epoch: its ids; and its windows, which all its epochs share."""

    __slots__ = ("present", "windows")

    def __init__(self, windows: dict[int, _Window]) -> None:
        self.present = Islands()
        self.windows = windows


class CandleBuilder:
    """Takes trades in any order, repeated ones too; gives the candles of every interval that is a multiple of its own.

    Memory: some 500 bytes a window that has trades (34 symbols, minutes, a day: 25 MB), whatever the number of trades.
    """

    def __init__(self, interval_s: int = 60) -> None:
        self._interval_s = interval_s
        self._interval_ns = interval_s * _NS
        self._windows: dict[tuple[str, str], dict[int, _Window]] = {}
        self._symbols: dict[tuple[str, str, int], _Symbol] = {}

    def add(self, trade: Trade) -> bool:
        """Put one trade in. False: its identity was there already, and it changed nothing."""
        number, epoch = trade.trade_id, trade.epoch
        symbol = self._symbols.get((trade.exchange, trade.symbol, epoch))
        if symbol is None:
            symbol = self._symbol(trade.exchange, trade.symbol, epoch)
        if not symbol.present.add(number):
            return False
        price, quantity = scaled(trade.price), scaled(trade.quantity)
        index = trade.exchange_ts // self._interval_ns
        key = (epoch, number)
        window = symbol.windows.get(index)
        if window is None:
            window = symbol.windows[index] = _Window(key, price)
        elif key > window.last:
            window.last, window.close = key, price
        elif key < window.first:
            window.first, window.open = key, price
        if price > window.high:
            window.high = price
        elif price < window.low:
            window.low = price
        window.volume += quantity
        window.quote_volume += price * quantity
        window.count += 1
        if trade.side == "buy":
            window.buy_volume += quantity
        return True

    def present(self, exchange: str, symbol: str, epoch: int = 0) -> Islands:
        """The ids added so far. Ids put in from elsewhere count for `complete`, as trades outside of all windows."""
        return self._symbol(exchange, symbol, epoch).present

    def _symbol(self, exchange: str, symbol: str, epoch: int) -> _Symbol:
        key = (exchange, symbol, epoch)
        if key not in self._symbols:
            self._symbols[key] = _Symbol(self._windows.setdefault((exchange, symbol), {}))
        return self._symbols[key]

    def candles(self, interval_s: int | None = None) -> list[Candle]:
        """All candles of an interval (default: the builder's own), by exchange, symbol and time."""
        interval_s = interval_s or self._interval_s
        if interval_s % self._interval_s:
            raise ValueError(f"candles of {interval_s} s cannot be made from windows of {self._interval_s} s")
        wide: dict[tuple[str, str, int], _Window] = {}
        for (exchange, symbol), windows in self._windows.items():
            for index, window in windows.items():
                place = (exchange, symbol, index * self._interval_s // interval_s * interval_s)
                if place in wide:
                    wide[place].join(window)
                else:
                    wide[place] = window.copy()
        return [self._candle(*place, wide[place]) for place in sorted(wide)]

    def _candle(self, exchange: str, symbol: str, start: int, window: _Window) -> Candle:
        epoch, first = window.first
        last = window.last[1]
        present = self.present(exchange, symbol, epoch)
        joined = first == present.first or first - 1 in present
        return Candle(
            exchange,
            symbol,
            start,
            _decimal(window.open, SCALE),
            _decimal(window.high, SCALE),
            _decimal(window.low, SCALE),
            _decimal(window.close, SCALE),
            _decimal(window.volume, SCALE),
            _decimal(window.quote_volume, 2 * SCALE),
            _decimal(window.buy_volume, SCALE),
            _decimal(window.quote_volume // window.volume, SCALE),
            window.count,
            first,
            last,
            joined and window.count == last - first + 1,
        )


def candles(trades: Iterable[Trade], interval_s: int) -> list[Candle]:
    """The candles of these trades, by exchange, symbol and time; windows begin at multiples of the interval, UTC."""
    builder = CandleBuilder(interval_s)
    for trade in trades:
        builder.add(trade)
    return builder.candles()


@lru_cache(maxsize=16384)
def scaled(text: str) -> int:
    """Plain decimal text to units of 10^-18. Raises ValueError if it has more decimals, or is no such text."""
    whole, _, fraction = text.partition(".")
    missing = SCALE - len(fraction)
    if missing < 0:
        raise ValueError(f"{text[:60]!r} has more than {SCALE} decimals")
    return int(whole + fraction) * _POWERS[missing]


_POWERS: tuple[int, ...] = tuple(10**i for i in range(SCALE + 1))


def _decimal(units: int, scale: int) -> Decimal:
    return Decimal(units).scaleb(-scale, _exact)
