"""What a live stream says, as typed messages. Times are int ns since 1970 UTC, prices and quantities Decimal."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, TypeAlias

import msgspec

Side = Literal["buy", "sell"]


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One trade, by (exchange, symbol, epoch, trade_id). `price` is in the quote asset, `quantity` in the base asset,
    `side` the taker's; `exchange_ts` is the exchange's own time, `recv_ts` when it reached K2."""

    exchange: str
    symbol: str
    native_symbol: str
    trade_id: int
    price: Decimal
    quantity: Decimal
    side: Side
    exchange_ts: int
    recv_ts: int
    source: str
    epoch: int = 0


class Candle(msgspec.Struct, frozen=True, gc=False):
    """A candle as it stands now; with `final` it changes no more, unless a late trade comes. `volume` and `buy_volume`
    are in the base asset, `quote_volume` in the quote asset."""

    exchange: str
    symbol: str
    interval: str
    window_start: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    buy_volume: Decimal
    trade_count: int
    first_trade_id: int
    last_trade_id: int
    vwap: Decimal | None = None
    complete: bool = False
    final: bool = False


class Gap(msgspec.Struct, frozen=True):
    """An event of the gap ledger: what happened to the ids `first_id` to `last_id`, both included."""

    exchange: str
    symbol: str
    first_id: int
    last_id: int
    state: str
    reason: str = ""
    missing: tuple[tuple[int, int], ...] = ()
    event_ts: int = 0
    detected_ts: int = 0
    epoch: int = 0


class Trades(msgspec.Struct, frozen=True, tag_field="type", tag="trades"):
    """Trades of one log stream, from its record `offset` up to `next` (excluded), those that were asked for. `live`
    False: history. `skipped`: so many were left out because the reader was slow (`slow="conflate"`)."""

    trades: tuple[Trade, ...]
    stream: str = ""
    offset: int = 0
    next: int = 0
    live: bool = True
    skipped: int = 0


class Candles(msgspec.Struct, frozen=True, tag_field="type", tag="candles"):
    """Candles that changed."""

    candles: tuple[Candle, ...]
    positions: Mapping[str, int] = {}


class Gaps(msgspec.Struct, frozen=True, tag_field="type", tag="gaps"):
    """Events of the gap ledger, from its record `offset` up to `next` (excluded)."""

    gaps: tuple[Gap, ...]
    stream: str = ""
    offset: int = 0
    next: int = 0


class Subscribed(msgspec.Struct, frozen=True, tag_field="type", tag="subscribed"):
    """The first answer: the columns of what follows, where it starts, and the positions at which live begins."""

    schema: Mapping[str, Any] = {}
    start: Mapping[str, int] = {}
    positions: Mapping[str, int] = {}


class Heartbeat(msgspec.Struct, frozen=True, tag_field="type", tag="heartbeat"):
    """Everything before `positions` was sent."""

    ts: int = 0
    positions: Mapping[str, int] = {}


class Slow(msgspec.Struct, frozen=True, tag_field="type", tag="slow"):
    """The reader is too slow; the server closes, and `positions` say how far it had sent."""

    positions: Mapping[str, int] = {}


class Refused(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """A problem document."""

    title: str = ""
    detail: str = ""
    remedy: str = ""
    status: int = 0


class Other(msgspec.Struct, frozen=True, tag_field="type", tag="pong"):
    """The answer to a ping."""


Message: TypeAlias = Trades | Candles | Gaps
Said: TypeAlias = Trades | Candles | Gaps | Subscribed | Heartbeat | Slow | Refused | Other
