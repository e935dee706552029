"""The offload of a million trades from the log to Iceberg, against PyIceberg appending the same rows from memory.

A log of three exchanges' trades is archived into an empty cold tier, in a process of its own; by turns, PyIceberg alone
appends the same rows of all tables, which it has in memory, to new ones, in as many commits. Then: runs with nothing
new, frames, compaction, and the candles of one day and symbol over what was compacted.
"""

import shutil
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from k2.config import Config
from k2.core.codec import encode_frames, frames_stream
from k2.core.types import Frame
from k2.log import Entry
from k2.ops.bench import Outcome, Picture
from k2.ops.bench.history_market import MIDNIGHT_NS, SECOND_NS, History
from k2.ops.bench.history_runs import run as run_child
from k2.ops.bench.lab import Lab
from k2.ops.bench.material import records
from k2.ops.bench.samples import middle, spread
from k2.ops.report import Check, at_least, at_most, below, equal
from k2.wire import open_log, read_heads

TRADES_TARGET, FLOOR_TARGET, COMPACTION_TARGET = 400_000, 0.5, 1_000_000
MEMORY_MB, BYTES_A_TRADE, IDLE_MS, QUERY_MS = 600, 14, 300, 150
HEAR_WITHIN = 600
FRAMES_AT_ONCE = 4_000
SOURCE_TABLE = "cold_trades"
LARGEST = f"SELECT exchange, symbol FROM {SOURCE_TABLE} GROUP BY exchange, symbol ORDER BY count() DESC LIMIT 1"
CANDLES = (
    "SELECT toStartOfMinute(exchange_ts) AS minute, argMin(price, (epoch, trade_id)), max(price), min(price),"
    " argMax(price, (epoch, trade_id)), sum(quantity), count() FROM {} WHERE exchange = '{}' AND symbol = '{}'"
    " AND exchange_ts >= {} AND exchange_ts < {} GROUP BY minute ORDER BY minute"
)


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    trades: Annotated[int, Meta(description="Trades in the log.")] = 1_000_000
    hours: Annotated[float, Meta(description="Time in which they were made; a sixteenth lies before midnight.")] = 2.0
    rounds: Annotated[int, Meta(description="Offloads, and appends of the floor, by turns.")] = 5
    idle_runs: Annotated[int, Meta(description="Runs of `k2 archive` with nothing new.")] = 10
    frames: Annotated[int, Meta(description="Frames of a log that holds nothing else; 0: none.")] = 500_000
    compaction_files: Annotated[int, Meta(description="Slices that compaction finds; 0: neither it nor a query.")] = 48
    compaction_trades: Annotated[
        int, Meta(description="Trades of a log of its own, as large as a day's, to compact; 0: only the first log's.")
    ] = 5_000_000
    queries: Annotated[int, Meta(description="Candle queries over the compacted table.")] = 20
    seed: Annotated[int, Meta(description="Seed of the trades.")] = 1


def run(lab: Lab, parameters: Parameters) -> Outcome:
    """Measure."""
    config = lab.config("archive")
    logged, trades = _fill(lab, config, parameters)
    offloads, floors = _turns(lab, config, parameters)
    in_cold = read_heads(config)["trades"].rows
    idle = [run_child(lab, config, ["archive", "--json"]) for _ in range(parameters.idle_runs)]
    results = _offload_results(offloads, floors, trades)
    results |= {
        "records": logged,
        "trades": trades,
        "missing": trades - in_cold,
        "nothing_new_ms": spread([one.seconds for one in idle], 1e3, 1),
        "nothing_new_failed": sum(not one.ok for one in idle),
    }
    if parameters.compaction_files:
        results |= _compacted(lab, parameters, trades)
    if parameters.frames:
        results["frames"] = _frames(lab, parameters)
    raw = {"offload s": [one["seconds"] for one in offloads], "floor s": [one["seconds"] for one in floors]}
    return Outcome({**results, **lab.place()}, _checks(results), _pictures(results), raw)


