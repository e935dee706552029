"""Each bench end to end, with tiny parameters: structure and counts, never timings."""

import msgspec
import pytest

from k2.config import Config
from k2.ops.bench import find
from k2.ops.bench.lab import Lab


def measure(name, tmp_path, **parameters):
    bench = find(name)
    with Lab(Config(), print, tmp_path) as lab:
        outcome = bench.run(lab, bench.Parameters(**parameters))
    msgspec.json.encode([outcome.results, outcome.raw])
    assert not list(tmp_path.iterdir())
    for picture in outcome.pictures:
        assert all(len(row) == len(picture.columns) for row in picture.rows)
    return outcome.results, {check.name: check for check in outcome.checks}


def test_log(tmp_path):
    results, checks = measure("log", tmp_path, batches=(1, 10), seconds=0.05, rounds=2, wake_ups=20, pause_ms=1.0)
    assert [row["batch"] for row in results["appends"]] == [1, 10]
    assert results["seen_after_append_ms"]["count"] == 20
    assert checks["records appended and not read back"].ok


def test_feed(tmp_path):
    results, checks = measure("feed", tmp_path, rates=(1000,), seconds=0.3, rounds=1, warm_up=0.1)
    assert [play["kind"] for play in results["plays"]] == ["k2", "floor"]
    assert results["rates"][0]["rate"] == 1000
    assert checks["frames lost"].ok


def test_store(tmp_path):
    results, checks = measure(
        "store", tmp_path, rounds=1, selects=2, inserts=2, large_inserts=1, large_rows=1000, candles=1, days=1
    )
    assert len(results["statements"]) == 4
    assert all(check.ok for check in checks.values())


@pytest.mark.slow
def test_latency(tmp_path):
    results, checks = measure(
        "latency",
        tmp_path,
        rates=(100, 300),
        venues=("coinbase", "kraken"),
        seconds=2.0,
        warm_up=1.0,
        reader_seconds=1.5,
    )
    for one in results["series"]:
        assert set(one["venues"]) == {"coinbase", "kraken"}
        assert one["trades"] == sum(venue["trades"] for venue in one["venues"].values()) > 50
        assert {figures["count"] for figures in (*one["segments"].values(), *one["ways"].values())} == {one["trades"]}
        assert one["candle"]["silver_to_candle"]["count"] > 0
        assert one["candle"]["silver_untrue"] == 0
        assert {"store", "loader", "sim", "web", "subscriber"} <= set(one["cores"])
    made = sum(phase["trades"] for one in results["series"] for phase in one["phases"].values())
    assert made == results["proof"]["made"]
    counts = ("lost", "twice", "without a time", "counts otherwise")
    assert all(check.ok for name, check in checks.items() if any(word in name for word in counts)), results


@pytest.mark.slow
def test_throughput(tmp_path):
    results, checks = measure(
        "throughput", tmp_path, rate=2000, seconds=2.0, warm_up=1.0, floor_rows=1000, floor_inserts=1, floor_seconds=0.1
    )
    assert results["trades"] > 1000
    assert checks["trades lost"].ok
    assert checks["trades twice"].ok
    assert checks["frames of the log that are not in bronze_frames"].ok


@pytest.mark.slow
def test_footprint(tmp_path):
    results, _ = measure("footprint", tmp_path, rate=100.0, seconds=2.0, warm_up=1.0, idle_seconds=2.0, settle=1.0)
    names = [process["process"] for process in results["work"]["processes"]]
    assert "sim" not in names
    assert {"store", "loader", "supervisor", "feed-handler-kraken"} <= set(names)
    assert results["made_per_s"] > 50


@pytest.mark.slow
def test_start(tmp_path):
    results, _ = measure("start", tmp_path, rounds=1)
    assert len(results["starts_s"]) == 1


@pytest.mark.slow
def test_history(tmp_path):
    results, checks = measure("history", tmp_path, trades=30_000, hours=1.0, kills=2, maintenance_kills=1)
    assert (results["trades"], results["slices"]) == (30_000, 4)
    assert results["logged_again"] > 0
    assert sum(results["kills"]["archive"].values()) > 0
    assert results["maintenance"][-1]["files_after"] < results["maintenance"][-1]["files_before"]
    assert results["candles"]["largest_trades"]["candles"] == results["candles"]["largest_closed"]["candles"] > 50
    for name in ("trades lost", "trades twice", "counters whose content differs", "audit's exit code"):
        assert checks[name].ok, results


@pytest.mark.slow
def test_archive(tmp_path):
    results, checks = measure(
        "archive",
        tmp_path,
        trades=20_000,
        rounds=2,
        idle_runs=1,
        frames=5_000,
        compaction_files=6,
        compaction_trades=15_000,
        queries=2,
    )
    assert results["trades"] == 20_000
    assert results["duplicates"] > 0
    assert results["compaction"]["files_in"] > results["compaction"]["files_out"] > 0
    assert 10_000 < results["compaction"]["rows"] <= 20_000
    assert 0 < results["candles"]["trades"] < 20_000
    assert checks["trades of the log that are not in cold"].ok
    assert checks["frames of the log that are not in cold"].ok
    assert checks["runs with nothing new that failed"].ok


@pytest.mark.slow
def test_serve(tmp_path):
    results, checks = measure(
        "serve", tmp_path, seconds=1.0, warm_up=0.5, subscribers=3, rate=100, many=5, load=300, days=1, candles=3,
        trades=5_000, rounds=1, loads=1,
    )  # fmt: skip
    page = results["page"]
    assert page["shown_ms"]["count"] == page["candles_ms"]["count"] == 1 if page["browser"] else page["not_measured"]
    assert [one["subscribers"] for one in results["stream"]] == [3, 5]
    assert all(one["latency_ms"]["count"] > 0 for one in results["stream"])
    assert results["candles"]["crowd_ms"]["count"] == 24
    counts = ("lost", "did not follow", "cut off", "lacks")
    assert all(check.ok for name, check in checks.items() if any(word in name for word in counts))
