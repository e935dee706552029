"""What the log says of itself: its streams, how quickly they grow, and how far behind whom they are.

The log may block (LMDB maps files into memory), so an event loop asks through `in_thread`.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Annotated, Literal, ParamSpec, TypeVar

import msgspec
from msgspec import Meta

from k2.ask.times import format_time
from k2.config import EXCHANGES
from k2.core.codec import GAPS_STREAM, frames_stream, trades_stream
from k2.log import Log, LogError, OffsetOutOfRange, Position, StreamInfo
from k2.web.problems import Problem

READERS = 4  # threads; further requests wait for one
WITHIN_S = 10.0
RATE_OVER_S = 10.0

CHECKPOINTS = "feed-handler-"  # these consumers write the streams, and note how far their state goes

Kind = Literal["trades", "frames", "gaps", "other"]
KINDS: dict[str, tuple[Kind, str]] = {
    **{trades_stream(name): ("trades", name) for name in EXCHANGES},
    **{frames_stream(name): ("frames", name) for name in EXCHANGES},
    GAPS_STREAM: ("gaps", ""),
}

P = ParamSpec("P")
R = TypeVar("R")


class ConsumerAt(msgspec.Struct):
    """Where a consumer stands in a stream."""

    consumer: Annotated[str, Meta(description="Who reads: `loader` (into the store), `archiver` (into the cold tier).")]
    offset: Annotated[int, Meta(description="The next record that it wants.")]
    lag: Annotated[int, Meta(description="Records that it has yet to read.")]
    lag_s: Annotated[float, Meta(description="Age of the first of them in seconds; 0 if there is none.")]
    checkpoint: Annotated[
        bool, Meta(description="It reads on only after a restart, from here: what lies past it is no backlog.")
    ]


class StreamState(msgspec.Struct):
    """One stream of the log."""

    stream: Annotated[str, Meta(description="Its name.", examples=["market.crypto.trades.binance"])]
    kind: Annotated[Kind, Meta(description="What its records are.")]
    exchange: Annotated[str, Meta(description="Whose records they are; empty: of several exchanges.")]
    partitions: Annotated[int, Meta(description="Partitions; the embedded log has one a stream.")]
    start: Annotated[int, Meta(description="The first offset that can be read.")]
    end: Annotated[int, Meta(description="The next offset to be given.")]
    records: Annotated[int, Meta(description="Records that can be read.")]
    bytes: Annotated[int, Meta(description="Their size on disk.")]
    rate: Annotated[float, Meta(description=f"Records a second, over the last {RATE_OVER_S:.0f} seconds.")]
    last_append: Annotated[str, Meta(description="Time of the last append (RFC 3339, UTC).")]
    age_s: Annotated[float, Meta(description="Seconds since then.")]
    consumers: Annotated[list[ConsumerAt], Meta(description="Who reads it, and how far.")]


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call what reads the log, or other files, in one of a few threads kept for that.

    Raises LogError after some seconds without an answer (the thread then waits on), and what the call raises.
    """
    waiting = asyncio.get_running_loop().run_in_executor(_readers(), partial(function, *args, **kwargs))
    try:
        return await asyncio.wait_for(waiting, WITHIN_S)
    except TimeoutError:
        raise LogError(
            f"nothing could be read within {WITHIN_S:.0f} s: a process that writes the log stands still in the"
            " middle of it, or the disk does; `k2 status` names processes that do not answer"
        ) from None


@lru_cache(maxsize=1)
def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READERS, "log-reader")


def require(log: Log | None) -> Log:
    """The log. Raises Problem where there is none."""
    if log is None:
        raise Problem(
            503,
            "No log",
            "this process has no log to read",
            "serve the data folder that the platform runs on: k2 --data FOLDER web",
            "no-log",
        )
    return log


def states(log: Log, now_ns: int | None = None) -> list[StreamState]:
    """Every stream, by name. Blocks. Raises LogError."""
    consumers = log.consumers()
    now = time.time_ns() if now_ns is None else now_ns
    return [_state(log, info, consumers, now) for info in log.streams()]


def _state(log: Log, info: StreamInfo, consumers: dict[str, dict[str, Position]], now: int) -> StreamState:
    kind, exchange = KINDS.get(info.stream, ("other", ""))
    since = first_at(log, info.stream, info.start, info.end, now - int(RATE_OVER_S * 1e9))
    return StreamState(
        stream=info.stream,
        kind=kind,
        exchange=exchange,
        partitions=1,
        start=info.start,
        end=info.end,
        records=info.end - info.start,
        bytes=info.size,
        rate=round((info.end - since) / RATE_OVER_S, 1),
        last_append=format_time(info.last_ts),
        age_s=round(max(0, now - info.last_ts) / 1e9, 3),
        consumers=[
            ConsumerAt(
                name, at[info.stream].offset, max(0, info.end - at[info.stream].offset),
                age_s(log, info.stream, at[info.stream].offset, now), name.startswith(CHECKPOINTS),
            )
            for name, at in sorted(consumers.items())
            if info.stream in at
        ],
    )  # fmt: skip


def append_ts(log: Log, stream: str, offset: int) -> int | None:
    """When the record at `offset`, or the first after it, was appended (ns); None at the end. Raises LogError."""
    try:
        batches = log.read(stream, offset, 1)
    except OffsetOutOfRange as error:
        batches = log.read(stream, error.start, 1)
    return batches[0].append_ts if batches else None


def age_s(log: Log, stream: str, offset: int, now_ns: int) -> float:
    """Seconds that the record at `offset` has been waiting for its reader; 0 if there is none yet. Raises LogError."""
    try:
        at = append_ts(log, stream, offset)
    except LogError:
        if offset > log.bounds(stream)[1]:  # the reader's place is that of another log, which is told elsewhere
            return 0.0
        raise
    return 0.0 if at is None else round(max(0, now_ns - at) / 1e9, 3)


def first_at(log: Log, stream: str, start: int, end: int, at_ns: int) -> int:
    """The first offset in start..end appended at or after a time (ns), else `end`. A dozen short reads at most about
    twice over. Raises LogError."""

    def reached(offset: int) -> bool:
        at = append_ts(log, stream, offset)
        return at is None or at >= at_ns

    high, step = end, 256
    while high - step > start and reached(high - step):  # what is asked for is mostly recent
        high, step = high - step, step * 4
    low = max(start, high - step)
    while low < high:
        middle = (low + high) // 2
        if reached(middle):
            high = middle
        else:
            low = middle + 1
    return high
