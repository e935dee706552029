"""The two sides of the proof: what the log holds, read record by record, and what the store answers."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from k2.core.candle import Candle, CandleBuilder
from k2.core.codec import GAPS_STREAM, decode_gap, decode_trade, trades_stream
from k2.core.islands import Islands
from k2.core.types import Gap, Trade
from k2.log import Log
from k2.store import Store

Counter = tuple[str, str, int]  # exchange, symbol, epoch
BLOCK = 1 << 16  # ids that the store sums up in one row


class Scope(NamedTuple):
    """What is to be proven. None: all. Times are exchange times in ns; `until` is exclusive."""

    exchanges: tuple[str, ...]
    symbol: str | None = None
    since: int | None = None
    until: int | None = None

    @property
    def whole(self) -> bool:
        """No bounds of time: what lies between the first and the last id belongs to the scope."""
        return self.since is None and self.until is None

    def covers(self, trade: Trade) -> bool:
        return (self.since is None or trade.exchange_ts >= self.since) and (
            self.until is None or trade.exchange_ts < self.until
        )

    def condition(self, exchange: str, time: str, unit_ns: int = 1, width: int = 0) -> str:
        """SQL for the scope: `time` is an integer expression in units of `unit_ns`, the start of `width` such units."""
        parts = [f"exchange = '{exchange}'"]
        if self.symbol:
            parts.append(f"symbol = '{self.symbol}'")
        if self.since is not None:
            parts.append(f"{time} >= {-(-self.since // unit_ns)}")
        if self.until is not None:
            parts.append(f"{time} + {width} <= {self.until // unit_ns}" if width else f"{time} < {self.until}")
        return " AND ".join(parts)

    def windows(self, candles: Iterable[Candle], width: int) -> dict[tuple[str, str, int], Candle]:
        """The candles that lie wholly within the scope."""
        return {
            (c.exchange, c.symbol, c.window_start): c
            for c in candles
            if (self.since is None or c.window_start * 1_000_000_000 >= self.since)
            and (self.until is None or (c.window_start + width) * 1_000_000_000 <= self.until)
        }


class Sums(NamedTuple):
    """What the fields of a counter's trades add up to: a difference in any time, side or source shows."""

    exchange_ts: int = 0
    recv_ts: int = 0
    buys: int = 0
    backfilled: int = 0

    def plus(self, trade: Trade) -> "Sums":
        return Sums(
            self.exchange_ts + trade.exchange_ts,
            self.recv_ts + trade.recv_ts,
            self.buys + (trade.side == "buy"),
            self.backfilled + (trade.source == "backfill"),
        )


class Stored(NamedTuple):
    """What the store has of one counter. `rows` less the number of `ids` is how many stand there twice."""

    ids: Islands
    rows: int
    sums: Sums


NOTHING = Stored(Islands(), 0, Sums())


class LogSide:
    """The log's trades and gap ledger up to a point, which `read` moves on."""

    def __init__(self, log: Log, scope: Scope) -> None:
        self._log = log
        self.scope = scope
        self.streams = {trades_stream(exchange): exchange for exchange in scope.exchanges}
        self.positions = {stream: log.bounds(stream)[0] for stream in (*self.streams, GAPS_STREAM)}
        self.starts = dict(self.positions)
        self.builder = CandleBuilder(60)
        self.ids: dict[Counter, Islands] = {}
        self.sums: dict[Counter, Sums] = {}
        self.duplicates: dict[Counter, int] = {}
        self.ledger: dict[tuple[str, str, int, int], Gap] = {}
        self._first_live: dict[Counter, int] = {}
        self._whole = {exchange for stream, exchange in self.streams.items() if self.starts[stream] == 0}

    def floor(self, counter: Counter) -> int:
        """The id from which on the log still has all that was ever captured of a counter; 0: it has everything.

        What was back-filled may lie before it: the log has it because it came late.
        """
        if self.from_beginning(counter[0]):
            return 0
        return self._first_live.get(counter) or (self.builder.present(*counter).last or 0) + 1

    def floors(self, exchange: str) -> dict[Counter, int]:
        """The floor of every counter of an exchange that the log has trades of."""
        return {} if self.from_beginning(exchange) else {c: self.floor(c) for c in self.ids if c[0] == exchange}

    def from_beginning(self, exchange: str) -> bool:
        """The log still has the exchange's first trade."""
        return exchange in self._whole

    def states(self) -> dict[tuple[str, str, int, int], tuple[str, int]]:
        """State and last id of every gap, by exchange, symbol, epoch and first id."""
        return {key: (gap.state, gap.last_id) for key, gap in self.ledger.items()}

    def ends(self) -> dict[str, int]:
        return {stream: self._log.bounds(stream)[1] for stream in self.positions}

    def read(self, ends: Mapping[str, int]) -> list[Trade]:
        """Take in everything before `ends`. Returns the new trades in scope, in the log's order. Raises LogError."""
        found: list[Trade] = []
        for stream, end in ends.items():
            while self.positions[stream] < end:
                batches = self._log.read(stream, self.positions[stream])
                if not batches:
                    break
                for batch in batches:
                    if batch.offset >= end:
                        break
                    values = batch.values[: max(0, end - batch.offset)]
                    self.positions[stream] = batch.offset + len(values)
                    if stream == GAPS_STREAM:
                        self._take_gaps(values)
                    else:
                        self._take_trades(values, found)
        return found

    def _take_gaps(self, values: Iterable[bytes]) -> None:
        for value in values:
            gap = decode_gap(value)
            if gap.exchange in self.scope.exchanges and self.scope.symbol in (None, gap.symbol):
                self.ledger[gap.exchange, gap.symbol, gap.epoch, gap.first_id] = gap

    def _take_trades(self, values: Iterable[bytes], found: list[Trade]) -> None:
        for value in values:
            trade = decode_trade(value)
            if self.scope.symbol not in (None, trade.symbol):
                continue
            counter = (trade.exchange, trade.symbol, trade.epoch)
            if trade.source == "live":
                self._first_live.setdefault(counter, trade.trade_id)
            if not self.scope.covers(trade):
                self.builder.present(*counter).add(trade.trade_id)
            elif self.builder.add(trade):
                self.ids.setdefault(counter, Islands()).add(trade.trade_id)
                if trade.trade_id >= self.floor(counter):
                    self.sums[counter] = self.sums.get(counter, Sums()).plus(trade)
                found.append(trade)
            else:
                self.duplicates[counter] = self.duplicates.get(counter, 0) + 1


