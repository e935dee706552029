"""Coinbase Exchange: the `matches` and `heartbeat` channels and the REST history of trades.

A trade. `side` is the MAKER's, on the socket and over REST: the taker did the opposite. The first frame after
subscribing is a `last_match` of the same form: a trade that is usually known already.

    {"type":"match","trade_id":881614,"maker_order_id":"27ff...","taker_order_id":"1da6...","side":"sell","size":"0.04",
     "price":"14.7775","product_id":"BAND-GBP","sequence":333938798,"time":"2021-04-17T16:43:30.244075Z"}

Once a second and product, whether it trades or not, so a missing trade shows even when none follows:

    {"type":"heartbeat","sequence":333938799,"last_trade_id":881614,"product_id":"BAND-GBP","time":"2021-04-17T..."}

`subscriptions` answers every (un)subscription with all that is subscribed now. One unknown product makes Coinbase
refuse the whole message: `{"type":"error","message":"Failed to subscribe","reason":"FOO-USD is not a valid product"}`.
Rules: docs.cdp.coinbase.com/exchange, pages "WebSocket Channels", "Rate Limits" and "Get product trades".
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import msgspec

from k2.core import reading
from k2.core.exchange import Limits
from k2.core.reading import JSON_ERRORS, MAX_ID, ReadingError, Text, is_amount
from k2.core.types import Confirmed, Event, Frame, Heartbeat, Hole, Refused, RestRequest, Side, Source, Trade

PAGE = 1_000
SPARE = 100  # asked for beyond the hole: a page may begin after what was asked for, and the next hole is often near

# Messages of channels that carry no trades one by one.
_OTHER_TYPES = "ticker snapshot l2update status received open done change activate auction rfq_matches balance"
OTHER_TYPES = frozenset(_OTHER_TYPES.split())

_product = re.compile(r"[A-Z0-9]{1,20}-[A-Z0-9]{1,20}\Z").match
_named_product = re.compile(r"\b[A-Z0-9]{1,20}-[A-Z0-9]{1,20}\b").search
_history_path = re.compile(r"/products/([^/]+)/trades\Z").search


class _Match(msgspec.Struct, tag_field="type", tag="match", gc=False):
    trade_id: int
    side: Literal["buy", "sell"]
    size: Text
    price: Text
    product_id: Text
    time: Text


class _LastMatch(_Match, tag="last_match", gc=False):
    pass


class _Heartbeat(msgspec.Struct, tag_field="type", tag="heartbeat", gc=False):
    product_id: Text
    last_trade_id: int = 0


class _Channel(msgspec.Struct, gc=False):
    name: str
    product_ids: list[Text] = []


class _Subscriptions(msgspec.Struct, tag_field="type", tag="subscriptions"):
    channels: list[_Channel]


class _Error(msgspec.Struct, tag_field="type", tag="error"):
    message: str = ""
    reason: str = ""


class _PastTrade(msgspec.Struct, gc=False):
    trade_id: int
    side: Literal["buy", "sell"]
    size: Text
    price: Text
    time: Text


_Message = _Match | _LastMatch | _Heartbeat | _Subscriptions | _Error
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_past = msgspec.json.Decoder(_PastTrade).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=4096)
def _canonical(native_symbol: str) -> str:
    if _product(native_symbol):
        return native_symbol
    raise ValueError(f"coinbase: {native_symbol[:60]!r} is not a product such as BTC-USD")


class Coinbase:
    """See `k2.core.exchange.Exchange`. Subscriptions carry no request id here: answers tell the whole state instead."""

    name = "coinbase"
    channels = ("matches", "heartbeat")
    ws_url = "wss://ws-feed.exchange.coinbase.com"
    rest_url = "https://api.exchange.coinbase.com"
    limits = Limits(
        messages_per_second=8.0,
        symbols_per_message=100,
        connection_age=None,
        heartbeat_channel="heartbeat",
        silence=5.0,  # a heartbeat comes every second for each product
        rest_per_second=8.0,  # the rule is 10 requests an address, 15 in a burst
        rest_burst=10.0,
    )

    def native(self, symbol: str) -> str:
        return symbol

    def canonical(self, native_symbol: str) -> str:
        return _canonical(native_symbol)

    def subscribe(self, native_symbols: Sequence[str], request_id: int) -> list[bytes]:
        return self._messages("subscribe", native_symbols)

    def unsubscribe(self, native_symbols: Sequence[str], request_id: int) -> list[bytes]:
        return self._messages("unsubscribe", native_symbols)

    def decode(self, frame: Frame) -> list[Event]:
        try:
            if frame.kind == "ws":
                message = _decode_message(frame.payload)
                if isinstance(message, _Match):
                    return [_trade(message, message.product_id, frame.recv_ts, "live")]
                return self._told(message)
            return self._page(frame) if frame.kind == "rest" else []
        except ReadingError as error:
            return [error.fault(self.name, frame.payload)]
        except JSON_ERRORS as error:
            return self._other(frame.payload, error)

    def heal(self, hole: Hole) -> RestRequest:
        return self._history(hole, hole.last_id + 1)

    def heal_next(self, hole: Hole, request: RestRequest, page: Sequence[Trade], frame: Frame) -> RestRequest | None:
        """`after` gives the trades OLDER than its id, so pages descend."""
        reached = min((trade.trade_id for trade in page), default=hole.first_id)
        asked = int(reading.query_of(request.path)["after"])
        return self._history(hole, reached) if hole.first_id < reached < asked else None

    def _messages(self, method: str, native_symbols: Sequence[str]) -> list[bytes]:
        step = self.limits.symbols_per_message
        return [
            _encode({"type": method, "product_ids": native_symbols[i : i + step], "channels": self.channels})
            for i in range(0, len(native_symbols), step)
        ]

    def _history(self, hole: Hole, after: int) -> RestRequest:
        limit = min(PAGE, after - hole.first_id + SPARE)
        return RestRequest(f"/products/{hole.native_symbol}/trades?after={after}&limit={limit}")

    def _told(self, message: _Heartbeat | _Subscriptions | _Error) -> list[Event]:
        if isinstance(message, _Heartbeat):
            last = message.last_trade_id
            return [Heartbeat("heartbeat", message.product_id, last if 0 < last <= MAX_ID else None)]
        if isinstance(message, _Subscriptions):
            subscribed = {channel.name: tuple(channel.product_ids) for channel in message.channels}
            return [Confirmed(channel, subscribed.get(channel, ()), whole=True) for channel in self.channels]
        reason = f"{message.message}: {message.reason}" if message.reason else message.message
        product = _named_product(message.reason)
        return [Refused(None, product[0] if product else None, reason[:200])]

    def _other(self, payload: bytes, error: Exception) -> list[Event]:
        """A message of another channel, or a Fault."""
        try:
            body: Any = reading.parse(payload, _decode_any)
        except ReadingError as unreadable:
            return [unreadable.fault(self.name, payload)]
        kind = body.get("type") if isinstance(body, dict) else None
        if not isinstance(kind, str):
            fault = ReadingError(reading.UNKNOWN_SHAPE, "expected an object with a type")
        elif kind in OTHER_TYPES:
            return []
        elif kind in ("match", "last_match", "heartbeat", "subscriptions", "error"):
            fault = reading.why(error)
        else:
            fault = ReadingError(reading.UNKNOWN_SHAPE, f"a message of type {kind[:60]!r}")
        return [fault.fault(self.name, payload)]

    def _page(self, frame: Frame) -> list[Event]:
        _, path, _ = reading.request_of(frame.request)
        product = _history_path(path)
        if product is None:
            raise ReadingError(reading.UNKNOWN_SHAPE, f"not a request for trades: {path[:200]!r}")
        native, recv_ts = product[1], frame.recv_ts
        return reading.trades(
            self.name, frame.payload, _decode_past, lambda past: _trade(past, native, recv_ts, "backfill")
        )


def _trade(match: _Match | _PastTrade, native: str, recv_ts: int, source: Source) -> Trade:
    number, price, quantity = match.trade_id, match.price, match.size
    try:
        symbol = _canonical(native)
        ts = reading.rfc3339_ns(match.time)
    except ValueError as error:
        raise ReadingError(reading.UNKNOWN_SYMBOL, str(error)) from None
    if not (0 < number <= MAX_ID and is_amount(price) and is_amount(quantity)):
        number, price, quantity = reading.trade_id(number), reading.amount(price), reading.amount(quantity)
    side: Side = "sell" if match.side == "buy" else "buy"
    return Trade("coinbase", symbol, native, number, price, quantity, side, ts, recv_ts, source)


EXCHANGE = Coinbase()
