"""The nouns of K2: frames come in, trades, holes and faults come out.

Times are int nanoseconds since 1970 UTC. Prices and quantities are the exchange's own decimal text, unchanged: never
a float. A trade's identity is (exchange, symbol, epoch, trade_id); `epoch` is 0 until a venue restarts a counter.
"""

from typing import Literal, NamedTuple

import msgspec

Side = Literal["buy", "sell"]
Source = Literal["live", "backfill"]
FrameKind = Literal["ws", "rest", "sent"]
GapState = Literal["start", "open", "healed", "unavailable", "epoch"]


class Trade(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One trade, as it stands in the log: the field order is the order in the JSON record.

    `side` is the taker's. `price` is in the quote asset, `quantity` in the base asset. `exchange_ts` is the trade's own
    time at the exchange, `recv_ts` when its frame reached our socket; their difference may be negative (clocks differ).
    """

    exchange: str
    symbol: str
    native_symbol: str
    trade_id: int
    price: str
    quantity: str
    side: Side
    exchange_ts: int
    recv_ts: int
    source: Source
    epoch: int = 0


class Frame(msgspec.Struct, frozen=True, gc=False):
    """Bytes as they came from (or went to) an exchange.

    `kind` is `ws` (received), `rest` (an HTTP answer) or `sent` (what we sent on the socket). `connection` names the
    socket ("c3" = the third dial of this process run) or is "rest". `request` is empty for `ws` and `sent`; for `rest`
    it is "<status> <path?query>", so that the answer can be decoded without anything else.
    """

    recv_ts: int
    kind: FrameKind
    connection: str
    request: str
    payload: bytes


class Fault(NamedTuple):
    """Something that could not be understood. Keeps the offending bytes; is counted by `reason`; stops nothing."""

    exchange: str
    reason: str
    detail: str
    payload: bytes


class Heartbeat(NamedTuple):
    """The venue lives. `native_symbol` and `last_trade_id` are None where the venue does not tell them."""

    channel: str
    native_symbol: str | None = None
    last_trade_id: int | None = None


class Confirmed(NamedTuple):
    """The venue accepted a subscription (or, with `active` False, its end) for these symbols of one channel.

    `native_symbols` None: the answer names no symbols, it answers our request number `request_id`.
    `whole` True: the list is the complete state of the channel, not a change to it.
    """

    channel: str
    native_symbols: tuple[str, ...] | None
    request_id: int | None = None
    active: bool = True
    whole: bool = False


class Refused(NamedTuple):
    """The venue refused a subscription. `native_symbol` None: the answer does not say which."""

    channel: str | None
    native_symbol: str | None
    reason: str
    request_id: int | None = None


Event = Trade | Heartbeat | Confirmed | Refused | Fault


class Gap(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event of the gap ledger. A gap is named by (exchange, symbol, epoch, first_id); its latest event holds.

    `start`: capture of the symbol begins at `first_id` (== `last_id`), nothing is claimed before it.
    `open`: ids first_id..last_id are missing. `healed`: all of them have arrived.
    `unavailable`: the ids in `missing` cannot be had, `reason` says why; the others arrived.
    `epoch`: the venue restarted the counter; `first_id` is the first trade seen of epoch `epoch`, which begins with 1.
    """

    exchange: str
    symbol: str
    first_id: int
    last_id: int
    state: GapState
    reason: str
    event_ts: int
    detected_ts: int
    missing: tuple[tuple[int, int], ...] = ()
    epoch: int = 0


class Hole(NamedTuple):
    """A range of missing ids that REST is asked for, with the times of the trades on both sides where known, else 0."""

    symbol: str
    native_symbol: str
    epoch: int
    first_id: int
    last_id: int
    before_ts: int = 0
    after_ts: int = 0


class RestRequest(NamedTuple):
    """A GET to the venue's REST base URL. `weight` is in the venue's own rate-limit unit."""

    path: str
    weight: int = 1
