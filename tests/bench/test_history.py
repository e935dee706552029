"""The generated history: what it logs, what it says it logged, and whether a difference would be seen."""

from collections import Counter

import pytest

from k2.config import EXCHANGES, Config
from k2.core.codec import (
    GAPS_STREAM,
    decode_frame,
    decode_gap,
    decode_trade,
    encode_trade,
    frames_stream,
    trades_stream,
)
from k2.core.islands import Islands
from k2.core.types import Gap, Trade
from k2.log import Log
from k2.log.memory import MemoryLog
from k2.ops.bench.history_market import History
from k2.ops.bench.history_runs import Trace, _step
from k2.ops.bench.history_truth import ID_MARKS, Truth, compare
from k2.tier.heads import Head

TRADES = 30_000


@pytest.fixture(scope="module")
def logged() -> tuple[Log, Truth]:
    log = MemoryLog()
    history = History(TRADES, 2.0, 15.0, 7, Config().instruments_file)
    for number in range(history.slices):
        history.append(log, number)
    return log, history.truth


def values(log: Log, stream: str) -> list[bytes]:
    found: list[bytes] = []
    while batches := log.read(stream, len(found)):
        found += [value for batch in batches for value in batch.values]
    return found


def every(log: Log) -> list[Trade]:
    return [decode_trade(value) for name in EXCHANGES for value in values(log, trades_stream(name))]


def distinct(log: Log) -> dict[tuple[str, str, int, int], Trade]:
    found: dict[tuple[str, str, int, int], Trade] = {}
    for one in every(log):
        found.setdefault((one.exchange, one.symbol, one.epoch, one.trade_id), one)
    return found


def rows(log: Log) -> list[list[object]]:
    """What a cold table of this log answers."""
    found: dict[tuple[str, str, int], list[Trade]] = {}
    for one in distinct(log).values():
        found.setdefault((one.exchange, one.symbol, one.epoch), []).append(one)
    return [
        [
            *counter, len(group), len(group), sum(t.trade_id for t in group), exact([t.price for t in group]),
            exact([t.price for t in group], [t.trade_id % ID_MARKS for t in group]),
            exact([t.quantity for t in group]), sum(t.exchange_ts for t in group), sum(t.recv_ts for t in group),
            sum(t.side == "buy" for t in group), sum(t.source == "backfill" for t in group),
        ]
        for counter, group in found.items()
    ]  # fmt: skip


def exact(texts: list[str], times: list[int] | None = None) -> str:
    """The sum of decimals with all places, as ClickHouse's `toDecimalString` prints it."""
    total = 0
    for text, factor in zip(texts, times or [1] * len(texts), strict=True):
        whole, _, fraction = text.partition(".")
        total += int(whole + fraction.ljust(18, "0")) * factor
    return f"{total // 10**18}.{total % 10**18:018d}"


def frame_rows(log: Log) -> list[list[object]]:
    found: list[list[object]] = []
    for name in EXCHANGES:
        frames = [decode_frame(value) for value in values(log, frames_stream(name))]
        number, size = len(frames), sum(len(f.payload) for f in frames)
        found.append([name, number, number, size, sum(f.recv_ts for f in frames)])
    return found


def gaps(log: Log) -> list[Gap]:
    return [decode_gap(value) for value in values(log, GAPS_STREAM)]


def test_records_are_the_codecs_own(logged):
    for name in EXCHANGES:
        for value in values(logged[0], trades_stream(name)):
            assert encode_trade(decode_trade(value)) == value


def test_the_truth_is_what_was_logged(logged):
    log, truth = logged
    found = compare(truth, rows(log), frame_rows(log), [[len(gaps(log))] * 2])
    assert not found.different
    assert (found.lost, found.doubled) == (0, 0)
    assert truth.trades == len(distinct(log)) == TRADES


