"""The live tail, followed: each look at it asks only for what has come since the one before.

Trades come into a file, from there, a chunk at a time, into memory, and with a commit into the stored candles
(docs/SCHEMA.md). A chunk in memory never changes, and chunks have ascending numbers, the generations; so what was seen
of memory needs no second look.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from k2.ask.merge import PRICE, Minute, Part, units
from k2.ask.times import SECOND

# Generations between a commit and the tail of a loader that has taken over since, which is not to be shown yet.
AGES = 1 << 40
_RUN = 20  # bits: see the view `silver_tail`

_NONE = (
    "'' AS exchange, '' AS symbol, toInt64(0) AS exchange_ts, toUInt32(0) AS epoch, toInt64(0) AS trade_id,"
    " toDecimal128(0, 18) AS price, toDecimal128(0, 18) AS quantity, '' AS side, toUInt8(0) AS apart"
)
_TRADE_ID, _SIDE = 6, 9
_ROW = "generation, exchange, symbol, exchange_ts, epoch, trade_id, price, quantity, side, apart"


class LiveTail:
    """What is in the tail and in no commit. `commit` is the last one."""

    def __init__(self) -> None:
        self.commit = 0
        self._newest = 0  # the last generation of memory that was seen
        self._memory: dict[tuple[str, str], list[Part]] = {}
        self._file: list[Part] = []

    def sql(self) -> str:
        """The SELECT to feed next. Memory is read before the file is, which keeps chunks for a while after they went
        into memory, and says in a line with side `left` which it no longer has."""
        since = f"generation > {self._newest}"
        return (
            f"SELECT 0 AS part, max(generation) AS generation, {_NONE} FROM k2.commits"
            f" UNION ALL SELECT 1, max(generation), {_NONE} FROM k2.silver_recent"
            f" UNION ALL SELECT 2, {_ROW} FROM k2.silver_recent WHERE {since}"
            f" UNION ALL SELECT 3, {_ROW} FROM k2.silver_fresh WHERE {since} OR side = 'left'"
        )

    def feed(self, rows: Iterable[Sequence[Any]]) -> bool:
        """Take the answer. False: the memory began anew, or what left the file had not come there yet; ask again."""
        found: list[list[Sequence[Any]]] = [[], [], [], []]
        for row in rows:
            found[row[0]].append(row)
        if found[1][0][1] < self._newest:
            self._newest = 0
            self._memory.clear()
            self._file.clear()
            return False
        self.commit = found[0][0][1]
        for row in found[2]:
            part = _part(row)
            self._memory.setdefault((part.exchange, part.symbol), []).append(part)
        self._newest = max((row[1] for row in found[2]), default=self._newest)
        if any(row[_SIDE] == "left" and row[_TRADE_ID] > self._newest > 0 for row in found[3]):
            return False
        run = self._newest >> _RUN
        self._file = [_part(row) for row in found[3] if row[1] > self._newest and row[1] >> _RUN == run]
        self._forget()
        return True

    def _forget(self) -> None:
        """What is committed is in the stored candles."""
        for symbol, parts in list(self._memory.items()):
            if parts[0].generation <= self.commit:
                left = [part for part in parts if part.generation > self.commit]
                if left:
                    self._memory[symbol] = left
                else:
                    del self._memory[symbol]

    def parts(self) -> Iterator[tuple[tuple[str, str], list[Part]]]:
        """All trades, by exchange and symbol; a symbol may come twice."""
        yield from self._memory.items()
        for part in self._file:
            yield (part.exchange, part.symbol), [part]

    def of(self, exchanges: Sequence[str], symbols: Sequence[str], low: int | None, high: int | None) -> list[Part]:
        """Those that a question means, as `Where.instruments` does; times in s. No trade comes twice."""
        first, end, last = low or 0, 1 << 62 if high is None else high, self.commit + AGES
        return [
            part
            for (exchange, symbol), parts in self.parts()
            if (not exchanges or exchange in exchanges)
            and (not symbols or symbol in symbols or f"{exchange}:{symbol}" in symbols)
            for part in parts
            if first <= part.minute < end and self.commit < part.generation <= last
        ]


def _part(row: Sequence[Any]) -> Part:
    _, generation, exchange, symbol, at, epoch, trade_id, price_text, quantity_text, side, apart = row
    price, quantity = units(price_text, PRICE), units(quantity_text, PRICE)
    bought = quantity if side == "buy" else 0
    key = (epoch, trade_id)
    trade = Minute(price, price, price, price, quantity, price * quantity, bought, 1, key, key, bool(apart))
    return Part(generation, exchange, symbol, at // (60 * SECOND) * 60, trade)
