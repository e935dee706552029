"""Reading the log for one subscriber that is behind. These functions run in threads; each reads a bounded piece."""

from collections.abc import Mapping
from typing import NamedTuple

from k2.log import Log
from k2.web.stream.chunk import Chunk, chunks
from k2.web.stream.encode import Framed, Want, encode, encode_newest, wanted

_PIECE_BYTES = 1 << 20


class Piece(NamedTuple):
    """Framed messages of the records from a cursor until `end`. `append_ts`: of the last record."""

    frames: list[Framed]
    end: int
    append_ts: int


def read(log: Log, want: Want, stream: str, offset: int, until: int, live_from: int, most_bytes: int) -> Piece:
    """What comes next for a cursor at `offset`. `until`: known to be no further than the log's end. Raises LogError."""
    batches = log.read(stream, offset, most_bytes)
    if not batches:  # a repair cut out what was between
        return Piece([], until, 0)
    chunk = next(chunks(batches, most_bytes))  # one block of the log may hold more
    frames = [encode(part, want, part.offset >= live_from) for part in divided(chunk, live_from)]
    return Piece(frames, chunk.end, chunk.append_ts)


def divided(chunk: Chunk, live_from: int) -> list[Chunk]:
    """A chunk, cut in two where live begins."""
    if chunk.offset < live_from < chunk.end:
        return [chunk.part(chunk.offset, live_from), chunk.part(live_from, chunk.end)]
    return [chunk]


def newest(log: Log, wants: Mapping[str, Want], cursors: Mapping[str, int], ends: Mapping[str, int]) -> list[Framed]:
    """For each stream, one message that stands for all from its cursor until its end. Raises LogError."""
    return [_newest(log, want, stream, cursors[stream], ends[stream]) for stream, want in wants.items()]


def _newest(log: Log, want: Want, stream: str, offset: int, end: int) -> Framed:
    last: dict[str, bytes] = {}
    counts: dict[str, int] = {}
    at = offset
    while at < end:
        batches = log.read(stream, at, _PIECE_BYTES)
        if not batches:
            break
        for chunk in chunks(batches, _PIECE_BYTES):
            part = chunk.part(chunk.offset, end)
            keys = part.keys if want.keys is None else [key for key in part.keys if key in want.keys]
            for key, value in zip(keys, wanted(part, want), strict=True):
                last.pop(key, None)
                last[key] = value
                counts[key] = counts.get(key, 0) + 1
        at = batches[-1].end
    return encode_newest(want, stream, offset, end, last, counts)
