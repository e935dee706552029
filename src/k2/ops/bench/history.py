"""Days of history offloaded in slices with kills at random, maintained, audited, and compared with what was made.

Trades of three exchanges go into a real log, 15 minutes of them at a time, late ones, repeated ones and lost ones among
them. After each slice `k2 archive` runs in a child; some of the children are killed with SIGKILL at a random moment and
then run again, as a scheduler would. Each day's end has its `k2 archive maintain`, killed likewise. In the end
`k2 archive audit` holds the cold tables to the log, and ClickHouse's engine adds up what they hold, to be compared with
what the generator has added up itself.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from k2.ops.bench import Outcome, Picture
from k2.ops.bench.history_market import MIDNIGHT_NS, SECOND_NS
from k2.ops.bench.history_runs import Run
from k2.ops.bench.history_runs import run as run_child
from k2.ops.bench.history_story import Parameters, Story
from k2.ops.bench.history_truth import FRAMES_SQL, GAPS_SQL, TRADES_SQL, Difference, compare
from k2.ops.bench.lab import Lab, Process
from k2.ops.bench.samples import middle, spread
from k2.ops.report import Check, at_most, below, equal
from k2.wire import read_heads

MEMORY_MB = 600
IDLE_MS = 300
QUERY_MS = 150
IDLE_RUNS = 5
QUERIES = 20
CLOSED = """
SELECT window_start, open, high, low, close, volume, quote_volume + quote_volume_rest, trade_count
FROM cold_ohlcv_1m WHERE exchange = '{}' AND symbol = '{}' AND window_start >= {} AND window_start < {}
ORDER BY window_start"""
FROM_TRADES = """
SELECT toStartOfMinute(exchange_ts) AS minute, argMin(price, (epoch, trade_id)), max(price), min(price),
    argMax(price, (epoch, trade_id)), sum(quantity), sum(toDecimal256(price, 18) * quantity), count()
