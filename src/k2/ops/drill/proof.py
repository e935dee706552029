"""Was anything lost, is anything there twice? By trade id, every trade that the exchanges made, in every place.

Each place is asked by itself: the log record by record, the hot store and the cold tier by their tables. A trade is
lost in a place if its id is not there, twice if it is there more than once, strange if the exchanges never made it.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from k2.config import EXCHANGES
from k2.core.codec import decode_trade, trades_stream
from k2.core.islands import Islands
from k2.log import Log
from k2.ops.drill.flow import Symbol
from k2.store import Store

BLOCK = 1 << 16


class Place(NamedTuple):
    """What a place holds: the ids by symbol, and how many rows beyond one for each."""

    ids: dict[Symbol, Islands]
    twice: int


class Count(NamedTuple):
    """The trades of one place against the truth. `holes` shows some of what is lost, in words."""

    made: int
    present: int
    lost: int
    twice: int
    strange: int
    holes: list[str]

    @property
    def ok(self) -> bool:
        return not (self.lost or self.twice or self.strange)


def of_log(log: Log, exchanges: Iterable[str] = EXCHANGES) -> Place:
    """What the log's trade streams hold. Raises LogError."""
    ids: dict[Symbol, Islands] = {}
    twice = 0
    for stream in map(trades_stream, exchanges):
        at, end = log.bounds(stream)
        while at < end:
            for batch in log.read(stream, at):
                at = batch.end
                for trade in map(decode_trade, batch.values):
                    known = ids.setdefault((trade.exchange, trade.symbol, trade.epoch), Islands())
                    twice += not known.add(trade.trade_id)
    return Place(ids, twice)


def of_table(store: Store, table: str) -> Place:
    """What a table or view of trades holds, `k2.silver_trades` or `cold.trades`. Raises StoreError."""
    ids: dict[Symbol, Islands] = {}
    twice = 0
    # Ids are dense as a rule: a block of them is two numbers unless something is missing in it.
    blocks = store.rows(
        "SELECT exchange, symbol, epoch, count(), uniqExact(trade_id), min(trade_id), max(trade_id), "
        f"intDiv(trade_id, {BLOCK}) AS block FROM {table} GROUP BY exchange, symbol, epoch, block"
    )
    for exchange, symbol, epoch, rows, distinct, first, last, block in blocks:
        known = ids.setdefault((str(exchange), str(symbol), int(epoch)), Islands())
        twice += int(rows) - int(distinct)
        if int(last) - int(first) + 1 == int(distinct):
            known.add_range(int(first), int(last))
            continue
        here = f"exchange = '{exchange}' AND symbol = '{symbol}' AND epoch = {epoch}"
        here += f" AND intDiv(trade_id, {BLOCK}) = {block}"
        for (trade_id,) in store.rows(f"SELECT DISTINCT trade_id FROM {table} WHERE {here}"):
            known.add(int(trade_id))
    return Place(ids, twice)


def compare(made: Mapping[Symbol, Islands], place: Place) -> Count:
    """Hold a place to the truth."""
    lost, holes = 0, []
    for symbol, ids in sorted(made.items()):
        have = place.ids.get(symbol, Islands())
        for pair in ids.to_list():
            for first, last in have.holes(*pair):
                lost += last - first + 1
                holes.append(f"{symbol[0]} {symbol[1]} {first}..{last}")
    strange = sum(
        last - first + 1
        for symbol, ids in place.ids.items()
        for pair in ids.to_list()
        for first, last in made.get(symbol, Islands()).holes(*pair)
    )
    total = sum(ids.count for ids in made.values())
    present = sum(ids.count for ids in place.ids.values())
    return Count(total, present, lost, place.twice, strange, holes[:10])
