"""From a trade's receipt at our socket until it is visible in `silver_trades` and in its candle.

The simulator trades at each rate by the clock, whatever the platform does (open loop), and the loader notes every
single trade's times. At one of the rates the measurement is repeated with a reader, in a process of its own, who asks
the store again and again for each symbol's newest trade and candle: no answer may lack a trade that was noted as
visible before the question. The floor is chDB alone, inserting the batches that the rate gives into a Memory table.
"""

import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from k2.ops.bench import Outcome, Picture
from k2.ops.bench.lab import Lab
from k2.ops.bench.material import columns
from k2.ops.bench.rig import Rig, truth
from k2.ops.bench.samples import spread
from k2.ops.report import Check, at_most, equal

SLOW_TARGET_MS, FAST_TARGET_MS, CANDLE_TARGET_MS = 25.0, 150.0, 50.0
FAST = 1_000  # trades/s from which the target for high rates holds
STAGES = ("exchange → receive", "receive → durable in log", "log → loader", "loader → visible", "receive → visible")


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rates: Annotated[tuple[int, ...], Meta(description="Trades a second, one series each.")] = (50, 250, 500, 20_000)
    seconds: Annotated[float, Meta(description="Length of each series.")] = 30.0
    warm_up: Annotated[float, Meta(description="Seconds at the rate before a series counts.")] = 5.0
    reader_rate: Annotated[int, Meta(description="Trades a second while a reader asks; 0: no reader.")] = 500
    reader_pause_ms: Annotated[float, Meta(description="The reader's pause between two questions.")] = 50.0
    floor_inserts: Annotated[int, Meta(description="Inserts of the floor at each rate.")] = 200


class Times(NamedTuple):
    """One trade's times, ns."""

    exchange: int
    receive: int
    append: int
    read: int
    visible: int

    def stages(self) -> tuple[int, ...]:
        """The time of each of STAGES, ns."""
        return (
            self.receive - self.exchange,
            self.append - self.receive,
            self.read - self.append,
            self.visible - self.read,
            self.visible - self.receive,
        )


class Series(NamedTuple):
    """Trading at one rate: the window of exchange times that counts, ns, and the floor's inserts, ms."""

    rate: int
    since: int
    before: int
    floor: dict[str, float | int]


def run(lab: Lab, parameters: Parameters) -> Outcome:
    """Measure."""
    file = lab.folder / "latency.bin"
    with Rig(lab, "latency", 0, file) as rig:
        played = [_play(lab, rig, parameters, rate) for rate in parameters.rates]
        watched = _watch(lab, rig, parameters) if parameters.reader_rate else None
        data = rig.config.data_dir
    times = noted(file)  # whole only now: the loader has ended
    series = [_figures(one, times, data) for one in played]
    raw: dict[str, Sequence[Any]] = {f"stages ns at {one['rate']}/s": one.pop("samples") for one in series}
    checks = [check for one in series for check in _checks(one)]
    pictures = [_picture(one) for one in series]
    reader = _reader_figures(watched, times) if watched else {}
    if reader:
        raw["candle in a reader's hands ns"] = reader.pop("samples")
        pictures.append(_reader_picture(reader))
        checks += [
            at_most(
                f"receive to visible in its candle at {reader['rate']:,} trades/s, p99",
                reader["visible_ms"].get("p99"),
                CANDLE_TARGET_MS,
                "ms",
            ),
            equal("candles that lacked a trade already called visible", reader["candle_untrue"], 0),
            equal("answers of silver_trades that lacked one", reader["silver_untrue"], 0),
        ]
    return Outcome({"series": series, "reader": reader, **lab.place()}, checks, pictures, raw)


def _play(lab: Lab, rig: Rig, parameters: Parameters, rate: int) -> Series:
    lab.say(f"{rate:,} trades/s for {parameters.seconds:g} s")
    since, before = _trade(rig, parameters, rate)
    rig.drain()
    return Series(rate, since, before, _floor(lab, rig, parameters, rate))


def _figures(series: Series, times: Sequence[Times], data: Path) -> dict[str, Any]:
    """Every trade whose exchange time lies in the window."""
    found = [t.stages() for t in times if series.since <= t.exchange < series.before]
    made = sum(ids.number for ids in truth(data, series.since, series.before).values())
    columns = list(zip(*found, strict=True)) or [()] * len(STAGES)
    stages = {name: spread(column, 1e-6) for name, column in zip(STAGES, columns, strict=True)}
    ours = stages["loader → visible"].get("p50")
    return {
        "rate": series.rate,
        "trades": made,
        "not_noted": made - len(found),
        "stages_ms": stages,
        "floor_insert_ms": series.floor,
        "visible_over_floor": None if ours is None else round(ours / series.floor["p50"], 2),
        "samples": found,
    }


def _trade(rig: Rig, parameters: Parameters, rate: int) -> tuple[int, int]:
    """Trade at a rate; returns the window that counts, in ns."""
    rig.rate(rate)
    time.sleep(parameters.warm_up)
    since = time.time_ns()
    time.sleep(parameters.seconds)
    return since, time.time_ns()