def _fill(lab: Lab, config: Config, parameters: Parameters) -> tuple[int, int]:
    """Records and trades that the log then has."""
    history = History(
        parameters.trades, parameters.hours, parameters.hours * 60 / 8, parameters.seed, config.instruments_file
    )
    log = open_log(config)
    try:
        logged = sum(history.append(log, slice_) for slice_ in range(history.slices))
    finally:
        log.close()
    lab.say(f"{logged:,} records in the log, of {history.truth.trades:,} trades")
    return logged, history.truth.trades


def _turns(lab: Lab, config: Config, parameters: Parameters) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    floor = lab.partner("k2.ops.bench.archive_worker", config=config)
    offloads: list[Mapping[str, Any]] = []
    floors: list[Mapping[str, Any]] = []
    for number in range(parameters.rounds):
        shutil.rmtree(config.cold_dir, ignore_errors=True)
        offloads.append(_job(lab, config, "offload"))
        if not number:
            floor.tell({"job": "load"})
            floor.hear(HEAR_WITHIN)
        floor.tell({"job": "append"})
        floors.append(floor.hear(HEAR_WITHIN))
        lab.say(f"round {number + 1}: {offloads[-1]['seconds']:.2f} s, floor {floors[-1]['seconds']:.2f} s")
    lab.stop(floor)
    return offloads, floors


def _job(lab: Lab, config: Config, job: str) -> Mapping[str, Any]:
    """One job in a fresh process."""
    worker = lab.partner("k2.ops.bench.archive_worker", config=config)
    worker.tell({"job": job})
    answer = worker.hear(HEAR_WITHIN)
    lab.stop(worker)
    return answer


def _offload_results(
    offloads: Sequence[Mapping[str, Any]], floors: Sequence[Mapping[str, Any]], trades: int
) -> dict[str, Any]:
    seconds, floor = (middle([one["seconds"] for one in kind], 4) for kind in (offloads, floors))
    written = offloads[-1]["tables"]["trades"]
    return {
        "trades_per_s": round(trades / seconds),
        "floor_per_s": round(trades / floor),
        "over_floor": round(floor / seconds, 3),
        "duplicates": written["duplicates"],
        "commits": written["commits"],
        "bytes_per_trade": round(written["bytes"] / written["rows"], 2),
        "floor_bytes_per_trade": round(floors[-1]["bytes"] / trades, 2),
        "peak_mb": max(one["peak"] for one in offloads) >> 20,
    }


# -- beside the offload ------------------------------------------------------------------------------------------------


