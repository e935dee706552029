"""Durable appends to the log, and how soon another process sees them.

Batches of several sizes are appended to the log and, by turns, the same bytes to LMDB alone (one put a batch, one
durable transaction a batch). Then a process that waits for records is timed from the moment an append has returned.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import lmdb
import msgspec
from msgspec import Meta

from k2.config import Config
from k2.core.codec import trades_stream
from k2.log import Entry, Log
from k2.ops.bench import Outcome, Picture
from k2.ops.bench.lab import Lab
from k2.ops.bench.material import records
from k2.ops.bench.samples import middle, spread
from k2.ops.report import equal
from k2.wire import open_log

STREAM = trades_stream("binance")


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    batches: Annotated[tuple[int, ...], Meta(description="Records an append, one series each.")] = (1, 10, 100, 1000)
    seconds: Annotated[float, Meta(description="Length of one turn.")] = 1.0
    rounds: Annotated[int, Meta(description="Turns of each kind at each size.")] = 5
    wake_ups: Annotated[int, Meta(description="Appends that another process is timed on.")] = 500
    pause_ms: Annotated[float, Meta(description="Time between two of those appends.")] = 4.0


class Turn(msgspec.Struct, frozen=True):
    """Appends of one size, back to back."""

    records: int
    seconds: float
    cpu_seconds: float
    commits: list[float]


class Floor:
    """LMDB alone: the batch's bytes under a running number."""

    def __init__(self, folder: Path) -> None:
        self.environment = lmdb.open(str(folder), map_size=64 << 30)
        self.stored = 0

    def append(self, values: Sequence[bytes]) -> None:
        with self.environment.begin(write=True) as transaction:
            transaction.put(self.stored.to_bytes(8, "big"), b"".join(values), append=True)
        self.stored += len(values)


def run(lab: Lab, parameters: Parameters) -> Outcome:
    """Measure."""
    rows, raw, lost = [], {}, 0
    for size in parameters.batches:
        k2, floor, missing = _turns(lab, parameters, size)
        lost += missing
        row = _row(size, k2, floor)
        rows.append(row)
        raw[f"k2 commit s, batch {size}"] = [sample for turn in k2 for sample in turn.commits]
        raw[f"floor commit s, batch {size}"] = [sample for turn in floor for sample in turn.commits]
        lab.say(f"batch {size}: {row['k2_records_per_s']:,.0f} records/s, floor {row['floor_records_per_s']:,.0f}")
    wake = _wake_ups(lab, parameters)
    raw["wake-up after append s"] = wake
    bell = spread(wake, 1e3)
    lab.say(f"another process has a record {bell['p50']} ms (p50), {bell['p99']} ms (p99) after its append returned")
    columns = ("batch", "records/s", "floor", "ratio", "CPU us/record", "floor", "commit p50 ms", "p99 ms")
    pictures = [
        Picture("Durable appends", columns, [_cells(row) for row in rows]),
        Picture("Seen by another process after the append returned, ms", list(bell), [list(bell.values())]),
    ]
    return Outcome({"appends": rows, "seen_after_append_ms": bell, **lab.place()}, _checks(lost), pictures, raw)


def _checks(lost: int) -> list[Any]:
    return [equal("records appended and not read back", lost, 0)]


def _turns(lab: Lab, parameters: Parameters, size: int) -> tuple[list[Turn], list[Turn], int]:
    """Turns of both kinds, and how many records of the log's do not read back."""
    config = lab.config(f"log-{size}")
    keys, values = records(max(size, 10_000))
    log, floor = open_log(config), Floor(lab.folder / f"floor-{size}")
    entries = [
        [Entry(STREAM, keys[at : at + size], values[at : at + size])] for at in range(0, len(keys) - size + 1, size)
    ]
    k2_turns, floor_turns = [], []
    try:
        for _ in range(parameters.rounds):
            k2_turns.append(_turn(parameters.seconds, size, entries, log.append))
            floor_turns.append(_turn(parameters.seconds, size, entries, lambda batch: floor.append(batch[0].values)))
        appended = sum(turn.records for turn in k2_turns)
        return k2_turns, floor_turns, appended - _readable(log)
    finally:
        log.close()
        floor.environment.close()


def _turn(
    seconds: float, size: int, entries: Sequence[Sequence[Entry]], append: Callable[[Sequence[Entry]], object]
) -> Turn:
    commits: list[float] = []
    cpu, began = time.process_time(), time.perf_counter()
    at = began
    while at - began < seconds:
        append(entries[len(commits) % len(entries)])
        now = time.perf_counter()
        commits.append(now - at)
        at = now
    return Turn(size * len(commits), at - began, time.process_time() - cpu, commits)


def _readable(log: Log) -> int:
    """How many records the stream gives when it is read from its start."""
    at, _ = log.bounds(STREAM)
    count = 0
    while batches := log.read(STREAM, at):
        count += sum(len(batch.values) for batch in batches)
        at = batches[-1].end
    return count


def _row(size: int, k2: Sequence[Turn], floor: Sequence[Turn]) -> dict[str, Any]:
    def rate(turns: Sequence[Turn]) -> float:
        return middle([turn.records / turn.seconds for turn in turns], 0)

    def cpu(turns: Sequence[Turn]) -> float:
        return middle([turn.cpu_seconds / turn.records * 1e6 for turn in turns])

    return {
        "batch": size,
        "k2_records_per_s": rate(k2),
        "floor_records_per_s": rate(floor),
        "ratio": round(rate(k2) / rate(floor), 3),
        "k2_cpu_us_per_record": cpu(k2),
        "floor_cpu_us_per_record": cpu(floor),
        "k2_commit_ms": spread([sample for turn in k2 for sample in turn.commits], 1e3),
        "floor_commit_ms": spread([sample for turn in floor for sample in turn.commits], 1e3),
    }


def _cells(row: dict[str, Any]) -> list[Any]:
    return [
        row["batch"], int(row["k2_records_per_s"]), int(row["floor_records_per_s"]), row["ratio"],
        row["k2_cpu_us_per_record"], row["floor_cpu_us_per_record"],
        row["k2_commit_ms"]["p50"], row["k2_commit_ms"]["p99"],
    ]  # fmt: skip


def _wake_ups(lab: Lab, parameters: Parameters) -> list[float]:
    """Seconds from the return of an append until another process held the record; negative: it was quicker."""
    config: Config = lab.config("wake-ups")
    keys, values = records(1)
    log = open_log(config)
    try:
        log.append([Entry(STREAM, keys, values)])
        waiter = lab.partner("k2.ops.bench.log_waiter", STREAM, str(parameters.wake_ups), config=config)
        waiter.hear(20)
        returned: list[int] = []
        for _ in range(parameters.wake_ups):
            time.sleep(parameters.pause_ms / 1e3)
            log.append([Entry(STREAM, keys, values)])
            returned.append(time.time_ns())
        woke = waiter.hear(20)["woke"]
        lab.stop(waiter)
    finally:
        log.close()
    seen, at = [], 0
    for number, when in enumerate(returned):
        while woke[at][0] < number + 2:
            at += 1
        seen.append((woke[at][1] - when) / 1e9)
    return seen