def stored_trades(store: Store, scope: Scope, exchange: str, floors: Mapping[Counter, int]) -> dict[Counter, Stored]:
    """The ids of every counter of an exchange, hot and cold as one. Raises StoreError.

    The sums are over the ids from the counter's floor on.
    """
    summed = _from_floor(floors)
    condition = scope.condition(exchange, "toUnixTimestamp64Nano(exchange_ts)")
    found: dict[Counter, Stored] = {}
    for row in store.rows(
        f"SELECT symbol, epoch, intDiv(trade_id, {BLOCK}) AS block, count(), groupBitmap(toUInt64(trade_id)),"
        f" min(trade_id), max(trade_id), toString(sumIf(toInt256(toUnixTimestamp64Nano(exchange_ts)), {summed})),"
        f" toString(sumIf(toInt256(toUnixTimestamp64Nano(recv_ts)), {summed})), countIf(side = 'buy' AND {summed}),"
        f" countIf(source = 'backfill' AND {summed})"
        f" FROM k2.trades WHERE {condition} GROUP BY symbol, epoch, block ORDER BY symbol, epoch, block"
    ):
        symbol, epoch, block, count, distinct, first, last = row[:7]
        sums = [int(number) for number in row[7:]]
        counter = (exchange, str(symbol), int(epoch))
        ids, rows, before = found.get(counter) or Stored(Islands(), 0, Sums())
        if distinct == last - first + 1:
            ids.add_range(first, last)
        else:
            for (number,) in store.rows(
                f"SELECT DISTINCT trade_id FROM k2.trades WHERE {condition} AND symbol = '{symbol}'"
                f" AND epoch = {epoch} AND trade_id >= {block * BLOCK} AND trade_id < {(block + 1) * BLOCK}"
                " ORDER BY trade_id"
            ):
                ids.add(number)
        found[counter] = Stored(ids, rows + count, Sums(*(a + b for a, b in zip(before, sums, strict=True))))
    return found


def _from_floor(floors: Mapping[Counter, int]) -> str:
    """SQL: is the trade's id at or past its counter's floor?"""
    if not floors:
        return "1"
    names = ", ".join(f"'{symbol}/{epoch}'" for _, symbol, epoch in floors)
    firsts = ", ".join(f"toInt64({first})" for first in floors.values())
    return f"trade_id >= transform(concat(symbol, '/', toString(epoch)), [{names}], [{firsts}], toInt64(0))"


def stored_candles(store: Store, scope: Scope, exchange: str, interval: str, width: int) -> list[Candle]:
    """The candles of an exchange as the view of `interval` (`width` seconds) shows them. Raises StoreError."""
    return [
        _candle(row)
        for row in store.rows(
            "SELECT exchange, symbol, toUnixTimestamp(window_start), toString(open), toString(high), toString(low),"
            " toString(close), toString(volume), toString(quote_volume), toString(buy_volume), toString(vwap),"
            f" trade_count, first_trade_id, last_trade_id, complete FROM k2.ohlcv_{interval}"
            f" WHERE {scope.condition(exchange, 'toUnixTimestamp(window_start)', 1_000_000_000, width)}"
        )
    ]


def _candle(row: tuple[Any, ...]) -> Candle:
    exchange, symbol, start = row[:3]
    open_, high, low, close, volume, quote_volume, buy_volume, vwap = map(Decimal, row[3:11])
    count, first, last, complete = map(int, row[11:])
    return Candle(
        exchange,
        symbol,
        int(start),
        open_,
        high,
        low,
        close,
        volume,
        quote_volume,
        buy_volume,
        vwap,
        count,
        first,
        last,
        bool(complete),
    )


def stored_gaps(store: Store, scope: Scope) -> dict[tuple[str, str, int, int], tuple[str, int]]:
    """State and last id of every gap of the ledger, as the store has it. Raises StoreError."""
    return {
        (exchange, symbol, int(epoch), int(first)): (state, int(last))
        for exchange, symbol, epoch, first, last, state in store.rows(
            "SELECT exchange, symbol, epoch, first_id, last_id, state FROM k2.gaps"
        )
        if exchange in scope.exchanges and scope.symbol in (None, symbol)
    }