def _compacted(lab: Lab, parameters: Parameters, trades: int) -> dict[str, Any]:
    """Of the same log, archived in small slices, and a query over the result; then of a larger log."""
    config = lab.config("archive", tier={"slice_rows": max(1, trades // parameters.compaction_files)})
    shutil.rmtree(config.cold_dir)
    compaction = _compaction(lab, config)
    results = {"compaction": compaction, "candles": _candles(lab, config, parameters.queries)}
    if parameters.compaction_trades:
        count = parameters.compaction_trades
        config = lab.config("compaction", tier={"slice_rows": max(1, count // parameters.compaction_files)})
        hours = parameters.hours * count / parameters.trades
        _fill(lab, config, msgspec.structs.replace(parameters, trades=count, hours=hours))
        results |= {"compaction": _compaction(lab, config), "compaction_of_little": compaction}
    return results


def _compaction(lab: Lab, config: Config) -> dict[str, Any]:
    _job(lab, config, "offload")
    done = _job(lab, config, "compact")
    lab.say(f"compaction: {done['rows']:,} rows in {done['seconds']:.2f} s")
    return {
        "rows_per_s": round(done["rows"] / done["seconds"]),
        "rows": done["rows"],
        "files_in": done["files_in"],
        "files_out": done["files_out"],
        "bytes_per_trade": round(done["bytes"] / done["rows"], 2),
        "peak_mb": done["peak"] >> 20,
    }


def _candles(lab: Lab, config: Config, queries: int) -> dict[str, Any]:
    reader = lab.partner("k2.ops.bench.cold_reader", str(lab.folder / "reader"))
    reader.hear(60)
    reader.tell({"tables": {SOURCE_TABLE: read_heads(config)["trades"].metadata_location}})
    reader.hear(60)
    reader.tell({"sql": LARGEST})
    exchange, symbol = reader.hear(HEAR_WITHIN)["rows"][0]
    start = MIDNIGHT_NS // SECOND_NS
    reader.tell({"sql": CANDLES.format(SOURCE_TABLE, exchange, symbol, start, start + 86_400), "times": queries})
    answer = reader.hear(HEAR_WITHIN)
    lab.stop(reader)
    return {
        "symbol": f"{exchange} {symbol}",
        "trades": sum(int(row[-1]) for row in answer["rows"]),
        "candles": len(answer["rows"]),
        "ms": spread(answer["seconds"], 1e3, 1),
    }


def _frames(lab: Lab, parameters: Parameters) -> dict[str, Any]:
    """The offload of frames alone, of the size of a trade's record."""
    config = lab.config("frames")
    _, values = records(min(parameters.frames, FRAMES_AT_ONCE))
    log = open_log(config)
    size = 0
    try:
        for first in range(0, parameters.frames, FRAMES_AT_ONCE):
            part = values[: parameters.frames - first]
            made = encode_frames(
                Frame(MIDNIGHT_NS + (first + n) * 100_000, "ws", "c1", "", v) for n, v in enumerate(part)
            )
            log.append([Entry(frames_stream("binance"), [""] * len(made), made)])
            size += sum(map(len, made))
    finally:
        log.close()
    done = _job(lab, config, "offload")
    written = done["tables"]["frames"]
    lab.say(f"frames: {written['rows']:,} in {done['seconds']:.2f} s")
    return {
        "frames_per_s": round(written["rows"] / done["seconds"]),
        "mb_per_s": round(size / done["seconds"] / 1e6, 1),
        "missing": parameters.frames - written["rows"],
        "bytes_per_frame": round(written["bytes"] / written["rows"], 1),
        "peak_mb": done["peak"] >> 20,
    }


# -- figures -----------------------------------------------------------------------------------------------------------


def _checks(results: Mapping[str, Any]) -> list[Check]:
    checks = [
        at_least("trades a second", results["trades_per_s"], TRADES_TARGET, "1/s"),
        at_least("rate over its floor", results["over_floor"], FLOOR_TARGET, "x"),
        at_most("resident memory", results["peak_mb"], MEMORY_MB, "MB"),
        at_most("bytes a trade", results["bytes_per_trade"], BYTES_A_TRADE, "B"),
        below("nothing new (p50)", results["nothing_new_ms"].get("p50"), IDLE_MS, "ms"),
        equal("runs with nothing new that failed", results["nothing_new_failed"], 0),
        equal("trades of the log that are not in cold", results["missing"], 0),
    ]
    if "compaction" in results:
        compaction = results["compaction"]
        checks += [
            at_least("rows a second compacted", compaction["rows_per_s"], COMPACTION_TARGET, "1/s"),
            at_most("resident memory of compaction", compaction["peak_mb"], MEMORY_MB, "MB"),
            below("one day's candles of one symbol (p50)", results["candles"]["ms"]["p50"], QUERY_MS, "ms"),
        ]
    if "frames" in results:
        checks.append(equal("frames of the log that are not in cold", results["frames"]["missing"], 0))
    return checks


def _pictures(results: Mapping[str, Any]) -> list[Picture]:
    names = ("trades_per_s", "floor_per_s", "over_floor", "bytes_per_trade", "floor_bytes_per_trade", "peak_mb")
    pictures = [
        Picture(
            "Offload (medians)",
            ("trades/s", "floor", "ratio", "bytes/trade", "floor", "RSS MB", "nothing new ms"),
            [[*(results[name] for name in names), results["nothing_new_ms"].get("p50")]],
        )
    ]
    if "compaction" in results:
        compaction, candles = results["compaction"], results["candles"]
        pictures += [
            Picture(
                "Compaction",
                [name.replace("_", " ") for name in compaction],
                [list(results[name].values()) for name in ("compaction", "compaction_of_little") if name in results],
            ),
            Picture(
                "One day's candles of one symbol",
                ("symbol", "trades", "p50 ms", "p99 ms"),
                [[candles["symbol"], candles["trades"], candles["ms"]["p50"], candles["ms"]["p99"]]],
            ),
        ]
    if "frames" in results:
        frames = results["frames"]
        pictures.append(Picture("Frames", [name.replace("_", " ") for name in frames], [list(frames.values())]))
    return pictures