FROM cold_trades WHERE exchange = '{}' AND symbol = '{}' AND exchange_ts >= {} AND exchange_ts < {}
GROUP BY minute ORDER BY minute"""


def run(lab: Lab, parameters: Parameters) -> Outcome:
    """Measure."""
    story = Story(lab, parameters)
    try:
        story.play()
    finally:
        story.log.close()
    idle = [run_child(lab, story.config, ["archive", "--json"]) for _ in range(IDLE_RUNS)]
    audit = run_child(lab, story.config, ["archive", "audit", "--json"])
    lab.say(f"audit: exit code {audit.code} after {audit.seconds:.1f} s")
    reader = _reader(lab, story)
    difference = _difference(reader, story)
    queries = _candles(reader, story)
    lab.stop(reader)
    results = _results(story, idle, audit, difference, queries)
    return Outcome({**results, **lab.place()}, _checks(results), _pictures(results), _raw(story))


# -- what cold holds, by an engine that shares nothing with K2 ---------------------------------------------------------


def _reader(lab: Lab, story: Story) -> Process:
    reader = lab.partner("k2.ops.bench.cold_reader", str(lab.folder / "reader"))
    reader.hear(60)
    heads = read_heads(story.config)
    names = ("trades", "frames", "gaps", "ohlcv_1m")
    reader.tell({"tables": {f"cold_{name}": heads[name].metadata_location for name in names}})
    reader.hear(60)
    return reader


def _asked(reader: Process, sql: str, times: int = 1) -> dict[str, Any]:
    reader.tell({"sql": sql, "times": times})
    return reader.hear(900)


def _difference(reader: Process, story: Story) -> Difference:
    truth = story.history.truth
    trades: list[Any] = []
    for exchange in sorted({exchange for exchange, _, _ in truth.counters}):
        trades += _asked(reader, TRADES_SQL.format(exchange=exchange))["rows"]
    found = compare(truth, trades, _asked(reader, FRAMES_SQL)["rows"], _asked(reader, GAPS_SQL)["rows"])
    for line in found.different[:10]:
        story.lab.say(f"differs: {line}")
    return found


def _candles(reader: Process, story: Story) -> dict[str, Any]:
    """Times of one day's candles of one symbol, the largest and the median one: as the closed day has them, and added
    up from its trades."""
    counters = story.history.truth.counters
    ordered = sorted((key for key in counters if not key[2]), key=lambda key: counters[key].trades)
    start = MIDNIGHT_NS // SECOND_NS
    found: dict[str, Any] = {}
    for size, (exchange, symbol, _) in (("largest", ordered[-1]), ("median", ordered[len(ordered) // 2])):
        for source, sql in (("closed", CLOSED), ("trades", FROM_TRADES)):
            answer = _asked(reader, sql.format(exchange, symbol, start, start + 86_400), QUERIES)
            found[f"{size}_{source}"] = {
                "symbol": f"{exchange} {symbol}",
                "source": f"cold.{'ohlcv_1m' if source == 'closed' else 'trades'}",
                "candles": len(answer["rows"]),
                "trades": sum(int(row[-1]) for row in answer["rows"]),
                "ms": spread(answer["seconds"], 1e3, 1),
            }
        for one in (found[f"{size}_closed"], found[f"{size}_trades"]):
            story.lab.say(f"one day's candles of {one['symbol']} from {one['source']}: {one['ms']['p50']} ms (p50)")
    return found


# -- figures -----------------------------------------------------------------------------------------------------------


def _results(
    story: Story, idle: Sequence[Run], audit: Run, difference: Difference, queries: Mapping[str, Any]
) -> dict[str, Any]:
    truth, offloads = story.history.truth, story.offloads
    whole = [one.seconds for one in story.whole()]
    quarter = max(1, len(whole) // 4)
    spent = sum(one.seconds for one in offloads)
    rows = [
        (f"k2 {name}", runs) for name, runs in
        (("archive", offloads), ("archive, nothing new", idle), ("archive maintain", story.maintenances),
         ("archive audit", [audit]))
    ]  # fmt: skip
    return {
        "trades": truth.trades,
        "records": story.records,
        "late": truth.late,
        "logged_again": truth.again,
        "ids_never_had": truth.lost,
        "slices": story.history.slices,
        "generated_per_s": round(story.records / story.generated_s),
        "kills": {
            "archive": dict(Counter(one.step for one in offloads if one.step)),
            "maintain": dict(Counter(one.step for one in story.maintenances if one.step)),
        },
        "offload_s": spread(whole),
        "offload_s_first_quarter": middle(whole[:quarter]),
        "offload_s_last_quarter": middle(whole[-quarter:]),
        "offload_trades_per_s": round(truth.trades / spent),
        "nothing_new_ms": spread([one.seconds for one in idle], 1e3, 1),
        "maintenance": story.upkeep,
        "audit": {
            "exit_code": audit.code,
            "seconds": round(audit.seconds, 3),
            "records_per_s": round(story.records / audit.seconds),
            "said": audit.said if audit.ok else audit.words,
        },
        "processes": [
            {
                "process": name,
                "runs": len(runs),
                "peak_mb": max(one.peak for one in runs) >> 20,
                "own_mb": max(one.own for one in runs) >> 20,
            }
            for name, runs in rows
        ],
        "lost": difference.lost,
        "doubled": difference.doubled,
        "different": difference.different[:20],
        "candles": dict(queries),
        "cold": story.shape(),
    }


def _checks(results: Mapping[str, Any]) -> list[Check]:
    peak = {row["process"]: row["peak_mb"] for row in results["processes"]}
    own = {row["process"]: row["own_mb"] for row in results["processes"]}
    return [
        equal("trades lost", results["lost"], 0),
        equal("trades twice", results["doubled"], 0),
        equal("counters whose content differs", len(results["different"]), 0),
        equal("audit's exit code", results["audit"]["exit_code"], 0),
        at_most("resident memory of k2 archive", peak["k2 archive"], MEMORY_MB, "MB"),
        at_most("resident memory of k2 archive maintain", peak["k2 archive maintain"], MEMORY_MB, "MB"),
        at_most("own memory of k2 archive audit", own["k2 archive audit"], MEMORY_MB, "MB"),
        below("nothing new (p50)", results["nothing_new_ms"]["p50"], IDLE_MS, "ms"),
        below(
            "one day's candles of the largest symbol (p50)",
            results["candles"]["largest_closed"]["ms"]["p50"],
            QUERY_MS,
            "ms",
        ),
        equal(
            "trades in those candles less trades",
            results["candles"]["largest_closed"]["trades"] - results["candles"]["largest_trades"]["trades"],
            0,
        ),
    ]


def _pictures(results: Mapping[str, Any]) -> list[Picture]:
    steps = sorted({step for kills in results["kills"].values() for step in kills})
    kills = [[step, *(results["kills"][name].get(step, 0) for name in ("archive", "maintain"))] for step in steps]
    upkeep = [list(row.values()) for row in results["maintenance"]]
    audit, processes = results["audit"], results["processes"]
    return [
        Picture(
            "History",
            ("trades", "late", "logged again", "never had", "offload s p50", "p99", "trades/s", "audit s", "records/s"),
            [[results["trades"], results["late"], results["logged_again"], results["ids_never_had"],
              results["offload_s"]["p50"], results["offload_s"]["p99"], results["offload_trades_per_s"],
              audit["seconds"], audit["records_per_s"]]],
        ),
        Picture("Killed", ("where", "archive", "maintain"), kills),
        Picture("Maintenance", tuple(name.replace("_", " ") for name in results["maintenance"][0]), upkeep),
        Picture("Processes", ("process", "runs", "RSS MB", "own MB"), [list(one.values()) for one in processes]),
        Picture(
            "One day's candles of one symbol", ("symbol", "from", "trades", "p50 ms", "p99 ms"),
            [[one["symbol"], one["source"], one["trades"], one["ms"]["p50"], one["ms"]["p99"]]
             for one in results["candles"].values()],
        ),
    ]  # fmt: skip


def _raw(story: Story) -> dict[str, Sequence[Any]]:
    return {
        f"{title}: {name}": [getattr(one, name) for one in runs]
        for title, runs in (("archive", story.offloads), ("maintain", story.maintenances))
        for name in ("seconds", "peak", "own", "step")
    }
