"""The store over HTTP against the same statements straight in chDB: what its server and client add.

By turns, the same statement goes to `k2 store` over HTTP and to chDB in a process of its own, on the same schema and
rows.
"""

import time
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from k2.ops.bench import Outcome, Picture
from k2.ops.bench.lab import Lab, Process
from k2.ops.bench.material import SYMBOLS, body, columns
from k2.ops.bench.samples import spread
from k2.ops.report import equal
from k2.store import Store
from k2.wire import open_store

FIRST_DAY, DAY = 1_767_225_600, 86_400  # 2026-01-01 UTC, in seconds
CANDLES = (
    "INSERT INTO k2.ohlcv_1m_base (exchange, symbol, window_start, open, high, low, close, volume, quote_volume, "
    "buy_volume, trade_count, first_epoch, first_trade_id, last_epoch, last_trade_id, apart, generation) "
    f"SELECT 'binance', {list(SYMBOLS)}[number %% {len(SYMBOLS)} + 1], "
    f"toDateTime({FIRST_DAY} + intDiv(number, {len(SYMBOLS)}) * 60, 'UTC'), 61000.5, 61010.25, 60990.75, 61001.5, "
    "12.5, 762518.75, 6.25, 60, 0, number * 60 + 1, 0, number * 60 + 60, 0, 1 FROM numbers(%d)"
)
ONE_DAY = (
    "SELECT window_start, open, high, low, close, volume, vwap, trade_count, complete FROM k2.ohlcv_1m "
    "WHERE exchange = 'binance' AND symbol = 'BTC-USDT' AND window_start >= toDateTime(%d, 'UTC') "
    "AND window_start < toDateTime(%d, 'UTC') ORDER BY window_start"
)
SMALL_ROWS = 10


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rounds: Annotated[int, Meta(description="Turns of each kind.")] = 5
    selects: Annotated[int, Meta(description="`SELECT 1` a turn.")] = 200
    inserts: Annotated[int, Meta(description=f"Inserts of {SMALL_ROWS} rows a turn.")] = 100
    large_inserts: Annotated[int, Meta(description="Large inserts a turn.")] = 2
    large_rows: Annotated[int, Meta(description="Rows of a large insert.")] = 100_000
    candles: Annotated[int, Meta(description="Queries of one day's candles of one symbol a turn.")] = 20
    days: Annotated[int, Meta(description="Days of candles that the store holds.")] = 7


class Job(NamedTuple):
    """A statement, how often it runs a turn, and the rows of its data if it is an INSERT."""

    title: str
    sql: str
    times: int
    rows: int = 0


def run(lab: Lab, parameters: Parameters) -> Outcome:
    """Measure."""
    config = lab.config("store")
    server = lab.k2(config, "store", ["store"])
    lab.ready(config, server)
    store = open_store(config)
    floor = lab.partner("k2.ops.bench.store_floor", str(lab.folder / "floor"))
    floor.hear(60)
    floor.tell({"migrate": True})
    floor.hear(60)
    try:
        _prepare(store, floor, parameters)
        last_day = FIRST_DAY + (parameters.days - 1) * DAY
        large = parameters.large_rows
        jobs = (
            Job("SELECT 1", "SELECT 1", parameters.selects),
            Job(f"insert {SMALL_ROWS} rows, Memory", "INSERT INTO bench.tail", parameters.inserts, SMALL_ROWS),
            Job(f"insert {large:,} rows, MergeTree", "INSERT INTO bench.silver", parameters.large_inserts, large),
            Job("one day's candles of one symbol", ONE_DAY % (last_day, last_day + DAY), parameters.candles),
        )
        taken = {job: _turns(lab, store, floor, job, parameters.rounds) for job in jobs}
        counts = {side: _rows(side, store, floor) for side in ("store", "floor")}
    finally:
        store.close()
        lab.stop(server, floor)
    rows = [_row(job, *taken[job]) for job in jobs]
    columns_ = ("statement", "p50 ms", "p99 ms", "chDB p50", "chDB p99", "ratio", "adds ms")
    cells = [[r["statement"], r["http_ms"]["p50"], r["http_ms"]["p99"], r["chdb_ms"]["p50"], r["chdb_ms"]["p99"],
              r["ratio"], r["adds_ms"]] for r in rows]  # fmt: skip
    wanted = parameters.rounds * (parameters.inserts * SMALL_ROWS + parameters.large_inserts * large)
    checks = [equal(f"rows that arrived: {side}", count, wanted) for side, count in counts.items()]
    raw = {
        f"{job.title}: {kind} s": samples
        for job in jobs
        for kind, samples in zip(("http", "chdb"), taken[job], strict=True)
    }
    return Outcome(
        {"statements": rows, **lab.place()}, checks, [Picture("Over HTTP and straight", columns_, cells)], raw
    )


def _prepare(store: Store, floor: Process, parameters: Parameters) -> None:
    statements = (
        "CREATE DATABASE bench",
        columns("bench.tail") + " ENGINE = Memory",
        columns("bench.silver") + " ENGINE = MergeTree ORDER BY (exchange, symbol, trade_id)",
        CANDLES % (parameters.days * 1440 * len(SYMBOLS)),
    )
    for sql in statements:
        store.execute(sql)
        floor.tell({"sql": sql})
        floor.hear(60)


def _turns(lab: Lab, store: Store, floor: Process, job: Job, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of every run over HTTP and straight."""
    ours: list[float] = []
    straight: list[float] = []
    for number in range(rounds):
        start = number * job.times * job.rows
        ours += _over_http(store, job, start)
        floor.tell({"sql": job.sql, "times": job.times, "rows": job.rows, "start": start})
        straight += floor.hear(300)["seconds"]
    lab.say(f"{job.title}: {spread(ours, 1e3)['p50']} ms over HTTP, {spread(straight, 1e3)['p50']} ms straight")
    return ours, straight


def _over_http(store: Store, job: Job, start: int) -> list[float]:
    seconds = []
    for number in range(job.times):
        data = body(job.rows, start + number * job.rows) if job.rows else b""
        began = time.perf_counter()
        if job.rows:
            store.insert(f"{job.sql} FORMAT JSONEachRow", data)
        else:
            b"".join(store.stream(job.sql, "TabSeparated"))
        seconds.append(time.perf_counter() - began)
    return seconds


def _rows(side: str, store: Store, floor: Process) -> int:
    """Rows of both tables."""
    sql = "SELECT (SELECT count() FROM bench.tail) + (SELECT count() FROM bench.silver)"
    if side == "store":
        return int(store.rows(sql)[0][0])
    floor.tell({"sql": sql})
    return int(floor.hear(60)["answer"])


def _row(job: Job, ours: Sequence[float], straight: Sequence[float]) -> dict[str, Any]:
    http, chdb = spread(ours, 1e3), spread(straight, 1e3)
    return {
        "statement": job.title,
        "http_ms": http,
        "chdb_ms": chdb,
        "ratio": round(http["p50"] / chdb["p50"], 3),
        "adds_ms": round(http["p50"] - chdb["p50"], 3),
    }
