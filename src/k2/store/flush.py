"""Making a generation final: its trades into MergeTree, candles anew, frames and gap events, and then the commit."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from k2.core.codec import FRAME_STRUCTURE, GAPS_STREAM, frames_stream
from k2.log import Batch, Log
from k2.store import Store
from k2.store.candles import Touched, write_candles
from k2.store.commit import fence
from k2.store.seam import Seam
from k2.store.seen import Identity

INPUT_BYTES = 4 << 20  # of one exchange's frames in one insert
FRAMES_BYTES = 64 << 20  # of frames in one generation
TRADE_COLUMNS = "exchange, symbol, native_symbol, trade_id, price, quantity, side, {times}, source, epoch"
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

    `number` covers all that was put into the tail past `after`, the generation sealed before.
    `apart`: every trade whose predecessor is missing. `joined`: trades whose predecessor has come since.
    """

    after: int
    number: int
    trades: int
    first_ts: int
    last_ts: int
    positions: Mapping[str, int]
    islands: bytes
    apart: list[Identity]
    joined: list[Identity]

    @property
    def touched(self) -> Touched:
        return Touched(self.number, self.first_ts, self.last_ts, self.apart, self.joined)


class Written(NamedTuple):
    """Where the streams stand after a commit, the rows written by table, and whether candles are due still."""

    positions: dict[str, int]
    rows: dict[str, int]
    due: bool


def flush(
    store: Store,
    log: Log,
    generation: Generation,
    incarnation: int,
    exchanges: Sequence[str],
    seam: Seam,
    due: bool = False,
) -> Written:
    """Complete a generation whose trades are settled; commit it. Raises StoreError (nothing counts then), LogError.

    `seam` and `due`: see `candles.write_candles`; raises `SeamMoved` if the seam no longer holds.
    """
    rows: dict[str, int] = {}
    positions = dict(generation.positions)
    if generation.trades:
        due = write_candles(store, generation.touched, incarnation, seam, due)
        rows["silver_trades"] = generation.trades
    rows["bronze_frames"] = _frames(store, log, exchanges, generation.number, positions, incarnation)
    rows["gaps"] = _gaps(store, log, positions, generation.number, incarnation)
    _commit(store, generation, positions, incarnation)
    return Written(positions, {table: count for table, count in rows.items() if count}, due)


def settle(store: Store, source: str, after: int, number: int, incarnation: int) -> None:
    """Copy the trades past `after` up to `number` from memory or the stage into the base, as generation `number`."""
    store.execute(
        f"INSERT INTO k2.silver_base ({AS_IN_BASE}, generation) SELECT {FROM_TAIL}, {number} FROM {source}"
        f" WHERE generation > {after} AND generation <= {number} AND {fence(incarnation)}"
    )


def _frames(
    store: Store, log: Log, exchanges: Iterable[str], generation: int, positions: dict[str, int], incarnation: int
) -> int:
    """The frames that every raw stream holds now, at most FRAMES_BYTES of them. What comes meanwhile is not chased."""
    ends = {exchange: log.bounds(frames_stream(exchange))[1] for exchange in exchanges}
    written = size = 0
    while size < FRAMES_BYTES:
        runs: list[tuple[str, list[Batch]]] = []
        for exchange, end in ends.items():
            stream = frames_stream(exchange)
            offset = positions.get(stream, 0)
            if offset < end and (batches := log.read(stream, offset, INPUT_BYTES)):
                runs.append((exchange, batches))
                positions[stream] = batches[-1].end
        if not runs:
            break
        body = b"".join([value for _, batches in runs for batch in batches for value in batch.values])
        store.insert(_frames_sql(runs, generation, incarnation), body)
        size += len(body)
        written += sum(len(batch.values) for _, batches in runs for batch in batches)
    return written


def _frames_sql(runs: list[tuple[str, list[Batch]]], generation: int, incarnation: int) -> str:
    """Frames as they stand in the log, one run after the other; exchange and position follow from a row's place."""
    row, exchanges, positions = 0, [], []
    for exchange, batches in runs:
        first, end = batches[0].offset, batches[-1].end
        row += end - first
        exchanges.append(f"row < {row}, '{exchange}'")
        positions.append(f"row < {row}, toInt64({end - row})")
    return (
        "INSERT INTO k2.bronze_base (exchange, position, recv_ts, kind, connection, request, payload, generation)"
        f" SELECT multiIf({', '.join(exchanges)}, ''), row + multiIf({', '.join(positions)}, toInt64(0)),"
        f" fromUnixTimestamp64Nano(recv_ts, 'UTC'), kind, connection, request, payload, {generation}"
        " FROM (SELECT toInt64(rowNumberInAllBlocks()) AS row, recv_ts, kind, connection, request, payload"
        f" FROM input('{FRAME_STRUCTURE}')) WHERE {fence(incarnation)}"
        " SETTINGS max_threads = 1 FORMAT RowBinary"
    )


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
    """The commit row, on condition that it came whole and that every trade of the generation stands in the base."""
    entries = ", ".join(f"'{stream}', {offset}" for stream, offset in positions.items())
    times = generation.touched.times if generation.trades else "0"
    store.insert(
        "INSERT INTO k2.commits (generation, incarnation, committed_at, positions, islands)"
        f" SELECT {generation.number}, {incarnation}, now64(6), CAST(map({entries}), 'Map(String, UInt64)'), line"
        f" FROM input('line String') WHERE {fence(incarnation)} AND NOT throwIf((SELECT count() FROM k2.silver_base"
        f" WHERE generation = {generation.number} AND {times}) != {generation.trades}, 'trades are missing')"
        f" AND NOT throwIf(length(line) != {len(generation.islands)}, 'the commit came in part') FORMAT LineAsString",
        generation.islands,
    )
