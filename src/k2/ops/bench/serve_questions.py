"""The HTTP API measured on a store that holds days of candles and many trades, against the same SQL in chDB."""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from k2.ask import Query
from k2.ask.candles import Candles
from k2.ask.question import Question
from k2.ask.trades import Trades
from k2.ops.bench import Picture
from k2.ops.bench.lab import Lab, LabError, Process
from k2.ops.bench.material import FIRST_ID, FIRST_TS, SYMBOLS
from k2.ops.bench.samples import spread
from k2.ops.bench.store import CANDLES, DAY, FIRST_DAY
from k2.ops.report import Check, at_most, equal
from k2.store.rows import literal
from k2.wire import open_store

ALONE_TARGET_MS, CROWD_TARGET_MS, RATIO_TARGET = 8.0, 40.0, 3.0
ARROW_TARGET_S, GROWTH_TARGET_MB = 1.5, 64.0
_TRADES = (
    "INSERT INTO k2.silver_base (exchange, symbol, native_symbol, trade_id, price, quantity, side, exchange_ts,"
    " recv_ts, source, epoch, generation) SELECT 'binance', 'BTC-USDT', 'BTCUSDT', {first} + number,"
    " toDecimal128(61000 + number * 7919 % 997, 18), toDecimal128(number * 31 % 99991 + 1, 18) / 100000,"
    " if(number % 2, 'buy', 'sell'), fromUnixTimestamp64Nano(toInt64({at} + number * {apart})),"
    " fromUnixTimestamp64Nano(toInt64({at} + number * {apart} + 800000)), 'live', 0, 1 FROM numbers({count})"
)
_COMMIT = (
    "INSERT INTO k2.commits (generation, incarnation, committed_at, positions, islands) VALUES (1, 1, now64(6), {}, '')"
)
_CROWD = 8


class Found(NamedTuple):
    results: dict[str, Any]
    checks: list[Check]
    pictures: list[Picture]


class Sides(NamedTuple):
    """The API's clients, and chDB alone with the same rows."""

    web: Process
    asker: Process
    floor: Process


def measure(lab: Lab, days: int, times: int, trades: int, rounds: int) -> Found:
    """Fill a store and its floor alike, and ask both by turns."""
    config = lab.config("questions", web={"rate_per_s": 0.0})
    store, web = lab.k2(config, "store", ["store"]), lab.k2(config, "web", ["web"])
    lab.ready(config, store, web)
    floor = lab.partner("k2.ops.bench.store_floor", str(lab.folder / "floor"))
    asker = lab.partner("k2.ops.bench.serve_asker", config.web.host, str(config.web.port))
    for partner in (floor, asker):
        partner.hear(60)
    floor.tell({"migrate": True})
    floor.hear(60)
    client = open_store(config)
    apart = DAY * 10**9 // trades
    try:
        for sql in (
            CANDLES % (days * 1440 * len(SYMBOLS)),
            _TRADES.format(first=FIRST_ID, at=FIRST_TS, apart=apart, count=trades),
            _COMMIT,
        ):
            client.execute(sql)
            floor.tell({"sql": sql})
            floor.hear(120)
    finally:
        client.close()
    sides = Sides(web, asker, floor)
    candles = _candles(lab, sides, days, times, rounds)
    arrow = _arrow(lab, sides, trades, rounds)
    lab.stop(asker, floor, web, store)
    return Found(
        {"candles": candles, "arrow": arrow},
        _checks(candles, arrow),
        [_candles_picture(candles), _arrow_picture(arrow)],
    )


def _candles(lab: Lab, sides: Sides, days: int, times: int, rounds: int) -> dict[str, Any]:
    first = FIRST_DAY + (days - 1) * DAY
    question = Candles(
        interval="1m", exchange=("binance",), symbol=("BTC-USDT",), from_=str(first * 10**9), limit=1440,
        to=str((first + DAY) * 10**9),
    )  # fmt: skip
    path = f"/v1/candles/1m?exchange=binance&symbol=BTC-USDT&from={question.from_}&to={question.to}&limit=1440"
    sql = _written_out(question)
    alone: list[float] = []
    crowd: list[float] = []
    straight: list[float] = []
    for _ in range(rounds):
        alone += _ask(sides.asker, path, 1, times)
        straight += _straight(sides.floor, sql, times)
        crowd += _ask(sides.asker, path, _CROWD, times)
    one, floor = spread(alone, 1e3), spread(straight, 1e3)
    lab.say(f"a day's candles: {one['p50']} ms over HTTP, {floor['p50']} ms straight")
    return {
        "alone_ms": one,
        "crowd_ms": spread(crowd, 1e3),
        "clients": _CROWD,
        "chdb_ms": floor,
        "ratio": round(one["p50"] / floor["p50"], 2),
    }


