"""Trades a second from three exchanges' sockets into `silver_trades`, raw frames kept, nothing lost.

The simulator trades by the clock for a minute; the rate counts from its first trade until the last one is visible. What
is stored is compared with the simulator's own truth, symbol by symbol. Before and after, the floors: chDB alone
inserting such rows in batches, and the log alone appending such trades and frames.
"""

import time
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from k2.config import EXCHANGES
from k2.core.codec import encode_frame, frames_stream, trades_stream
from k2.core.types import Frame
from k2.log import Entry
from k2.ops.bench import Outcome, Picture
from k2.ops.bench.lab import Lab
from k2.ops.bench.material import columns, records
from k2.ops.bench.rig import DRAIN_WITHIN, Rig, missing, truth
from k2.ops.report import at_least, equal
from k2.wire import open_log

TARGET = 40_000
LOG_BATCH = 1_000
ORDER = " ENGINE = MergeTree ORDER BY (exchange, symbol, trade_id)"


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rate: Annotated[int, Meta(description="Trades a second that the simulator makes.")] = 42_000
    seconds: Annotated[float, Meta(description="How long.")] = 60.0
    warm_up: Annotated[float, Meta(description="Seconds at a twentieth of the rate before.")] = 3.0
    floor_rows: Annotated[int, Meta(description="Rows of one of the floor's inserts.")] = 50_000
    floor_inserts: Annotated[int, Meta(description="The floor's inserts, before and again after.")] = 5
    floor_seconds: Annotated[float, Meta(description="Appending to the log alone, before and again after.")] = 3.0


class Sample(msgspec.Struct, frozen=True):
    """One look a second."""

    second: float
    made: int
    log_lag: int  # trades made and not yet in the log
    store_lag: int  # trades in the log and not yet settled in the store
    simulator_behind_s: float


