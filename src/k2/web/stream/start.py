"""Where a subscriber's cursors begin, by offset, by time, at the log's end or beginning.

A beginning that the log no longer has is a problem that says where the log begins: nothing is left out in silence.
These functions read the log, so they run in a thread.
"""

from collections.abc import Mapping, Sequence

from k2.ask import AskError
from k2.ask.times import parse_time
from k2.log import Log
from k2.web.problems import Problem
from k2.web.stream.messages import Start

_OLDER = "older trades are in /v1/trades and /v1/replay; subscribe with a later start"


def ends(log: Log, streams: Sequence[str]) -> dict[str, int]:
    """The next offset of each stream."""
    return {stream: log.bounds(stream)[1] for stream in streams}


def begin(log: Log, start: Start, now: Mapping[str, int], now_ns: int) -> dict[str, int]:
    """The first offset wanted of each stream in `now`, whose values are the streams' ends. Raises Problem, LogError."""
    if isinstance(start, dict):
        return _by_offset(log, start, now)
    if start == "now":
        return dict(now)
    if start == "earliest":
        return {stream: log.bounds(stream)[0] for stream in now}
    try:
        since = parse_time(str(start), now_ns, "start")
    except AskError as error:
        remedy = f"{error.remedy}; or earliest, or the offsets of streams"
        raise Problem(
            400, "Invalid parameter", f"start={start!s:.80}: {error.problem}", remedy, "invalid-parameter"
        ) from None
    return {stream: _by_time(log, stream, since) for stream in now}


def _by_offset(log: Log, start: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    unknown = sorted(set(start) - set(now))
    if unknown:
        raise Problem(
            400,
            "Start not understood",
            f"{unknown[0][:80]!r} is no stream of this subscription",
            f"its streams are {', '.join(now)}",
            "stream-start",
        )
    found = dict(now)
    for stream, offset in start.items():
        first, end = log.bounds(stream)
        if offset < first:
            raise _too_early(stream, first, f"offset {offset} was asked for")
        if offset > end:
            raise Problem(
                409,
                "Start past the log's end",
                f"{stream} ends at offset {end}, and {offset} was asked for: that position is of another log",
                "subscribe with start now, or with a time",
                "stream-start",
                stream=stream,
                end=end,
            )
        found[stream] = offset
    return found


def _by_time(log: Log, stream: str, since: int) -> int:
    """The first record appended at or after a time (ns), so with all that was received since. By bisection."""
    first, end = log.bounds(stream)
    low, high = first, end
    while low < high:
        middle = (low + high) // 2
        batches = log.read(stream, middle, 1)
        if not batches:
            high = middle
        elif batches[0].append_ts < since:
            low = batches[0].end
        else:
            high = middle
    if low == first and first > 0:
        raise _too_early(stream, first, "what came before has been dropped")
    return low


def _too_early(stream: str, first: int, why: str) -> Problem:
    return Problem(
        410,
        "Start before the log's beginning",
        f"{stream} begins at offset {first}: {why}",
        _OLDER,
        "stream-start",
        stream=stream,
        begins=first,
    )
