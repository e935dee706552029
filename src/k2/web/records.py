"""Records of the log as people read them: decoded, found by key or by what they contain, within bounds.

A search goes from newest to oldest, or onwards from an offset; it ends at its limit, after so many records, so much
time or so many bytes, and says where it would go on.
"""

import base64
import time
from collections import deque
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from k2.ask.times import format_time
from k2.core.codec import GAPS_STREAM, decode_frame, decode_gap, decode_trade
from k2.log import Batch, Log, OffsetOutOfRange

SECONDS = 2.0  # that one search may take
READ_BYTES = 1 << 20  # taken from the log at once
ANSWER_BYTES = 4 << 20  # of records in one answer, and one record more
PAYLOAD_SHOWN = 16 << 10  # characters of a frame's payload, unless it is asked for alone

Order = Literal["newest first", "oldest first"]


class Message(msgspec.Struct):
    """One record of the log."""

    offset: Annotated[int, Meta(description="Its place in the stream.")]
    append_ts: Annotated[str, Meta(description="When it was appended (RFC 3339, UTC).")]
    key: Annotated[str, Meta(description="Its key: the symbol of trades and gaps, empty for frames.")]
    size: Annotated[int, Meta(description="Its bytes in the log.")]
    kind: Annotated[Literal["trade", "gap", "frame", "other"], Meta(description="What it was understood as.")]
    record: Annotated[
        Any,
        Meta(
            description="Trades and gaps: the JSON object as it stands in the log. Frames: an object of `recv_ts` (RFC"
            " 3339), `kind`, `connection`, `request`, `payload` and `encoding` (`text` or `base64`). With `text=true`,"
            " and for anything else: a string."
        ),
    ]
    cut: Annotated[bool, Meta(description="The payload is longer than shown: ask for this record alone (limit=1).")] = (
        False
    )


class Record(NamedTuple):
    """One record, as it lies in the log."""

    offset: int
    append_ts: int
    key: str
    value: bytes


class Wanted(NamedTuple):
    """What is looked for: at most `limit` records, among at most `scan`."""

    key: str | None = None
    contains: bytes = b""
    limit: int = 100
    scan: int = 100_000

    def among(self, batch: Batch, count: int) -> Iterator[Record]:
        """Those that match among the first `count` records of a batch."""
        values = batch.values
        for i in range(count):
            if (self.key is None or batch.keys[i] == self.key) and self.contains in values[i]:
                yield Record(batch.offset + i, batch.append_ts, batch.keys[i], values[i])


class Found(NamedTuple):
    """`scanned` records were looked through. `next`: from where to go on; `complete`: nothing is left there now."""

    records: list[Record]
    scanned: int
    next: int
    complete: bool


def onwards(log: Log, stream: str, offset: int, wanted: Wanted) -> Found:
    """Records from `offset` on, oldest first. Blocks. Raises LogError."""
    at, end = offset, log.bounds(stream)[1]
    until = time.monotonic() + SECONDS
    found: list[Record] = []
    scanned = size = 0
    while at < end and time.monotonic() < until and (batches := _read(log, stream, at)):
        for batch in batches:
            count = min(len(batch.values), end - batch.offset, wanted.scan - scanned)
            for record in wanted.among(batch, count):
                found.append(record)
                size += len(record.value)
                if len(found) >= wanted.limit or size >= ANSWER_BYTES:
                    at = record.offset + 1
                    return Found(found, scanned + at - batch.offset, at, at >= end)
            scanned += count
            at = batch.offset + count
            if scanned >= wanted.scan or at >= end:
                return Found(found, scanned, at, at >= end)
    return Found(found, scanned, at, at >= end)


def backwards(log: Log, stream: str, before: int, wanted: Wanted) -> Found:
    """Records before offset `before`, newest first. Blocks. Raises LogError."""
    start, end = log.bounds(stream)
    upper, step = min(before, end), max(wanted.limit, 64)
    until = time.monotonic() + SECONDS
    found: list[Record] = []
    scanned = size = 0
    while upper > start and len(found) < wanted.limit and scanned < wanted.scan and time.monotonic() < until:
        lower = max(start, upper - min(step, wanted.scan - scanned))
        part: deque[Record] = deque()
        part_size, dropped = 0, False
        for batch in _between(log, stream, lower, upper):
            count = min(len(batch.values), upper - batch.offset)
            scanned += count
            for record in wanted.among(batch, count):
                part.append(record)
                part_size += len(record.value)
                while len(part) > wanted.limit - len(found) or (len(part) > 1 and size + part_size > ANSWER_BYTES):
                    part_size -= len(part.popleft().value)
                    dropped = True
        found += reversed(part)
        size += part_size
        upper, step = part[0].offset if dropped else lower, min(step * 4, 16_384)
        if dropped or size >= ANSWER_BYTES:
            break
    return Found(found, scanned, max(upper, start), upper <= start)


def _between(log: Log, stream: str, lower: int, upper: int) -> Iterator[Batch]:
    at = lower
    while at < upper and (batches := _read(log, stream, at)):
        yield from (batch for batch in batches if batch.offset < upper)
        at = batches[-1].end


def _read(log: Log, stream: str, offset: int) -> list[Batch]:
    """From `offset` on, or from where the stream begins now that retention has dropped it."""
    try:
        return log.read(stream, offset, READ_BYTES)
    except OffsetOutOfRange as error:
        return log.read(stream, error.start, READ_BYTES)


def readable(stream: str, record: Record, text: bool = False, whole: bool = False) -> Message:
    """A record as a person reads it. `text`: as a string, exactly as it stands. `whole`: with all of its payload."""
    offset, append_ts, key, value = record
    message = Message(offset, format_time(append_ts), key, len(value), "other", _text(value)[0])
    if stream.endswith(".raw"):
        return _frame(message, value, text, whole)
    try:
        if stream == GAPS_STREAM:
            decode_gap(value)
            message.kind = "gap"
        else:
            decode_trade(value)
            message.kind = "trade"
    except msgspec.DecodeError:
        return message
    if not text:
        message.record = msgspec.Raw(value)
    return message


def _frame(message: Message, value: bytes, text: bool, whole: bool) -> Message:
    try:
        frame = decode_frame(value)
    except ValueError:
        return message
    payload, encoding = _text(frame.payload)
    message.kind = "frame"
    if not whole and len(payload) > PAYLOAD_SHOWN:
        payload, message.cut = payload[:PAYLOAD_SHOWN], True
    message.record = payload
    if not text:
        message.record = {
            "recv_ts": format_time(frame.recv_ts),
            "kind": frame.kind,
            "connection": frame.connection,
            "request": frame.request,
            "payload": payload,
            "encoding": encoding,
        }
    return message


def _text(value: bytes) -> tuple[str, Literal["text", "base64"]]:
    try:
        return value.decode(), "text"
    except UnicodeDecodeError:
        return base64.b64encode(value).decode(), "base64"
