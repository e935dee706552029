"""One-minute candles: every minute that a generation touches, anew from all of its trades.

Minutes whose trades were handed over to the cold tier are computed from what is left of them in hot and from cold. If
cold cannot be read just then, they are put down as due, and are computed with a later generation: hot goes on without.
"""

import logging
from typing import Any, NamedTuple

import msgspec

from k2.store import Store, StoreError, StoreUnavailable
from k2.store import seam as seams
from k2.store.commit import THROWN, fence
from k2.store.rows import literal
from k2.store.seam import Seam
from k2.store.seen import Identity
from k2.store.tail import keep_after

logger = logging.getLogger("k2.loader")

MINUTE = 60_000_000_000
MARKS = "k2.marks"
DUE = (
    "SELECT exchange, symbol, window_start FROM k2.candles_due GROUP BY exchange, symbol, window_start"
    " HAVING argMax(done, (generation, done)) = 0"
)


class Touched(NamedTuple):
    """The trades of generation `number` that are in the base. Times are exchange times, ns.

    `apart`: every trade whose predecessor is missing. `joined`: trades whose predecessor has come since.
    """

    number: int
    first_ts: int
    last_ts: int
    apart: list[Identity]
    joined: list[Identity]

    @property
    def times(self) -> str:
        """The whole minutes that the generation touches, as a condition on the base: prunes partitions and parts."""
        first = self.first_ts // MINUTE * MINUTE
        last = (self.last_ts // MINUTE + 1) * MINUTE
        return (
            f"exchange_ts >= fromUnixTimestamp64Nano(toInt64({first}), 'UTC')"
            f" AND exchange_ts < fromUnixTimestamp64Nano(toInt64({last}), 'UTC')"
        )


def write_candles(store: Store, touched: Touched, incarnation: int, seam: Seam, due: bool) -> bool:
    """Write the candles of a generation. Distinct trades: the base holds each identity once.

    `due`: minutes may be due from before. Returns whether some are now. Raises SeamMoved if `seam` no longer holds,
    StoreError.
    """
    try:
        return _write(store, touched, incarnation, seam, due)
    except StoreError as error:
        if error.code == THROWN and seams.MOVED in str(error):
            raise seams.SeamMoved(str(error), THROWN) from None
        raise


def _write(store: Store, touched: Touched, incarnation: int, seam: Seam, due: bool) -> bool:
    if touched.apart or touched.joined:
        mark(store, touched, incarnation)
    guard = f"{fence(incarnation)} AND {seams.fence(seam.version)}"
    hot = f" AND NOT {seam.contains('exchange_ts')}" if touched.first_ts < seam.end else ""
    times = touched.times + hot
    store.execute(_insert(touched, "k2.silver_base", f"{times} AND {guard}", _minutes(touched, times)))
    if touched.joined:
        hot = f" AND NOT {seam.contains('window_start', 0)}" if seam.ranges else ""
        store.execute(_insert(touched, "k2.silver_base", guard, _joined(touched) + hot))
    if not seam.ranges or not (due or touched.joined or touched.first_ts < seam.end):
        return due
    return _past(store, touched, incarnation, seam, guard)


def mark(store: Store, touched: Touched, incarnation: int) -> None:
    """Tell the generation's candles which trades are apart or joined. Their number has no bound: they go as data."""
    marks = [(1, touched.apart), (0, touched.joined)]
    keep_after(store, MARKS, touched.number, incarnation)
    store.insert(
        f"INSERT INTO {MARKS} FORMAT JSONCompactEachRow",
        b"\n".join(
            msgspec.json.encode((*identity, apart, touched.number)) for apart, them in marks for identity in them
        ),
    )


def _marked(touched: Touched, apart: int) -> str:
    return (
        f"SELECT exchange, symbol, epoch, trade_id FROM {MARKS} WHERE generation = {touched.number} AND apart = {apart}"
    )


def _minutes(touched: Touched, condition: str) -> str:
    return (
        "SELECT DISTINCT exchange, symbol, toStartOfMinute(exchange_ts) AS window_start FROM k2.silver_base"
        f" WHERE generation = {touched.number} AND {condition}"
    )


def _joined(touched: Touched) -> str:
    return (
        "SELECT DISTINCT exchange, symbol, window_start FROM k2.ohlcv_1m_base"
        f" WHERE apart AND (exchange, symbol, first_epoch, first_trade_id) IN ({_marked(touched, apart=0)})"
    )


def _insert(touched: Touched, source: str, condition: str, minutes: str) -> str:
    return recompute(
        touched, source, f"{condition} AND (exchange, symbol, toStartOfMinute(exchange_ts)) IN ({minutes})"
    )


def recompute(touched: Touched, source: str, condition: str) -> str:
    """The statement that writes the candles of all minutes of the distinct trades in `source` that meet `condition`,
    which must not cut a minute in two. Trades that `mark` told of begin a candle that does not join the one before."""
    apart = f"(exchange, symbol, first.1, first.2) IN ({_marked(touched, apart=1)})" if touched.apart else "0"
    return (
        "INSERT INTO k2.ohlcv_1m_base SELECT exchange, symbol, toStartOfMinute(exchange_ts) AS window_start,"
        " argMin(price, (epoch, trade_id)), max(price), min(price), argMax(price, (epoch, trade_id)),"
        " sum(toDecimal256(quantity, 18)), sum(toDecimal256(price, 18) * toDecimal256(quantity, 18)),"
        " sumIf(toDecimal256(quantity, 18), side = 'buy'), count(),"
        " (min((epoch, trade_id)) AS first).1, first.2, (max((epoch, trade_id)) AS last).1, last.2,"
        f" {apart}, {touched.number}"
        f" FROM {source} WHERE {condition} GROUP BY exchange, symbol, window_start"
    )


# -- minutes that were handed over -------------------------------------------------------------------------------------


def _past(store: Store, touched: Touched, incarnation: int, seam: Seam, guard: str) -> bool:
    within = seam.contains("window_start", 0)
    minutes = _minutes(touched, f"{touched.times} AND {seam.contains('exchange_ts')}")
    if touched.joined:
        minutes += f" UNION DISTINCT {_joined(touched)} AND {within}"
    minutes += f" UNION DISTINCT SELECT exchange, symbol, window_start FROM ({DUE}) WHERE {within}"
    spans = store.rows(
        "SELECT exchange, symbol, toUnixTimestamp(min(window_start)), toUnixTimestamp(max(window_start)) + 60"
        f" FROM ({minutes}) GROUP BY exchange, symbol"
    )
    if not spans:
        return False
    try:
        store.execute(_insert(touched, "k2.past_trades", f"({' OR '.join(map(_span, spans))}) AND {guard}", minutes))
    except StoreUnavailable:
        raise
    except StoreError as error:
        if error.code == THROWN:
            raise
        logger.warning("candles of minutes that the cold tier holds are due until it can be read: %s", error)
        store.execute(_put_down(touched, minutes, incarnation, done=0))
        return True
    store.execute(_put_down(touched, minutes, incarnation, done=1))
    return False


def _span(span: tuple[Any, ...]) -> str:
    """What of the cold tier has to be read for one symbol."""
    exchange, symbol, first, end = span
    times = seams.within([(first * 1_000_000_000, end * 1_000_000_000)], "exchange_ts")
    return f"(exchange = {literal(exchange)} AND symbol = {literal(symbol)} AND {times})"


def _put_down(touched: Touched, minutes: str, incarnation: int, done: int) -> str:
    """Settled minutes are put down only if they had been due."""
    known = f" AND (exchange, symbol, window_start) IN ({DUE})" if done else ""
    return (
        f"INSERT INTO k2.candles_due SELECT exchange, symbol, window_start, {touched.number}, {done} FROM ({minutes})"
        f" WHERE {fence(incarnation)}{known}"
    )
