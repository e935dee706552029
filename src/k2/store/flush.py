"""Making a generation final: its trades into MergeTree, candles anew, frames and gap events, and then the commit."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from k2.core.codec import FRAME_STRUCTURE, GAPS_STREAM, frames_stream
from k2.log import Batch, Log
from k2.store import Store
from k2.store.commit import fence
from k2.store.seen import Identity

MINUTE = 60_000_000_000
INPUT_BYTES = 8 << 20  # of frames in one insert
TRADE_COLUMNS = "exchange, symbol, native_symbol, trade_id, price, quantity, side, {times}, source, epoch, generation"
AS_IN_BASE = TRADE_COLUMNS.format(times="exchange_ts, recv_ts")
FROM_TAIL = TRADE_COLUMNS.format(
    times="fromUnixTimestamp64Nano(exchange_ts, 'UTC'), fromUnixTimestamp64Nano(recv_ts, 'UTC')"
)
GAP_STRUCTURE = (
    "exchange String, symbol String, first_id Int64, last_id Int64, state String, reason String, event_ts Int64,"
    " detected_ts Int64, missing Array(Tuple(Int64, Int64)), epoch UInt32, position UInt64"
)


class Generation(NamedTuple):
    """What is to become final: `trades` rows are in the base already. Times are exchange times, ns.

    `apart`: every trade whose predecessor is missing. `joined`: trades whose predecessor has come since.
    """

    number: int
    trades: int
    first_ts: int
    last_ts: int
    positions: Mapping[str, int]
    islands: bytes
    apart: list[Identity]
    joined: list[Identity]


class Written(NamedTuple):
    """Where the streams stand after a commit, and the rows written by table."""

    positions: dict[str, int]
    rows: dict[str, int]


def flush(
    store: Store, log: Log, generation: Generation, incarnation: int, exchanges: Iterable[str], max_bytes: int
) -> Written:
    """Complete a generation whose trades are settled; commit it. Raises StoreError (nothing counts then), LogError."""
    rows: dict[str, int] = {}
    positions = dict(generation.positions)
    if generation.trades:
        _candles(store, generation, incarnation)
        rows["silver_trades"] = generation.trades
    for exchange in exchanges:
        rows["bronze_frames"] = rows.get("bronze_frames", 0) + _frames(
            store, log, exchange, positions, generation.number, incarnation, max_bytes
        )
    rows["gaps"] = _gaps(store, log, positions, generation.number, incarnation)
    _commit(store, generation, positions, incarnation)
    return Written(positions, {table: count for table, count in rows.items() if count})


def _times(generation: Generation) -> str:
    """The whole minutes that the generation touches, as a condition on the base: prunes partitions and parts."""
    first = generation.first_ts // MINUTE * MINUTE
    last = (generation.last_ts // MINUTE + 1) * MINUTE
    return (
        f"exchange_ts >= fromUnixTimestamp64Nano(toInt64({first}), 'UTC')"
        f" AND exchange_ts < fromUnixTimestamp64Nano(toInt64({last}), 'UTC')"
    )


def settle(store: Store, source: str, number: int, incarnation: int) -> None:
    """Copy a generation's trades from the tail or the stage into the base."""
    store.execute(
        f"INSERT INTO k2.silver_base ({AS_IN_BASE}) SELECT {FROM_TAIL} FROM {source}"
        f" WHERE generation = {number} AND {fence(incarnation)}"
    )


def _candles(store: Store, generation: Generation, incarnation: int) -> None:
    """Every touched minute anew from all of its trades. Distinct ones: the base holds each identity once."""
    touched = (
        "SELECT DISTINCT exchange, symbol, toStartOfMinute(exchange_ts) FROM k2.silver_base"
        f" WHERE generation = {generation.number} AND {_times(generation)}"
    )
    store.execute(_candles_sql(generation, incarnation, _times(generation), touched))
    if generation.joined:
        touched = (
            "SELECT DISTINCT exchange, symbol, window_start FROM k2.ohlcv_1m_base"
            f" WHERE apart AND (exchange, symbol, first_epoch, first_trade_id) IN ({_tuples(generation.joined)})"
        )
        store.execute(_candles_sql(generation, incarnation, "1", touched))


