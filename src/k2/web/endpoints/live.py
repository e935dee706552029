"""`/v1/stream`: trades, candles and gaps as they come, over WebSocket or as server-sent events. `/v1/replay`: a past
range once more, in its own time or faster."""

import time
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from k2.ask import AskError
from k2.ask.question import Exchanges, From, Symbols, To, bounds
from k2.web.answer import Raw, Stream
from k2.web.problems import Problem
from k2.web.route import Call, Route
from k2.web.stream import events, replay, websocket
from k2.web.stream.messages import Channel, Interval, Slow, Subscribe

_POSITIONS = msgspec.json.Decoder(dict[str, int])


class Streaming(msgspec.Struct, forbid_unknown_fields=True):
    """What to subscribe to at once. Over WebSocket all of it may also be said in messages, later and several times."""

    channels: Annotated[tuple[Channel, ...], Meta(description="`trades`, `candles`, `gaps`.", max_length=16)] = ()
    symbols: Annotated[
        tuple[str, ...],
        Meta(
            description="`BTC-USDT` (at every exchange), `binance:BTC-USDT`, `kraken:*`, or `*`.",
            examples=[["binance:BTC-USDT", "ETH-USD"]],
            max_length=1_000,
        ),
    ] = ()
    intervals: Annotated[
        tuple[Interval, ...], Meta(description="Intervals of the channel `candles`.", max_length=16)
    ] = ("1m",)
    start: Annotated[
        str,
        Meta(
            description="`now`, `earliest`, a time (RFC 3339, ns since 1970, `-5m`), or a JSON object of the streams'"
            " next offsets.",
            examples=["-5m"],
            max_length=2_000,
        ),
    ] = "now"
    slow: Annotated[
        Slow, Meta(description="What to do when you read too slowly: close with your positions, or leave trades out.")
    ] = "disconnect"
    encoding: Annotated[Literal["json", "msgpack"], Meta(description="Of the messages; WebSocket only.")] = "json"


class Replaying(msgspec.Struct, forbid_unknown_fields=True, rename={"from_": "from"}):
    """Which trades, and how fast."""

    from_: From = "-1h"
    to: To = "now"
    exchange: Exchanges = ()
    symbol: Symbols = ()
    speed: Annotated[
        float | Literal["max"],
        Meta(description="How many times faster than it happened, 0.01 to 100000; `max`: as fast as it goes."),
    ] = 1.0
    format: Annotated[
        Literal["ndjson", "sse"], Meta(description="A trade a line, or server-sent events (also by `Accept`).")
    ] = "ndjson"


async def stream(call: Call[Streaming]) -> Raw:
    """A live stream, in one of its two ways."""
    request, params, hub = call.request, call.params, call.parts.hub
    asked = _subscription(params)
    if request.headers.get("Upgrade", "").lower() == "websocket":
        said = asked if params.channels or params.symbols else None
        return Raw(await websocket.serve(hub, request, params.encoding, said))
    if events.MEDIA_TYPE in request.headers.get("Accept", ""):
        return Raw(await events.serve(hub, request, events.resumed(asked, request.headers.get("Last-Event-ID"))))
    remedy = "connect with a WebSocket client, or send Accept: text/event-stream"
    raise Problem(
        426, "A stream", "this is no answer but a stream", remedy, "upgrade", headers={"Upgrade": "websocket"}
    )


def _subscription(params: Streaming) -> Subscribe:
    start: Any = params.start
    if start.startswith("{"):
        try:
            start = _POSITIONS.decode(start)
        except msgspec.MsgspecError as error:
            remedy = 'write {"market.crypto.trades.binance": 17}, or a time'
            raise Problem(400, "Invalid parameter", f"start: {error}", remedy, "invalid-parameter") from None
    return Subscribe(
        params.channels or ("trades",), params.symbols or ("*",), params.intervals or ("1m",), start, params.slow
    )


async def play(call: Call[Replaying]) -> Stream:
    """A past range once more."""
    params, now = call.params, time.time_ns()
    if params.speed != "max" and not 0.01 <= params.speed <= 100_000:
        detail = f"speed={params.speed} is not from 0.01 to 100000"
        raise Problem(400, "Invalid parameter", detail, "write a number of times, or max", "invalid-parameter")
    try:
        first, end = bounds(params.from_, params.to, now, None)
    except AskError as error:
        raise Problem(400, "Invalid parameter", str(error), error.remedy, "invalid-parameter") from None
    wanted = replay.Wanted(first or 0, now if end is None else end, params.exchange, params.symbol)
    sse = params.format == "sse" or events.MEDIA_TYPE in call.request.headers.get("Accept", "")
    pages = await replay.begun(replay.pages(call.parts.store, wanted))
    speed = 0.0 if params.speed == "max" else params.speed
    chunks = replay.play(pages, wanted, speed, replay.EVENTS if sse else replay.LINES)
    return Stream(events.MEDIA_TYPE if sse else "application/x-ndjson", chunks)


ROUTES = (
    Route(
        "GET",
        "/v1/stream",
        stream,
        Streaming,
        None,
        "Trades, candles and gaps as they come",
        "A WebSocket (with `Upgrade: websocket`) or server-sent events (with `Accept: text/event-stream`). History from"
        " `start` on, then live, without a gap or a repeat where one becomes the other. docs/STREAM.md has the"
        " messages.",
        tag="live",
        key_in_url=True,
        media=(events.MEDIA_TYPE,),
    ),
    Route(
        "GET",
        "/v1/replay",
        play,
        Replaying,
        None,
        "A past range once more, at N times its speed",
        "Trades of hot and cold as one, in the order of (exchange_ts, exchange, symbol, epoch, trade_id), paced by"
        " exchange_ts; a summary ends it.",
        tag="live",
        key_in_url=True,
        media=("application/x-ndjson", events.MEDIA_TYPE),
    ),
)
