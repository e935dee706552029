"""Records to framed messages, once for all who want the same of them."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from k2.web.stream.chunk import Chunk
from k2.web.stream.framing import framed
from k2.web.stream.messages import Encoding, records
from k2.web.stream.selection import Selection


class Want(NamedTuple):
    """What a subscription wants of one stream. `keys` None: every record. `selection`: of gaps, whose keys lack the
    exchange."""

    kind: str
    id: str | int
    encoding: Encoding
    keys: frozenset[str] | None
    selection: Selection | None = None


class Framed(NamedTuple):
    """A framed message and the number of records in it; no bytes if there is none."""

    data: bytes
    number: int


class _Place(msgspec.Struct):
    exchange: str
    symbol: str


_place = msgspec.json.Decoder(_Place).decode
_NOTHING = Framed(b"", 0)


def wanted(chunk: Chunk, want: Want) -> Sequence[bytes]:
    """The records of a chunk that are wanted, in order."""
    if want.selection is not None:
        places = [_place(value) for value in chunk.values]
        has = want.selection.has
        return [v for v, place in zip(chunk.values, places, strict=True) if has(place.exchange, place.symbol)]
    if want.keys is None:
        return chunk.values
    keys = want.keys
    return [value for key, value in zip(chunk.keys, chunk.values, strict=True) if key in keys]


def encode(chunk: Chunk, want: Want, live: bool) -> Framed:
    """The message of a chunk's wanted records."""
    values = wanted(chunk, want)
    if not values:
        return _NOTHING
    members = {"id": want.id, "stream": chunk.stream, "offset": chunk.offset, "next": chunk.end, "live": live}
    return _framed(want, members, values)


def encode_newest(
    want: Want, stream: str, offset: int, end: int, newest: Mapping[str, bytes], counts: Mapping[str, int]
) -> Framed:
    """The message that stands for all wanted records from `offset` to `end`: each symbol's newest, and how many were
    left out."""
    if not newest:
        return _NOTHING
    skipped = {symbol: count - 1 for symbol, count in counts.items() if count > 1}
    members: dict[str, Any] = {"id": want.id, "stream": stream, "offset": offset, "next": end, "live": True}
    members |= {"skipped": sum(skipped.values()), "skipped_symbols": skipped}
    return _framed(want, members, list(newest.values()))


def _framed(want: Want, members: Mapping[str, Any], values: Sequence[bytes]) -> Framed:
    payload = records(want.kind, members, values, want.encoding)
    return Framed(framed(want.kind, payload, want.encoding), len(values))


class Encoded:
    """The messages encoded last, at most about `most_bytes` of them."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._size = 0
        self._found: OrderedDict[tuple[Any, ...], Framed] = OrderedDict()

    def get(self, chunk: Chunk, want: Want, live: bool) -> Framed:
        """As `encode` gives it. Records at an offset never change."""
        key = (chunk.stream, chunk.offset, chunk.end, live, want)
        frame = self._found.get(key)
        if frame is None:
            frame = self._found[key] = encode(chunk, want, live)
            self._size += len(frame.data) + 200  # the entry's own
            while self._size > self._most_bytes and len(self._found) > 1:
                self._size -= len(self._found.popitem(last=False)[1].data) + 200
        return frame