def test_it_holds_what_makes_real_days_hard(logged):
    log, truth = logged
    trades = every(log)
    assert len(trades) == TRADES + truth.again
    assert truth.late > 50
    assert truth.lost > 0
    assert {trade.epoch for trade in trades} == {0, 1}
    assert {trade.source for trade in trades} == {"live", "backfill"}
    assert len({trade.symbol for trade in trades}) > 20
    assert len({trade.exchange_ts // 86_400_000_000_000 for trade in trades}) == 2
    assert {len(trade.price.partition(".")[2]) for trade in trades} >= {1, 2, 4, 5, 6, 7, 8}
    assert {gap.state for gap in gaps(log)} == {"start", "open", "healed", "unavailable", "epoch"}


def test_the_gap_ledger_excuses_every_id_that_is_absent(logged):
    log, _ = logged
    ids: dict[tuple[str, str, int], Islands] = {}
    for exchange, symbol, epoch, trade_id in distinct(log):
        ids.setdefault((exchange, symbol, epoch), Islands()).add(trade_id)
    latest = {(gap.exchange, gap.symbol, gap.epoch, gap.first_id): gap for gap in gaps(log)}
    assert "open" not in Counter(gap.state for gap in latest.values())
    for (exchange, symbol, epoch), present in ids.items():
        ranges = present.to_list()
        for first, last in present.holes(ranges[0][0], ranges[-1][1]):
            excuses = [
                gap for gap in latest.values()
                if (gap.exchange, gap.symbol, gap.epoch, gap.state) == (exchange, symbol, epoch, "unavailable")
            ]  # fmt: skip
            excused = Islands((gap.first_id, gap.last_id) for gap in excuses)
            assert not excused.holes(first, last)


def test_the_same_seed_gives_the_same_history():
    def made(seed: int) -> list[bytes]:
        log, history = MemoryLog(), History(2_000, 1.0, 30.0, seed, Config().instruments_file)
        for number in range(history.slices):
            history.append(log, number)
        return [value for name in EXCHANGES for value in values(log, trades_stream(name))]

    assert made(1) == made(1)
    assert made(1) != made(2)


@pytest.mark.parametrize(
    ("change", "lost", "doubled"),
    [
        (lambda row: [*row[:3], row[3] - 1, row[4] - 1, *row[5:]], 1, 0),
        (lambda row: [*row[:3], row[3] + 1, *row[4:]], 0, 1),
        (lambda row: [*row[:7], row[7][:-1] + "1", *row[8:]], 0, 0),
        (lambda row: [*row[:-1], row[-1] + 1], 0, 0),
    ],
    ids=["lost", "doubled", "price of another", "source"],
)
def test_a_difference_is_seen(logged, change, lost, doubled):
    log, truth = logged
    first, *others = rows(log)
    found = compare(truth, [change(first), *others], frame_rows(log), [[len(gaps(log))] * 2])
    assert (found.lost, found.doubled, len(found.different)) == (lost, doubled, 1)
    assert found.different[0].startswith(" ".join(map(str, first[:3])))


def test_a_counter_that_is_absent_or_unknown_is_seen(logged):
    log, truth = logged
    first, *others = rows(log)
    stranger = ["kraken", "NEW-USD", 0, *first[3:]]
    found = compare(truth, [stranger, *others], frame_rows(log), [[len(gaps(log))] * 2])
    assert len(found.different) == 2
    assert found.lost == first[3]


HEAD = Head("file:///c/w/cold/trades/metadata/1.metadata.json", 1, 0, {}, 0)
FOLDER = "/c/w/cold/trades"


@pytest.mark.parametrize(
    ("new", "snapshot", "step"),
    [
        ([], 1, "before the first file"),
        ([f"{FOLDER}/data/a.parquet"], 1, "data files written, not committed"),
        ([f"{FOLDER}/data/a.parquet", f"{FOLDER}/metadata/a.avro"], 1, "manifests written, not committed"),
        ([f"{FOLDER}/data/a.parquet", f"{FOLDER}/metadata/2.metadata.json"], 1, "metadata written, not committed"),
        ([f"{FOLDER}/data/a.parquet", f"{FOLDER}/metadata/2.metadata.json"], 2, "after a commit"),
        ([f"{FOLDER}/data/a.parquet", "/c/catalog.db-journal"], 1, "in the catalog's commit"),
        (["/c/spill/1"], 1, "files of its own written"),
    ],
)
def test_what_a_kill_interrupted_is_told_by_what_it_left(new, snapshot, step):
    before = Trace(frozenset(["/c/catalog.db"]), {"trades": HEAD})
    after = Trace(before.files | set(new), {"trades": HEAD._replace(snapshot_id=snapshot)})
    assert _step(before, after) == step
