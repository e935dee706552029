"""Candles of stored minutes and the live tail, merged here, exactly, by the rule of the views `k2.ohlcv_*`.

Of a minute count the stored candle, of generation v, and the tail's trades of later generations. Nothing is rounded:
prices and quantities are integers in units of 10^-18, quote volumes of 10^-36.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from k2.ask.times import SECOND, format_time

Window = tuple[int, str, str]  # (start in s, exchange, symbol): also the order of an answer
PRICE, QUOTE = 18, 36  # decimals


class Minute(NamedTuple):
    """What is known of a minute, or of the trades of one: a stored candle, or a part of the tail."""

    open: int
    high: int
    low: int
    close: int
    volume: int
    quote_volume: int
    buy_volume: int
    trade_count: int
    first: tuple[int, int]  # (epoch, trade_id)
    last: tuple[int, int]
    apart: bool

    def join(self, other: "Minute") -> "Minute":
        """Both together; they have no trade in common."""
        early, late = (self, other) if self.first < other.first else (other, self)
        final = self if self.last > other.last else other
        return Minute(
            early.open,
            max(self.high, other.high),
            min(self.low, other.low),
            final.close,
            self.volume + other.volume,
            self.quote_volume + other.quote_volume,
            self.buy_volume + other.buy_volume,
            self.trade_count + other.trade_count,
            early.first,
            max(early.last, late.last),
            early.apart,
        )

    def shown(self, window: Window) -> dict[str, Any]:
        """As answers and the live stream show the candle of this window."""
        start, exchange, symbol = window
        volume, count = self.volume, self.trade_count
        (first_epoch, first), (last_epoch, last) = self.first, self.last
        return {
            "exchange": exchange,
            "symbol": symbol,
            "window_start": format_time(start * SECOND, 0),
            "open": text(self.open, PRICE),
            "high": text(self.high, PRICE),
            "low": text(self.low, PRICE),
            "close": text(self.close, PRICE),
            "volume": text(volume, PRICE),
            "quote_volume": text(self.quote_volume, QUOTE),
            "buy_volume": text(self.buy_volume, PRICE),
            "vwap": text(self.quote_volume // volume if volume else 0, PRICE),
            "trade_count": count,
            "first_trade_id": first,
            "last_trade_id": last,
            "complete": first_epoch == last_epoch and count == last - first + 1 and not self.apart,
        }

    def line(self, window: Window) -> bytes:
        """As a JSON answer shows it."""
        return msgspec.json.encode(self.shown(window))


def stored(wanted: Iterable[Window], width: int) -> tuple[str, dict[str, Any]]:
    """The SELECT, with its parameters, of all stored minutes of these windows of `width` seconds, for `read_stored`."""
    named = sorted({(exchange, symbol, start) for start, exchange, symbol in wanted})
    starts = [start for _, _, start in named]
    params = {
        "windows": named,
        "exchanges": sorted({exchange for exchange, _, _ in named}),
        "symbols": sorted({symbol for _, symbol, _ in named}),
        "low": min(starts),
        "high": max(starts) + width,
    }
    sql = (
        "SELECT exchange, symbol, toUnixTimestamp(window_start), generation, open, high, low, close, volume,"
        " quote_volume, buy_volume, trade_count, first_epoch, first_trade_id, last_epoch, last_trade_id, apart"
        " FROM k2.ohlcv_1m_base FINAL WHERE exchange IN {exchanges:Array(String)} AND symbol IN {symbols:Array(String)}"
        " AND window_start >= toDateTime({low:UInt32}, 'UTC') AND window_start < toDateTime({high:UInt32}, 'UTC')"
        f" AND (exchange, symbol, intDiv(toUnixTimestamp(window_start), {width}) * {width})"
        " IN {windows:Array(Tuple(String, String, UInt32))}"
    )
    return sql, params


def units(decimal: str, scale: int) -> int:
    """Decimal text as an integer."""
    whole, _, rest = decimal.partition(".")
    return int(whole + rest.ljust(scale, "0"))


def text(value: int, scale: int) -> str:
    """An integer as decimal text, without zeros at the end."""
    whole, rest = divmod(value, 10**scale)
    return f"{whole}.{rest:0{scale}}".rstrip("0") if rest else str(whole)


class Part(NamedTuple):
    """One trade of the tail. `generation` is that of its chunk, `minute` is in s."""

    generation: int
    exchange: str
    symbol: str
    minute: int
    trade: Minute


def windows(parts: Iterable[Part], width: int) -> set[Window]:
    """The windows of `width` seconds that they touch."""
    return {(part.minute // width * width, part.exchange, part.symbol) for part in parts}


class Stored(NamedTuple):
    """A stored minute and its generation."""

    generation: int
    candle: Minute


def read_stored(rows: Iterable[Sequence[Any]]) -> Iterator[tuple[Window, Stored]]:
    """Of the rows that `Candles.stored` asks for."""
    for exchange, symbol, start, generation, *rest in rows:
        opened, high, low, close, volume, quote, bought, count, first_epoch, first, last_epoch, last, apart = rest
        candle = Minute(
            units(opened, PRICE),
            units(high, PRICE),
            units(low, PRICE),
            units(close, PRICE),
            units(volume, PRICE),
            units(quote, QUOTE),
            units(bought, PRICE),
            count,
            (first_epoch, first),
            (last_epoch, last),
            bool(apart),
        )
        yield (start, exchange, symbol), Stored(generation, candle)


def merged(parts: Sequence[Part], minutes: Mapping[Window, Stored], width: int) -> dict[Window, Minute]:
    """The windows of `width` seconds that the tail touches, of all their stored minutes and the tail. `minutes` must
    hold every minute of these windows that is stored, as of the tail's commit or later."""
    found: dict[Window, Minute] = {}
    touched = windows(parts, width)

    def add(minute: int, exchange: str, symbol: str, one: Minute) -> None:
        window = (minute // width * width, exchange, symbol)
        known = found.get(window)
        found[window] = one if known is None else known.join(one)

    for (start, exchange, symbol), one in minutes.items():
        if (start // width * width, exchange, symbol) in touched:
            add(start, exchange, symbol, one.candle)
    for part in parts:
        settled = minutes.get((part.minute, part.exchange, part.symbol))
        if settled is None or part.generation > settled.generation:
            add(part.minute, part.exchange, part.symbol, part.trade)
    return found
