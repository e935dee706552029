"""`/v1/log`: what a broker's console shows. Streams, offsets, consumers, and the messages themselves."""

import difflib
import time
from typing import Annotated

import msgspec
from msgspec import Meta

from k2.ask import AskError
from k2.ask.times import parse_time
from k2.log import Log
from k2.web.answer import Plain
from k2.web.endpoints.market import refused
from k2.web.problems import Problem
from k2.web.records import Found, Message, Order, Wanted, backwards, onwards, readable
from k2.web.route import Call, Nothing, Route
from k2.web.streams import KINDS, StreamState, first_at, in_thread, require, states

MOST = 1_000
MOST_SCANNED = 1_000_000
SHORT = {
    **{(f"{exchange}.raw" if kind == "frames" else exchange or kind): name for name, (kind, exchange) in KINDS.items()},
}


class Streams(msgspec.Struct):
    """The log's streams."""

    data: Annotated[list[StreamState], Meta(description="The streams, by name.")]


class MessagesOf(msgspec.Struct, forbid_unknown_fields=True):
    """What to show of a stream. At most one of `offset`, `before`, `time` and `tail` says where to begin; without any,
    with the newest."""

    stream: Annotated[
        str,
        Meta(
            description="Name of a stream, or short: `binance` (its trades), `binance.raw` (its frames), `gaps`.",
            examples=["market.crypto.trades.binance", "gaps"],
            min_length=1,
            max_length=220,
        ),
    ]
    offset: Annotated[int, Meta(description="From this offset on, oldest first.", ge=0)] | None = None
    before: Annotated[int, Meta(description="Before this offset, newest first.", ge=0)] | None = None
    time: (
        Annotated[
            str,
            Meta(
                description="Appended at this time or later, oldest first: RFC 3339, ns since 1970, or how long ago.",
                examples=["-15m", "2026-01-02T03:04:05Z"],
                max_length=64,
            ),
        ]
        | None
    ) = None
    tail: Annotated[int, Meta(description="The newest so many, newest first.", ge=1, le=MOST)] | None = None
    key: (
        Annotated[
            str, Meta(description="Only records of this key, such as a symbol.", examples=["BTC-USDT"], max_length=200)
        ]
        | None
    ) = None
    contains: Annotated[
        str, Meta(description="Only records that contain this text, as it stands there.", max_length=1000)
    ] = ""
    limit: Annotated[int, Meta(description="At most so many messages.", ge=1, le=MOST)] = 100
    scan: Annotated[
        int, Meta(description="At most so many records are looked through for them.", ge=1, le=MOST_SCANNED)
    ] = 100_000
    text: Annotated[bool, Meta(description="Trades and gaps as text, exactly as they stand in the log.")] = False


class Messages(msgspec.Struct):
    """Messages of a stream, and how far the search for them went."""

    stream: Annotated[str, Meta(description="The stream's whole name.")]
    data: Annotated[list[Message], Meta(description="What was found.")]
    order: Annotated[Order, Meta(description="How `data` is sorted.")]
    scanned: Annotated[int, Meta(description="Records that were looked through.")]
    next: Annotated[
        int | None,
        Meta(
            description="Where to go on: as `before` if newest first, as `offset` if oldest first. Null: nothing is"
            " older. Oldest first and complete, it is where the next record will be."
        ),
    ]
    complete: Annotated[bool, Meta(description="Nothing is left there now: all that matches was shown.")]
    start: Annotated[int, Meta(description="The first offset of the stream that can be read.")]
    end: Annotated[int, Meta(description="The next offset to be given.")]


async def streams(call: Call[Nothing]) -> Plain:
    """`GET /v1/log/streams`."""
    log = require(call.parts.log)
    return Plain(Streams(await in_thread(states, log)), {"Cache-Control": "no-store"})


async def messages(call: Call[MessagesOf]) -> Plain:
    """`GET /v1/log/messages`."""
    log = require(call.parts.log)
    params = call.params
    begin = [name for name in ("offset", "before", "time", "tail") if getattr(params, name) is not None]
    if len(begin) > 1:
        raise Problem(
            400, "Two places to begin at", f"{' and '.join(begin)} both say where to begin", f"give {begin[0]} alone"
        )
    try:
        found = await in_thread(_search, log, params)
    except AskError as error:
        raise refused(error) from None
    return Plain(found, {"Cache-Control": "no-store"})


def _search(log: Log, params: MessagesOf) -> Messages:
    stream = _resolve(log, params.stream)
    start, end = log.bounds(stream)
    wanted = Wanted(params.key, params.contains.encode(), params.tail or params.limit, params.scan)
    first = params.offset
    if params.time is not None:
        first = first_at(log, stream, start, end, parse_time(params.time, time.time_ns()))
    if first is None:
        found = backwards(log, stream, end if params.before is None else params.before, wanted)
        return _answer(stream, found, params, "newest first", None if found.complete else found.next, (start, end))
    if first > end:
        raise Problem(
            400, "Past the end", f"{stream} ends at offset {end}, but offset={first} was asked for",
            f"ask for an offset from {start} to {end}",
        )  # fmt: skip
    found = onwards(log, stream, first, wanted)
    return _answer(stream, found, params, "oldest first", found.next, (start, end))


def _answer(
    stream: str, found: Found, params: MessagesOf, order: Order, next_offset: int | None, bounds: tuple[int, int]
) -> Messages:
    whole = 1 in (params.limit, params.tail)
    data = [readable(stream, record, params.text, whole) for record in found.records]
    return Messages(stream, data, order, found.scanned, next_offset, found.complete, *bounds)


def _resolve(log: Log, name: str) -> str:
    """The stream's whole name. Raises Problem for one that does not exist."""
    stream = SHORT.get(name, name)
    known = [info.stream for info in log.streams()]
    if stream in known:
        return stream
    close = difflib.get_close_matches(name, [*SHORT, *known], n=1)
    hint = f"did you mean {close[0]}?" if close and SHORT.get(close[0], close[0]) in known else ""
    raise Problem(
        404, "No such stream", f"the log has no stream {name!r}",
        hint or (f"there are {', '.join(known)}" if known else "`k2 up` or `k2 demo` fills the log"), "no-stream",
    )  # fmt: skip


ROUTES = (
    Route(
        "GET",
        "/v1/log/streams",
        streams,
        Nothing,
        Streams,
        "The log's streams",
        "Offsets, sizes, rates, and how far each consumer has read.",
        "log",
    ),
    Route(
        "GET",
        "/v1/log/messages",
        messages,
        MessagesOf,
        Messages,
        "Messages of a stream",
        "The records themselves, decoded, newest first or from an offset or time on; searched by key or by what they"
        " contain. A search is bounded by records, bytes and seconds: `scanned` and `complete` tell how far it came,"
        " `next` where to go on.",
        "log",
    ),
)