def noted(file: Path) -> list[Times]:
    """What the loader noted of each trade."""
    numbers = array("q")
    content = file.read_bytes()
    numbers.frombytes(content[: len(content) // 40 * 40])
    return [Times(*numbers[at : at + 5]) for at in range(0, len(numbers), 5)]


def _floor(lab: Lab, rig: Rig, parameters: Parameters, rate: int) -> dict[str, float | int]:
    """chDB alone inserting what comes in one of the loader's intervals, ms; the platform stands idle meanwhile."""
    interval = rig.config.loader.interval_ms
    rows = max(1, round(rate * interval / 1e3))
    floor = lab.partner("k2.ops.bench.store_floor", str(lab.folder / f"floor-{rate}"))
    floor.hear(60)
    floor.tell({"sql": columns("tail") + " ENGINE = Memory"})
    floor.hear(60)
    floor.tell({"sql": "INSERT INTO tail", "rows": rows, "times": parameters.floor_inserts, "pause_ms": interval})
    taken = floor.hear(120)["seconds"]
    lab.stop(floor)
    return {"rows": rows, **spread(taken, 1e3)}


def _checks(found: dict[str, Any]) -> list[Check]:
    rate = found["rate"]
    target = FAST_TARGET_MS if rate >= FAST else SLOW_TARGET_MS
    p99 = found["stages_ms"][STAGES[-1]].get("p99")
    return [
        at_most(f"receive to visible at {rate:,} trades/s, p99", p99, target, "ms"),
        equal(f"trades not counted at {rate:,} trades/s", found["not_noted"], 0),
    ]


def _picture(found: dict[str, Any]) -> Picture:
    columns = ("stage, ms", "p50", "p90", "p99", "p99.9", "max")
    rows = [[name, *(figures.get(column) for column in columns[1:])] for name, figures in found["stages_ms"].items()]
    floor = found["floor_insert_ms"]
    rows.append([f"floor: chDB inserts {floor['rows']} rows", *(floor.get(column) for column in columns[1:])])
    return Picture(f"{found['rate']:,} trades/s ({found['trades']:,} trades, every one)", columns, rows)


class Watched(NamedTuple):
    """One more series, with a reader: its answers, and the trades that were stored meanwhile."""

    rate: int
    since: int
    before: int
    answers: list[dict[str, Any]]
    trades: list["Seen"]


def _watch(lab: Lab, rig: Rig, parameters: Parameters) -> Watched:
    rate = parameters.reader_rate
    lab.say(f"{rate:,} trades/s for {parameters.seconds:g} s, with a reader")
    partner = lab.partner("k2.ops.bench.reader", str(parameters.reader_pause_ms), config=rig.config)
    partner.hear(20)
    since, before = _trade(rig, parameters, rate)
    partner.tell({})
    answers = partner.hear(30)["answers"]
    lab.stop(partner)
    rig.drain()
    rows = rig.store.rows(
        "SELECT exchange, symbol, trade_id, toUnixTimestamp64Nano(exchange_ts), toUnixTimestamp64Nano(recv_ts) "
        f"FROM k2.silver_trades WHERE exchange_ts >= fromUnixTimestamp64Nano({since}) "
        f"AND exchange_ts < fromUnixTimestamp64Nano({before}) ORDER BY exchange, symbol, trade_id"
    )
    trades = [Seen(f"{row[0]}:{row[1]}", int(row[2]), int(row[3]), int(row[4])) for row in rows]
    return Watched(rate, since, before, answers, trades)


def _reader_figures(watched: Watched, times: Sequence[Times]) -> dict[str, Any]:
    visible = {(t.exchange, t.receive): t.visible for t in times}
    candle, candle_untrue = judge(watched.trades, [a for a in watched.answers if a["kind"] == "candle"], visible)
    silver, silver_untrue = judge(watched.trades, [a for a in watched.answers if a["kind"] == "silver"], visible)
    noted_ns = [t.visible - t.receive for t in times if watched.since <= t.exchange < watched.before]
    return {
        "rate": watched.rate,
        "questions": len(watched.answers),
        "question_ms": spread([answer["end"] - answer["start"] for answer in watched.answers], 1e-6),
        "visible_ms": spread(noted_ns, 1e-6),
        "candle_in_hand_ms": spread(candle, 1e-6),
        "silver_in_hand_ms": spread(silver, 1e-6),
        "candle_untrue": candle_untrue,
        "silver_untrue": silver_untrue,
        "samples": candle,
    }


class Seen(NamedTuple):
    """A stored trade."""

    market: str
    trade_id: int
    exchange_ts: int
    recv_ts: int


def judge(
    trades: Sequence[Seen], answers: Sequence[dict[str, Any]], visible: dict[tuple[int, int], int]
) -> tuple[list[int], int]:
    """How long from its receipt until each trade was in the reader's hands, in ns; and how often an answer lacked a
    trade that had been noted as visible before the question was asked.

    `trades` ascend by id in each market. An answer: `start` and `end` (ns), `last`: market to the greatest id shown.
    """
    found: list[int] = []
    untrue = 0
    at: dict[str, int] = {}  # the first answer that shows a trade is not before the one that showed the trade before it
    for trade in trades:
        number = at.get(trade.market, 0)
        while number < len(answers) and answers[number]["last"].get(trade.market, -1) < trade.trade_id:
            noted_at = visible.get((trade.exchange_ts, trade.recv_ts))
            untrue += int(noted_at is not None and answers[number]["start"] > noted_at)
            number += 1
        at[trade.market] = number
        if number < len(answers):
            found.append(answers[number]["end"] - trade.recv_ts)
    return found, untrue


def _reader_picture(reader: dict[str, Any]) -> Picture:
    columns = ("with a reader, ms", "p50", "p90", "p99", "p99.9", "max")
    rows = [
        [title, *(reader[key].get(column) for column in columns[1:])]
        for title, key in (
            ("receive → visible, as noted and not refuted", "visible_ms"),
            ("receive → candle in the reader's hands", "candle_in_hand_ms"),
            ("receive → silver in the reader's hands", "silver_in_hand_ms"),
            ("one question", "question_ms"),
        )
    ]
    return Picture(f"{reader['rate']:,} trades/s with a reader ({reader['questions']:,} questions)", columns, rows)