def _candles_sql(generation: Generation, incarnation: int, times: str, touched: str) -> str:
    apart = f"(exchange, symbol, first.1, first.2) IN ({_tuples(generation.apart)})" if generation.apart else "0"
    return (
        "INSERT INTO k2.ohlcv_1m_base SELECT exchange, symbol, toStartOfMinute(exchange_ts) AS window_start,"
        " argMin(price, (epoch, trade_id)), max(price), min(price), argMax(price, (epoch, trade_id)),"
        " sum(toDecimal256(quantity, 18)), sum(toDecimal256(price, 18) * toDecimal256(quantity, 18)),"
        " sumIf(toDecimal256(quantity, 18), side = 'buy'), count(),"
        " (min((epoch, trade_id)) AS first).1, first.2, (max((epoch, trade_id)) AS last).1, last.2,"
        f" {apart}, {generation.number}"
        f" FROM k2.silver_base WHERE {times} AND {fence(incarnation)}"
        f" AND (exchange, symbol, toStartOfMinute(exchange_ts)) IN ({touched})"
        " GROUP BY exchange, symbol, window_start"
    )


def _tuples(identities: Iterable[Identity]) -> str:
    return ", ".join(f"('{exchange}', '{symbol}', {epoch}, {id_})" for exchange, symbol, epoch, id_ in identities)


def _frames(
    store: Store, log: Log, exchange: str, positions: dict[str, int], number: int, incarnation: int, max_bytes: int
) -> int:
    stream = frames_stream(exchange)
    start = offset = positions.get(stream, 0)
    left = max_bytes
    _, end = log.bounds(stream)  # not chased: frames go on coming
    while offset < end and left > 0:
        batches = log.read(stream, offset, min(left, INPUT_BYTES))
        body = b"".join([b"".join(batch.values) for batch in batches])
        store.insert(
            f"INSERT INTO k2.bronze_base SELECT '{exchange}', {offset} + rowNumberInAllBlocks(),"
            f" fromUnixTimestamp64Nano(recv_ts, 'UTC'), kind, connection, request, payload, {number}"
            f" FROM input('{FRAME_STRUCTURE}') WHERE {fence(incarnation)}"
            " SETTINGS max_threads = 1 FORMAT RowBinary",
            body,
        )
        offset, left = batches[-1].end, left - len(body)
        positions[stream] = offset
    return offset - start


def _gaps(store: Store, log: Log, positions: dict[str, int], number: int, incarnation: int) -> int:
    start = positions.get(GAPS_STREAM, 0)
    batches = log.read(GAPS_STREAM, start)
    if not batches:
        return 0
    store.insert(
        "INSERT INTO k2.gaps_base (exchange, symbol, epoch, first_id, last_id, state, reason, missing, event_ts,"
        " detected_ts, position, generation) SELECT exchange, symbol, epoch, first_id, last_id, state, reason, missing,"
        f" event_ts, detected_ts, position, {number} FROM input('{GAP_STRUCTURE}') WHERE {fence(incarnation)}"
        " FORMAT JSONEachRow",
        b"".join([b'%s,"position":%d}\n' % (value[:-1], i) for batch in batches for i, value in _numbered(batch)]),
    )
    positions[GAPS_STREAM] = batches[-1].end
    return sum(len(batch.values) for batch in batches)


def _numbered(batch: Batch) -> Iterable[tuple[int, bytes]]:
    return enumerate(batch.values, start=batch.offset)


def _commit(store: Store, generation: Generation, positions: Mapping[str, int], incarnation: int) -> None:
    """The commit row, on condition that every trade of the generation stands in the base."""
    entries = ", ".join(f"'{stream}', {offset}" for stream, offset in positions.items())
    times = _times(generation) if generation.trades else "0"
    store.insert(
        "INSERT INTO k2.commits (generation, incarnation, committed_at, positions, islands)"
        f" SELECT {generation.number}, {incarnation}, now64(6), CAST(map({entries}), 'Map(String, UInt64)'), line"
        f" FROM input('line String') WHERE {fence(incarnation)} AND NOT throwIf((SELECT count() FROM k2.silver_base"
        f" WHERE generation = {generation.number} AND {times}) != {generation.trades}, 'trades are missing')"
        " FORMAT LineAsString",
        generation.islands,
    )
