"""One step of the log, for all subscribers who are at its end."""

from collections.abc import Sequence
from typing import NamedTuple

from k2.web.stream.chunk import Chunk
from k2.web.stream.encode import Encoded, Want
from k2.web.stream.follower import News


class Signature:
    """What a subscription wants of each stream; one object for all who want the same."""

    def __init__(self, wants: tuple[tuple[str, Want], ...]) -> None:
        self.wants = wants


class Stride(NamedTuple):
    """What one signature is sent in a step: framed bytes, number of records by kind, and the cursors after it."""

    data: bytes
    numbers: Sequence[tuple[str, int]]
    cursors: dict[str, int]


class Step:
    """What is new in the log. `whole`: it follows what was there before, in every stream."""

    def __init__(self, encoded: Encoded, news: News) -> None:
        self._encoded = encoded
        self._chunks: dict[str, list[Chunk]] = {}
        self._strides: dict[Signature, Stride] = {}
        self.whole = True
        for item in news:
            if isinstance(item, Chunk):
                self._chunks.setdefault(item.stream, []).append(item)
            else:
                self.whole = False

    def stride(self, signature: Signature) -> Stride:
        """For subscribers of this signature who have had all before."""
        found = self._strides.get(signature)
        if found is None:
            found = self._strides[signature] = self._made(signature)
        return found

    def _made(self, signature: Signature) -> Stride:
        pieces: list[bytes] = []
        numbers: list[tuple[str, int]] = []
        cursors: dict[str, int] = {}
        for stream, want in signature.wants:
            for chunk in self._chunks.get(stream, ()):
                frame = self._encoded.get(chunk, want, live=True)
                pieces.append(frame.data)
                numbers.append((want.kind, frame.number))
                cursors[stream] = chunk.end
        return Stride(b"".join(pieces), numbers, cursors)
