"""Kraken WebSocket v2: the `trade` channel, its heartbeats, and the REST history of trades.

Trades; the first frame after subscribing is a `snapshot` of the latest 50. Prices and quantities are JSON NUMBERS whose
text is kept. `side` is the taker's.

    {"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":105944.20,"qty":0.00027625,
     "ord_type":"limit","trade_id":10218208,"timestamp":"2025-10-06T17:35:55.440295Z"}]}

About once a second when nothing else is sent, for the connection as a whole: `{"channel":"heartbeat"}`. Each symbol of
a subscription is answered by itself, refused ones with `success` false.

REST (`/0/public/Trades`) begins after a TIME, not an id; the rows ascend, `last` is the time to go on from:

    {"error":[],"result":{"XXBTZUSD":[["105944.20000","0.00027625",1759772155.4402952,"b","l","",10218208]],
     "last":"1759772155440295296"}}

Errors come with HTTP status 200 and `error` filled. REST keeps old names (`XXBTZUSD`, `XBTUSD`, `XDGUSD`).
Rules: docs.kraken.com/api, pages "Trade" (WebSocket v2), "Get Recent Trades" and "Rate Limits".
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import msgspec

from k2.core import reading
from k2.core.exchange import Limits
from k2.core.reading import JSON_ERRORS, MAX_ID, ReadingError, Text, is_amount
from k2.core.types import Confirmed, Event, Frame, Heartbeat, Hole, Refused, RestRequest, Trade

PAGE = 1_000
HISTORY = "/0/public/Trades"
# Errors which say that things are as they were asked to be, by method.
AS_WISHED = {"subscribe": "Already subscribed", "unsubscribe": "Subscription Not Found"}
SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS

ASSETS = {"XBT": "BTC", "XDG": "DOGE"}  # Kraken's name: the canonical one
_REST_ASSETS = {canonical: own for own, canonical in ASSETS.items()}
_QUOTE_ASSETS = (
    "USDT USDC USDQ USDR PYUSD RLUSD USDG EURT EURC EURQ EURR USD EUR GBP CAD AUD CHF JPY AED DAI XBT BTC ETH DOT"
)
QUOTES = tuple(sorted(_QUOTE_ASSETS.split(), key=len, reverse=True))

_OTHER_CHANNELS = "status book ticker ohlc instrument level3 executions balances"
OTHER_CHANNELS = frozenset(_OTHER_CHANNELS.split())

_asset = re.compile(r"[A-Z0-9.]{1,20}\Z").match


class _Row(msgspec.Struct, gc=False):
    symbol: Text
    side: Literal["buy", "sell"]
    price: msgspec.Raw
    qty: msgspec.Raw
    trade_id: int
    timestamp: Text


class _Trades(msgspec.Struct, tag_field="channel", tag="trade", gc=False):
    data: list[_Row]


class _Beat(msgspec.Struct, tag_field="channel", tag="heartbeat", gc=False):
    pass


class _RawTrades(msgspec.Struct, tag_field="channel", tag="trade"):
    data: msgspec.Raw


class _Accepted(msgspec.Struct):
    channel: str
    symbol: Text | None = None


class _Answer(msgspec.Struct):
    method: str
    success: bool = True
    result: _Accepted | msgspec.UnsetType = msgspec.UNSET
    error: str = ""
    symbol: Text | None = None
    req_id: int | None = None


class _PastTrade(msgspec.Struct, array_like=True, gc=False):
    price: Text
    volume: Text
    time: msgspec.Raw
    side: Literal["b", "s"]
    order: str
    misc: str
    trade_id: int


class _Page(msgspec.Struct):
    error: list[str] = []
    result: dict[str, msgspec.Raw] = {}


_decode_message = msgspec.json.Decoder(_Trades | _Beat).decode
_decode_raw_trades = msgspec.json.Decoder(_RawTrades).decode
_decode_row = msgspec.json.Decoder(_Row).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_page = msgspec.json.Decoder(_Page).decode
_decode_past = msgspec.json.Decoder(_PastTrade).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=4096)
def _canonical(native_symbol: str) -> str:
    base, slash, quote = native_symbol.partition("/")
    if not slash:
        base, quote = _rest_pair(native_symbol)
    if _asset(base) and _asset(quote):
        return f"{ASSETS.get(base, base)}-{ASSETS.get(quote, quote)}"
    raise ValueError(f"kraken: {native_symbol[:60]!r} is not a pair such as BTC/USD, XBTUSD or XXBTZUSD")


def _rest_pair(name: str) -> tuple[str, str]:
    """`XBTUSD` and, with the old class letters, `XXBTZUSD`."""
    if len(name) == 8 and name[0] == "X" and name[4] in "XZ" and name.endswith(QUOTES):
        return name[1:4], name[5:]
    for quote in QUOTES:
        if name.endswith(quote) and len(name) > len(quote):
            return name[: -len(quote)], quote
    return "", ""


class Kraken:
    """See `k2.core.exchange.Exchange`."""

    name = "kraken"
    channels = ("trade",)
    ws_url = "wss://ws.kraken.com/v2"
    rest_url = "https://api.kraken.com"
    limits = Limits(
        messages_per_second=5.0,
        symbols_per_message=100,
        connection_age=None,
        heartbeat_channel="heartbeat",  # it stops while trades flow, which are a sign of life as well
        silence=5.0,  # a heartbeat comes every second when nothing else does
        rest_per_second=1.0,
        rest_burst=1.0,
    )

    def native(self, symbol: str) -> str:
        return symbol.replace("-", "/")

    def canonical(self, native_symbol: str) -> str:
        return _canonical(native_symbol)

    def subscribe(self, native_symbols: Sequence[str], request_id: int) -> list[bytes]:
        return self._messages("subscribe", native_symbols, request_id)

    def unsubscribe(self, native_symbols: Sequence[str], request_id: int) -> list[bytes]:
        return self._messages("unsubscribe", native_symbols, request_id)

    def decode(self, frame: Frame) -> list[Event]:
        try:
            if frame.kind == "ws":
                return self._message(frame.payload, frame.recv_ts)
            return self._page(frame) if frame.kind == "rest" else []
        except ReadingError as error:
            return [error.fault(self.name, frame.payload)]

    def heal(self, hole: Hole) -> RestRequest:
        """From just before the trade ahead of the hole: `since` is exclusive, and trades may share a time.

        1 us before, as REST writes times as floats, which are right to some 100 ns, and the socket cuts them to us.
        """
        if hole.before_ts:
            return self._history(hole, hole.before_ts - 1_000)
        if hole.after_ts:
            return self._history(hole, hole.after_ts - DAY_NS)
        return self._history(hole, None)

    def heal_next(self, hole: Hole, request: RestRequest, page: Sequence[Trade], frame: Frame) -> RestRequest | None:
        """Pages ascend by time. The next one begins 1 ns early, unless the whole page shared one time."""
        asked = reading.query_of(request.path).get("since")
        last = _last(frame.payload)
        if asked is None or last is None or not page or max(map(_id_of, page)) >= hole.last_id:
            return None
        since = last - 1 if last - 1 > int(asked) else last
        passed = hole.after_ts and since > hole.after_ts + SECOND_NS
        return self._history(hole, since) if since > int(asked) and not passed else None

    def _messages(self, method: str, native_symbols: Sequence[str], request_id: int) -> list[bytes]:
        step = self.limits.symbols_per_message
        more = {"snapshot": True} if method == "subscribe" else {}
        return [
            _encode(
                {
                    "method": method,
                    "params": {"channel": "trade", "symbol": native_symbols[i : i + step], **more},
                    "req_id": request_id + i // step,
                }
            )
            for i in range(0, len(native_symbols), step)
        ]

    def _history(self, hole: Hole, since: int | None) -> RestRequest:
        base, quote = _canonical(hole.native_symbol).split("-")
        pair = f"{_REST_ASSETS.get(base, base)}{_REST_ASSETS.get(quote, quote)}"
        begin = f"&since={since}" if since is not None else ""
        return RestRequest(f"{HISTORY}?pair={pair}{begin}&count={PAGE}")

    def _message(self, payload: bytes, recv_ts: int) -> list[Event]:
        try:
            message = _decode_message(payload)
        except JSON_ERRORS:
            return self._other(payload, recv_ts)
        if isinstance(message, _Beat):
            return [Heartbeat("heartbeat")]
        try:
            events: list[Event] = [_live(row, recv_ts) for row in message.data]
        except ReadingError:
            return self._rows(payload, recv_ts)
        if len(events) > 1:
            events.sort(key=_id_of)
        return events

    def _rows(self, payload: bytes, recv_ts: int) -> list[Event]:
        rows = reading.parse(payload, _decode_raw_trades).data
        return reading.trades(self.name, rows, _decode_row, lambda row: _live(row, recv_ts))

    def _other(self, payload: bytes, recv_ts: int) -> list[Event]:
        body: Any = reading.parse(payload, _decode_any)
        if not isinstance(body, dict):
            raise ReadingError(reading.UNKNOWN_SHAPE, f"expected an object, got {type(body).__name__}")
        channel = body.get("channel")
        if channel == "trade":
            return self._rows(payload, recv_ts)
        if isinstance(channel, str) and channel in OTHER_CHANNELS:
            return []
        if body.get("method") in ("ping", "pong"):
            return []
        if channel is None and ("method" in body or "error" in body):
            return [self._answer(payload, body)]
        raise ReadingError(reading.UNKNOWN_SHAPE, f"an object of {', '.join(map(repr, body))}"[:200])

    def _answer(self, payload: bytes, body: dict[str, Any]) -> Event:
        if "method" not in body:
            return Refused(None, None, str(body["error"])[:200])
        answer = reading.parse(payload, _decode_answer)
        accepted = answer.result if isinstance(answer.result, _Accepted) else None
        symbol = answer.symbol or (accepted.symbol if accepted else None)
        channel = accepted.channel if accepted else None
        if not answer.success:
            if symbol and answer.error.startswith(AS_WISHED.get(answer.method, " ")):
                return Confirmed("trade", (symbol,), answer.req_id, answer.method == "subscribe")
            return Refused(channel, symbol, answer.error[:200] or "no reason given", answer.req_id)
        if channel is None:
            raise ReadingError(reading.UNKNOWN_SHAPE, f"an answer to {answer.method[:60]!r} that names no channel")
        active = answer.method != "unsubscribe"
        return Confirmed(channel, (symbol,) if symbol else None, answer.req_id, active)

    def _page(self, frame: Frame) -> list[Event]:
        _, _, query = reading.request_of(frame.request)
        page = reading.parse(frame.payload, _decode_page)
        if page.error:
            limited = any("limit exceeded" in error or "Too many requests" in error for error in page.error)
            told = f"Kraken answered: {'; '.join(page.error)}"
            raise ReadingError(reading.RATE_LIMITED if limited else reading.REST_ERROR, told[:200])
        if not page.result:
            raise ReadingError(reading.UNKNOWN_SHAPE, "an answer with neither trades nor errors")
        symbol = _symbol(query.get("pair", ""))
        native, recv_ts = self.native(symbol), frame.recv_ts
        events: list[Event] = []
        for name, rows in page.result.items():
            if name != "last":
                events += reading.trades(self.name, rows, _decode_past, lambda past: _past(past, native, recv_ts))
        return events


def _live(row: _Row, recv_ts: int) -> Trade:
    price, quantity, number, native = str(row.price, "latin-1"), str(row.qty, "latin-1"), row.trade_id, row.symbol
    if not (0 < number <= MAX_ID and is_amount(price) and is_amount(quantity)):
        number, price, quantity = reading.trade_id(number), reading.amount(price), reading.amount(quantity)
    ts = reading.rfc3339_ns(row.timestamp)
    return Trade("kraken", _symbol(native), native, number, price, quantity, row.side, ts, recv_ts, "live")


def _past(past: _PastTrade, native: str, recv_ts: int) -> Trade:
    return Trade(
        "kraken",
        _symbol(native),
        native,
        reading.trade_id(past.trade_id),
        reading.amount(past.price),
        reading.amount(past.volume),
        "buy" if past.side == "b" else "sell",
        reading.unix_ns(str(past.time, "latin-1")),
        recv_ts,
        "backfill",
    )


def _symbol(native: str) -> str:
    try:
        return _canonical(native)
    except ValueError as error:
        raise ReadingError(reading.UNKNOWN_SYMBOL, str(error)) from None


def _last(payload: bytes) -> int | None:
    """Where the venue says to go on: `last` of a page."""
    try:
        text = msgspec.json.decode(_decode_page(payload).result["last"], type=str)
    except (KeyError, *JSON_ERRORS):
        return None
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _id_of(event: Event) -> int:
    return event.trade_id if isinstance(event, Trade) else 0


EXCHANGE = Kraken()
