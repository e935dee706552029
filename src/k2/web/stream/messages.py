"""The protocol: what a client may say, and the messages it is sent, as JSON or MessagePack.

Records of the log are spliced into JSON messages byte for byte. docs/STREAM.md shows every message.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from k2.core.candle import INTERVALS

Channel = Literal["trades", "candles", "gaps"]
Interval = Literal["1m", "5m", "15m", "30m", "1h", "1d"]
Slow = Literal["disconnect", "conflate"]
Encoding = Literal["json", "msgpack", "sse"]
Start: TypeAlias = str | int | dict[str, int]
Identifier = Annotated[str, Meta(max_length=64)]

Symbol = Annotated[str, Meta(max_length=60)]


class Subscribe(msgspec.Struct, tag="subscribe", tag_field="op", forbid_unknown_fields=True, omit_defaults=True):
    """`start`: `now`, `earliest`, a time (RFC 3339, ns since 1970, `-5m`), or the next offset wanted of each stream.

    `id` names the subscription on this connection; without one it is given a number.
    """

    channels: Annotated[tuple[Channel, ...], Meta(min_length=1, max_length=16)] = ("trades",)
    symbols: Annotated[tuple[Symbol, ...], Meta(min_length=1)] = ("*",)
    intervals: Annotated[tuple[Interval, ...], Meta(min_length=1, max_length=16)] = ("1m",)
    start: Start = "now"
    slow: Slow = "disconnect"
    id: Identifier | int = ""


class Unsubscribe(msgspec.Struct, tag="unsubscribe", tag_field="op", forbid_unknown_fields=True):
    id: Identifier | int


class Ping(msgspec.Struct, tag="ping", tag_field="op", forbid_unknown_fields=True):
    """Answered by a `pong` with the same `id`."""

    id: Identifier | int = ""


Said: TypeAlias = Subscribe | Unsubscribe | Ping

_said_json = msgspec.json.Decoder(Said)
_said_msgpack = msgspec.msgpack.Decoder(Said)
_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()
_plain = msgspec.json.Decoder()


def heard(data: bytes | str, binary: bool) -> Said:
    """What a client said: JSON in a text frame, MessagePack in a binary one. Raises msgspec.MsgspecError."""
    try:
        said: Said = _said_msgpack.decode(data) if binary and isinstance(data, bytes) else _said_json.decode(data)
    except (UnicodeError, RecursionError) as error:  # of text that is none, of what is nested too deeply
        raise msgspec.DecodeError(str(error)) from None
    return said


def message(kind: str, members: Mapping[str, Any], encoding: Encoding) -> bytes:
    """A message without records."""
    whole = {"type": kind, **members}
    return _msgpack.encode(whole) if encoding == "msgpack" else _json.encode(whole)


def records(
    kind: str, members: Mapping[str, Any], values: Sequence[bytes], encoding: Encoding, field: str = ""
) -> bytes:
    """A message with records, JSON objects each, in the member that is called as the message is (or `field`)."""
    whole = {"type": kind, **members}
    if encoding == "msgpack":
        whole[field or kind] = _plain.decode(b"[" + b",".join(values) + b"]")
        return _msgpack.encode(whole)
    head = _json.encode(whole)
    return b'%b,"%b":[%b]}' % (head[:-1], (field or kind).encode(), b",".join(values))


_NS = "integer, nanoseconds since 1970 UTC"
_TRADE = {
    "exchange": "string",
    "symbol": "string",
    "native_symbol": "string",
    "trade_id": "integer",
    "price": "decimal string, in the quote asset",
    "quantity": "decimal string, in the base asset",
    "side": "string: the taker's, buy or sell",
    "exchange_ts": _NS,
    "recv_ts": _NS,
    "source": "string: live or backfill",
    "epoch": "integer, 0 if left out",
}
_CANDLE = {
    "exchange": "string",
    "symbol": "string",
    "interval": f"string: {', '.join(INTERVALS)}",
    "window_start": "string, RFC 3339 UTC",
    "open": "decimal string",
    "high": "decimal string",
    "low": "decimal string",
    "close": "decimal string",
    "volume": "decimal string, in the base asset",
    "quote_volume": "decimal string, in the quote asset",
    "buy_volume": "decimal string, in the base asset",
    "vwap": "decimal string",
    "trade_count": "integer",
    "first_trade_id": "integer",
    "last_trade_id": "integer",
    "complete": "boolean",
    "final": "boolean",
}
_GAP = {
    "exchange": "string",
    "symbol": "string",
    "first_id": "integer",
    "last_id": "integer",
    "state": "string: start, open, healed, unavailable or epoch",
    "reason": "string",
    "event_ts": _NS,
    "detected_ts": _NS,
    "missing": "array of [first, last], none if left out",
    "epoch": "integer, 0 if left out",
}
SCHEMA: Mapping[str, list[dict[str, str]]] = {
    channel: [{"name": name, "type": kind} for name, kind in fields.items()]
    for channel, fields in (("trades", _TRADE), ("candles", _CANDLE), ("gaps", _GAP))
}
