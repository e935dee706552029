"""Binance spot: the `<symbol>@trade` streams and their REST history.

A trade, as the combined stream sends it. `m` true: the buyer was the maker, so the taker sold. `T` is the trade's
time, `E` only that of the message; they are in ms, or in us on a socket opened with `timeUnit=MICROSECOND`.

    {"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,
     "p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}

A trade of `/api/v3/historicalTrades`:

    {"id":28457,"price":"4.00000100","qty":"12.00000000","quoteQty":"48.000012","time":1499865549590,
     "isBuyerMaker":true,"isBestMatch":true}

An unknown symbol is not refused on the socket: Binance answers `{"result":null,"id":1}` and then sends nothing.
Rules: developers.binance.com/docs/binance-spot-api-docs, pages "WebSocket Streams" and "Market Data endpoints".
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from k2.core import reading
from k2.core.exchange import Limits
from k2.core.reading import JSON_ERRORS, MAX_ID, ReadingError, Text, is_amount
from k2.core.types import Confirmed, Event, Frame, Hole, Refused, RestRequest, Side, Source, Trade

HISTORY = "/api/v3/historicalTrades"
HISTORY_WEIGHT = 25
PAGE = 1_000
SPARE = 100  # asked for beyond the hole: a page may begin before what was asked for, and the next hole is often near

# The assets that Binance trades against; the longest one that ends a name is its quote asset.
_QUOTE_ASSETS = (
    "USDT USDC FDUSD TUSD BUSD USDP USDS USD1 USDE RLUSD XUSD BFUSD PAX DAI VAI UST USD EURI AEUR EUR GBP AUD TRY BRL "
    "RUB UAH NGN ZAR ARS COP CZK JPY MXN PLN RON IDR IDRT BIDR BKRW BVND BTC ETH BNB SOL TRX XRP DOGE DOT"
)
QUOTES = tuple(sorted(_QUOTE_ASSETS.split(), key=len, reverse=True))

_OTHER_EVENTS = (
    "aggTrade kline 24hrTicker 24hrMiniTicker 1hTicker 4hTicker 1dTicker depthUpdate bookTicker avgPrice serverShutdown"
)
OTHER_EVENTS = frozenset(_OTHER_EVENTS.split())  # of channels that do not carry trades one by one

_FIRST_MS, _END_MS = reading.MIN_NS // 1_000_000, reading.MAX_NS // 1_000_000
_FIRST_US, _END_US = reading.MIN_NS // 1_000, reading.MAX_NS // 1_000


class _Trade(msgspec.Struct, tag_field="e", tag="trade", gc=False):
    s: Text
    t: int
    p: Text
    q: Text
    T: int
    m: bool


class _Sound(msgspec.Struct, tag_field="e", tag="trade", gc=False):
    """A `_Trade` with the id and the time, in ms, of a sound one."""

    s: Text
    t: Annotated[int, msgspec.Meta(ge=1, le=MAX_ID)]
    p: Text
    q: Text
    T: Annotated[int, msgspec.Meta(ge=_FIRST_MS, lt=_END_MS)]
    m: bool


class _Combined(msgspec.Struct, gc=False):
    data: _Sound


class _PastTrade(msgspec.Struct, gc=False):
    id: int
    price: Text
    qty: Text
    time: int
    buyer_is_maker: bool = msgspec.field(name="isBuyerMaker")


_decode_combined = msgspec.json.Decoder(_Combined).decode
_decode_past = msgspec.json.Decoder(_PastTrade).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=4096)
def _canonical(native_symbol: str) -> str:
    if native_symbol.isalnum() and native_symbol == native_symbol.upper() and len(native_symbol) <= 40:
        for quote in QUOTES:
            if native_symbol.endswith(quote) and len(native_symbol) > len(quote):
                return f"{native_symbol[: -len(quote)]}-{quote}"
    raise ValueError(f"binance: {native_symbol[:60]!r} does not end in a quote asset that K2 knows")


def _time_ns(time: int) -> int:
    if _FIRST_MS <= time < _END_MS:
        return time * 1_000_000
    if _FIRST_US <= time < _END_US:
        return time * 1_000
    raise ReadingError(reading.BAD_TIME, f"not a time in ms or us between 2000 and 2200: {time}"[:200])


class Binance:
    """See `k2.core.exchange.Exchange`."""

    name = "binance"
    channels = ("trade",)
    ws_url = "wss://stream.binance.com:9443/stream"
    rest_url = "https://api.binance.com"
    limits = Limits(
        messages_per_second=4.0,  # the rule is 5, and pongs count
        symbols_per_message=200,  # the rule: 1,024 streams a connection
        connection_age=24 * 3600.0,
        heartbeat_channel=None,  # a WebSocket ping comes every 20 s
        silence=30.0,
        rest_per_second=80.0,  # the rule: weight 6,000 a minute and address; a fifth is left to others
        rest_burst=500.0,
    )

    def native(self, symbol: str) -> str:
        return symbol.replace("-", "")

    def canonical(self, native_symbol: str) -> str:
        return _canonical(native_symbol)

    def subscribe(self, native_symbols: Sequence[str], request_id: int) -> list[bytes]:
        return self._messages("SUBSCRIBE", native_symbols, request_id)

    def unsubscribe(self, native_symbols: Sequence[str], request_id: int) -> list[bytes]:
        return self._messages("UNSUBSCRIBE", native_symbols, request_id)

    def decode(self, frame: Frame) -> list[Event]:
        try:
            if frame.kind == "ws":
                data = _decode_combined(frame.payload).data
                price = data.p
                quantity = data.q
                if is_amount(price) and is_amount(quantity):
                    native = data.s
                    symbol = _canonical(native)
                    side: Side = "sell" if data.m else "buy"
                    ts = data.T * 1_000_000
                    return [Trade("binance", symbol, native, data.t, price, quantity, side, ts, frame.recv_ts, "live")]
        except (*JSON_ERRORS, ValueError):
            pass
        return self._carefully(frame)

    def heal(self, hole: Hole) -> RestRequest:
        return self._history(hole, hole.first_id)

    def heal_next(self, hole: Hole, request: RestRequest, page: Sequence[Trade], frame: Frame) -> RestRequest | None:
        """Pages ascend by id from `fromId`, which need not exist itself."""
        reached = max((trade.trade_id for trade in page), default=hole.last_id)
        asked = int(reading.query_of(request.path)["fromId"])
        return self._history(hole, reached + 1) if asked <= reached < hole.last_id else None

    def _messages(self, method: str, native_symbols: Sequence[str], request_id: int) -> list[bytes]:
        step = self.limits.symbols_per_message
        return [
            _encode(
                {
                    "method": method,
                    "params": [f"{symbol.lower()}@trade" for symbol in native_symbols[i : i + step]],
                    "id": request_id + i // step,
                }
            )
            for i in range(0, len(native_symbols), step)
        ]

    def _history(self, hole: Hole, from_id: int) -> RestRequest:
        limit = min(PAGE, hole.last_id - from_id + 1 + SPARE)
        path = f"{HISTORY}?symbol={hole.native_symbol}&fromId={from_id}&limit={limit}"
        return RestRequest(path, HISTORY_WEIGHT)

    def _carefully(self, frame: Frame) -> list[Event]:
        """All that is no sound trade of the combined stream."""
        try:
            if frame.kind == "rest":
                return self._page(frame)
            return self._other(frame.payload, frame.recv_ts) if frame.kind == "ws" else []
        except ReadingError as error:
            return [error.fault(self.name, frame.payload)]

    def _other(self, payload: bytes, recv_ts: int) -> list[Event]:
        body = reading.parse(payload, _decode_any)
        if not isinstance(body, dict):
            raise ReadingError(reading.UNKNOWN_SHAPE, f"expected an object, got {type(body).__name__}")
        event = body["data"] if "stream" in body and isinstance(body.get("data"), dict) else body
        name = event.get("e")
        if name == "trade":
            data = _convert(event)
            side: Side = "sell" if data.m else "buy"
            return [_trade(_symbol(data.s), data.s, data.t, data.p, data.q, side, data.T, recv_ts, "live")]
        if isinstance(name, str) and name in OTHER_EVENTS:
            return []
        if {"u", "s", "b", "a"} <= event.keys() or "lastUpdateId" in event:  # a book ticker, a book snapshot
            return []
        return [self._answer(body)]

    def _answer(self, body: dict[str, Any]) -> Event:
        request_id = body["id"] if isinstance(body.get("id"), int) else None
        error = body["error"] if isinstance(body.get("error"), dict) else body
        if "code" in error and "msg" in error:
            return Refused(self.channels[0], None, f"{error['msg']} (code {error['code']})"[:200], request_id)
        if "result" in body and request_id is not None:
            return Confirmed(self.channels[0], None, request_id)
        raise ReadingError(reading.UNKNOWN_SHAPE, f"an object of {', '.join(map(repr, body))}"[:200])

    def _page(self, frame: Frame) -> list[Event]:
        _, _, query = reading.request_of(frame.request)
        native = query.get("symbol", "")
        symbol = _symbol(native)
        recv_ts = frame.recv_ts

        def to_trade(past: _PastTrade) -> Trade:
            side: Side = "sell" if past.buyer_is_maker else "buy"
            return _trade(symbol, native, past.id, past.price, past.qty, side, past.time, recv_ts, "backfill")

        return reading.trades(self.name, frame.payload, _decode_past, to_trade)


def _trade(
    symbol: str,
    native: str,
    number: int,
    price: str,
    quantity: str,
    side: Side,
    time: int,
    recv_ts: int,
    source: Source,
) -> Trade:
    return Trade(
        "binance",
        symbol,
        native,
        reading.trade_id(number),
        reading.amount(price),
        reading.amount(quantity),
        side,
        _time_ns(time),
        recv_ts,
        source,
    )


def _symbol(native: str) -> str:
    try:
        return _canonical(native)
    except ValueError as error:
        raise ReadingError(reading.UNKNOWN_SYMBOL, str(error)) from None


def _convert(event: dict[str, Any]) -> _Trade:
    try:
        return msgspec.convert(event, _Trade)
    except msgspec.ValidationError as error:
        raise reading.why(error) from None


EXCHANGE = Binance()