def run(lab: Lab, parameters: Parameters) -> Outcome:
    """Measure."""
    floors = [_floors(lab, parameters, "before")]
    with Rig(lab, "throughput", 0) as rig:
        rig.rate(max(1, parameters.rate // 20))
        time.sleep(parameters.warm_up)
        rig.drain()
        results, samples = _sustain(lab, rig, parameters)
        kept = _frames_missing(lab, rig)
        stored, duplicates = rig.stored()
        lost = missing(truth(rig.config.data_dir), stored)
    floors.append(_floors(lab, parameters, "after"))
    results["floors"] = {
        name: round(sum(floor[name] for floor in floors) / len(floors))
        for name in ("store_rows_per_s", "log_trades_per_s")
    }
    results["over_store_floor"] = round(results["trades_per_s"] / results["floors"]["store_rows_per_s"], 3)
    results |= {"lost": lost, "duplicates": duplicates, "frames_missing": kept, **lab.place()}
    checks = [
        at_least("trades a second, first sent to last visible", results["trades_per_s"], TARGET, "1/s"),
        equal("trades lost", lost, 0),
        equal("trades twice", duplicates, 0),
        equal("frames of the log that are not in bronze_frames", kept, 0),
    ]
    return Outcome(results, checks, _pictures(results, samples), {"seconds": [msgspec.to_builtins(s) for s in samples]})


def _sustain(lab: Lab, rig: Rig, parameters: Parameters) -> tuple[dict[str, Any], list[Sample]]:
    before = int(rig.sim("status")["made"])
    cpu = {name: process.cpu() for name, process in rig.processes.items()}
    began = time.monotonic()
    rig.rate(parameters.rate)
    samples: list[Sample] = []
    while (elapsed := time.monotonic() - began) < parameters.seconds:
        time.sleep(min(1.0, parameters.seconds - elapsed))
        samples.append(_look(rig, began))
        if len(samples) % 5 == 0:
            last = samples[-1]
            lab.say(
                f"{last.second:.0f} s: {last.made:,} made, {last.log_lag:,} to the log, {last.store_lag:,} to the store"
            )
    rig.rate(0)
    sent = time.monotonic() - began
    time.sleep(0.05)
    made = int(rig.sim("status")["made"])
    lab.until(lambda: rig.visible() >= made, f"{made:,} trades to be visible", DRAIN_WITHIN, every=0.05)
    seconds = time.monotonic() - began
    used = {name: process.cpu() - cpu[name] for name, process in rig.processes.items()}
    memory = {name: process.memory() for name, process in rig.processes.items()}
    trades = made - before
    return {
        "trades": trades,
        "trades_per_s": round(trades / seconds),
        "sent_for_s": round(sent, 2),
        "last_visible_after_s": round(seconds - sent, 3),
        "store_lag_max": max(sample.store_lag for sample in samples),
        "processes": [
            {
                "process": name,
                "cpu_percent": round(used[name] / seconds * 100, 1),
                "cpu_us_per_trade": round(used[name] / trades * 1e6, 2),
                "rss_mb": memory[name].rss >> 20,
            }
            for name in rig.processes
        ],
    }, samples


def _look(rig: Rig, began: float) -> Sample:
    said = rig.sim("status")
    appended, committed = rig.appended(), rig.committed()
    made = int(said["made"])
    second = round(time.monotonic() - began, 2)
    return Sample(second, made, max(0, made - appended), appended - committed, round(float(said["behind_s"]), 3))


def _frames_missing(lab: Lab, rig: Rig) -> int:
    """How many of the frames that the log holds now never come into `bronze_frames`."""
    ends = {name: rig.log.bounds(frames_stream(name))[1] for name in EXCHANGES}

    def lacking() -> int:
        rows = rig.store.rows("SELECT exchange, uniqExact(position) FROM k2.bronze_frames GROUP BY exchange")
        have = {str(row[0]): int(row[1]) for row in rows}
        return sum(max(0, end - have.get(name, 0)) for name, end in ends.items())

    deadline = time.monotonic() + DRAIN_WITHIN
    while (lacks := lacking()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return lacks


def _floors(lab: Lab, parameters: Parameters, name: str) -> dict[str, float]:
    floor = lab.partner("k2.ops.bench.store_floor", str(lab.folder / f"floor-{name}"))
    floor.hear(60)
    floor.tell({"sql": columns("silver") + ORDER})
    floor.hear(60)
    floor.tell({"sql": "INSERT INTO silver", "rows": parameters.floor_rows, "times": parameters.floor_inserts})
    taken: Sequence[float] = floor.hear(300)["seconds"]
    lab.stop(floor)
    store = parameters.floor_rows * len(taken) / sum(taken)
    log = _log_alone(lab, parameters, name)
    lab.say(f"floors {name}: chDB alone {store:,.0f} rows/s, log alone {log:,.0f} trades/s")
    return {"store_rows_per_s": store, "log_trades_per_s": log}


def _log_alone(lab: Lab, parameters: Parameters, name: str) -> float:
    """Trades a second that one thread appends, each with a frame, a thousand an append."""
    log = open_log(lab.config(f"log-{name}"))
    keys, values = records(LOG_BATCH)
    frames = [encode_frame(Frame(number, "ws", "c1", "", value[:180])) for number, value in enumerate(values)]
    entries = [
        Entry(frames_stream("binance"), [""] * LOG_BATCH, frames),
        Entry(trades_stream("binance"), keys, values),
    ]
    count, began = 0, time.perf_counter()
    try:
        while time.perf_counter() - began < parameters.floor_seconds:
            log.append(entries)
            count += LOG_BATCH
        return count / (time.perf_counter() - began)
    finally:
        log.close()


def _pictures(results: dict[str, Any], samples: Sequence[Sample]) -> list[Picture]:
    processes = results["processes"]
    every = samples[:: max(1, len(samples) // 12)]
    return [
        Picture(
            "Throughput",
            ("trades", "trades/s", "last visible after s", "chDB alone rows/s", "log alone trades/s"),
            [
                [
                    results["trades"],
                    results["trades_per_s"],
                    results["last_visible_after_s"],
                    *results["floors"].values(),
                ]
            ],
        ),
        Picture("Processes", ("process", "CPU %", "us/trade", "RSS MB"), [list(row.values()) for row in processes]),
        Picture(
            "Lag",
            ("second", "made", "not in log", "not settled in store", "simulator behind s"),
            [list(msgspec.to_builtins(sample).values()) for sample in every],
        ),
    ]
