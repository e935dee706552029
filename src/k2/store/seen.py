"""Which trades the store has: the ids seen of every symbol, kept by the loader and written with each commit.

This is what makes at-least-once reading exactly-once storing: a trade is let in once in its identity's life.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from k2.core.islands import Islands

Key = tuple[str, str, int]  # exchange, symbol, epoch
Identity = tuple[str, str, int, int]  # exchange, symbol, epoch, trade_id


class TradeKey(msgspec.Struct, frozen=True, gc=False):
    """What the loader has to know of a trade's record; the rest passes through unread."""

    symbol: str
    trade_id: int
    exchange_ts: int
    recv_ts: int
    epoch: int = 0


class Admission(NamedTuple):
    """What became of a run of records. The lists hold indices into it.

    `apart`: let in while the trade before was missing. `joined`: trades let in earlier whose predecessor is here now.
    """

    keys: Sequence[TradeKey]
    dropped: list[int]
    apart: list[int]
    joined: list[Identity]


_decode_keys = msgspec.json.Decoder(list[TradeKey]).decode
_decode_islands = msgspec.json.Decoder(list[tuple[str, str, int, list[tuple[int, int]]]]).decode


class Seen:
    """The ids of every (exchange, symbol, epoch) that were let in."""

    def __init__(self, islands: Iterable[tuple[str, str, int, list[tuple[int, int]]]] = ()) -> None:
        self._islands: dict[Key, Islands] = {}
        self._next: dict[Key, int] = {}
        for exchange, symbol, epoch, ranges in islands:
            self._islands[exchange, symbol, epoch] = Islands.from_list(ranges)

    @classmethod
    def from_json(cls, text: bytes | str) -> "Seen":
        """The reverse of `to_json`. Raises msgspec.DecodeError."""
        return cls(_decode_islands(text or "[]"))

    def to_json(self) -> bytes:
        """`[[exchange, symbol, epoch, [[first, last], ...]], ...]`"""
        return msgspec.json.encode([(*key, islands.to_list()) for key, islands in self._islands.items()])

    def islands(self, key: Key) -> Islands:
        """The ids of one counter; empty if none was seen."""
        return self._islands.get(key) or Islands()

    def apart(self) -> list[Identity]:
        """Every trade whose predecessor is missing: the first of each island but a counter's first."""
        return [(*key, first) for key, islands in self._islands.items() for first, _ in islands.to_list()[1:]]

    def admit(self, exchange: str, values: Sequence[bytes]) -> Admission:
        """Let records of one exchange in, in order, each identity once. Raises msgspec.DecodeError on a broken one."""
        keys = _decode_keys(b"[" + b",".join(values) + b"]")
        dropped: list[int] = []
        apart: list[int] = []
        joined: list[Identity] = []
        upcoming = self._next
        for i, trade in enumerate(keys):
            key = (exchange, trade.symbol, trade.epoch)
            number = trade.trade_id
            if upcoming.get(key) == number:
                upcoming[key] = number + 1
                self._islands[key].add(number)
                continue
            islands = self._islands.get(key)
            if islands is None:
                islands = self._islands[key] = Islands()
            first = islands.first
            if not islands.add(number):
                dropped.append(i)
                continue
            if number + 1 in islands:
                joined.append((*key, number + 1))
            elif number == islands.last:
                upcoming[key] = number + 1
            if first is not None and number < first:
                joined.append((*key, first))
            elif number != islands.first and number - 1 not in islands:
                apart.append(i)
        return Admission(keys, dropped, apart, joined)