def _arrow(lab: Lab, sides: Sides, trades: int, rounds: int) -> dict[str, Any]:
    end = FIRST_TS + DAY * 10**9
    path = f"/v1/trades?exchange=binance&symbol=BTC-USDT&from={FIRST_TS}&to={end}&limit=0&format=arrow"
    sql = _written_out(Trades(exchange=("binance",), symbol=("BTC-USDT",), from_=str(FIRST_TS), to=str(end), limit=0))
    seconds: list[float] = []
    straight: list[float] = []
    size = 0
    before = sides.web.memory().rss
    for _ in range(rounds):
        answer = _answer(sides.asker, path, 1, 1)
        seconds += answer["seconds"]
        size = answer["bytes"]
        straight += _straight(sides.floor, sql, 1, "ArrowStream")
    grown = _peak(sides.web.child.pid) - before
    lab.say(f"{trades:,} trades as Arrow: {spread(seconds)['p50']} s")
    sides.asker.tell({"rows": path})
    held = sides.asker.hear(120)
    return {
        "trades": trades,
        "lacking": abs(trades - held["rows"]) + abs(held["rows"] - held["different"]),
        "bytes": size,
        "seconds": spread(seconds),
        "chdb_seconds": spread(straight),
        "web_grew_mb": round(grown / 1e6, 1),
    }


def _written_out(question: Question) -> str:
    """The SQL that the web asks for it, with its parameters in it."""
    query: Query = question.query(time.time_ns())
    params: Mapping[str, Any] = query.params
    return re.sub(r"\{(\w+):((?:[^{}])+)\}", lambda m: f"CAST({literal(params[m[1]])} AS {m[2]})", query.sql)


def _answer(asker: Process, path: str, clients: int, times: int) -> dict[str, Any]:
    asker.tell({"path": path, "clients": clients, "times": times})
    answer = asker.hear(600)
    if answer["status"] != [200]:
        raise LabError(f"{path} was answered with {answer['status']}")
    return answer


def _ask(asker: Process, path: str, clients: int, times: int) -> list[float]:
    seconds: list[float] = _answer(asker, path, clients, times)["seconds"]
    return seconds


def _straight(floor: Process, sql: str, times: int, fmt: str = "JSONEachRow") -> list[float]:
    floor.tell({"sql": sql, "times": times, "fmt": fmt})
    seconds: list[float] = floor.hear(600)["seconds"]
    return seconds


def _peak(pid: int) -> int:
    """The most memory that was ever resident, bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise LabError("the system does not tell a process's peak memory")


def _checks(candles: dict[str, Any], arrow: dict[str, Any]) -> list[Check]:
    return [
        at_most("a day's candles over HTTP, p50", candles["alone_ms"]["p50"], ALONE_TARGET_MS, "ms"),
        at_most("a day's candles: times the same SQL straight in chDB", candles["ratio"], RATIO_TARGET, "times"),
        at_most(f"a day's candles, {candles['clients']} clients at once, p99", candles["crowd_ms"]["p99"],
                CROWD_TARGET_MS, "ms"),
        at_most(f"{arrow['trades']:,} trades as Arrow", arrow["seconds"]["p50"], ARROW_TARGET_S, "s"),
        at_most("growth of the web's memory meanwhile", arrow["web_grew_mb"], GROWTH_TARGET_MB, "MB"),
        equal("trades that the Arrow stream lacks, or has twice", arrow["lacking"], 0),
    ]  # fmt: skip


def _candles_picture(candles: dict[str, Any]) -> Picture:
    columns = ("a day's candles, ms", "p50", "p90", "p99", "p99.9", "max")
    named = (
        ("HTTP, one client", "alone_ms"),
        (f"HTTP, {candles['clients']} clients", "crowd_ms"),
        ("floor: the same SQL in chDB", "chdb_ms"),
    )
    rows = [[title, *(candles[key].get(column) for column in columns[1:])] for title, key in named]
    return Picture("GET /v1/candles/1m, one symbol", columns, rows)


def _arrow_picture(arrow: dict[str, Any]) -> Picture:
    ours, floor = arrow["seconds"], arrow["chdb_seconds"]
    rows = [
        ["HTTP", ours["p50"], ours["max"], round(arrow["bytes"] / 1e6, 1), arrow["web_grew_mb"]],
        ["floor: chDB", floor["p50"], floor["max"], None, None],
    ]
    columns = ("trades as Arrow, s", "p50", "max", "MB", "web grew, MB")
    return Picture(f"GET /v1/trades, {arrow['trades']:,} trades", columns, rows)
