"""Rederiving with the decoder that recorded gives the same history; with another one, the differences are told."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from recording import Recording, history, received, trade_frame

from k2.cli import main
from k2.core.codec import GAPS_STREAM, decode_gap, decode_trade, frames_stream, trades_stream
from k2.core.exchange import Exchange
from k2.core.islands import Islands
from k2.core.types import Event, Frame, Gap, Trade
from k2.exchanges import venue
from k2.feed.resume import resume
from k2.log import Log
from k2.log.memory import MemoryLog
from k2.ops import rederive as rederiving
from k2.ops.derivation import OUTSIDE, Derivation
from k2.ops.rederive import NOTES, CannotRederiveError, Wanted, rederive
from k2.ops.report import passed
from k2.tier import TierError
from k2.tier.catalog import tables_of
from k2.tier.past import scan
from k2.tier.past.known import known, sequences
from k2.tier.past.scan import Span
from k2.wire import open_catalog, open_log

TRADES, FRAMES = trades_stream("binance"), frames_stream("binance")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    made = history(tmp_path_factory.mktemp("recorded"))
    yield made
    made.close()


def records(log: Log, stream: str) -> list[bytes]:
    found: list[bytes] = []
    offset = log.bounds(stream)[0]
    while batches := log.read(stream, offset):
        found += [value for batch in batches for value in batch.values]
        offset = batches[-1].end
    return found


def latest(log: Log) -> dict[tuple[str, int, int], Gap]:
    """The ledger as it stands: starts apart from gaps that begin with the same id."""
    gaps = map(decode_gap, records(log, GAPS_STREAM))
    return {(g.symbol, g.epoch, -g.first_id if g.state in ("start", "epoch") else g.first_id): g for g in gaps}


def contents(folder: Path) -> dict[str, str]:
    files = sorted(file for name in ("log", "cold") for file in (folder / name).rglob("*") if file.is_file())
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.name != "lock.mdb"}


class Changed:
    """A venue whose decoder was changed."""

    def __init__(self, change: Callable[[Trade], list[Event]]) -> None:
        self._real = venue("binance")
        self._change = change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def decode(self, frame: Frame) -> list[Event]:
        events = self._real.decode(frame)
        return [e for event in events for e in (self._change(event) if isinstance(event, Trade) else [event])]


def derive(made: Recording, wanted: Wanted, exchange: Exchange | None = None) -> MemoryLog:
    """Only the new log."""
    log = MemoryLog()
    tables = tables_of(open_catalog(made.config))
    span = Span("binance", wanted.since, wanted.until)
    ledger = scan.gaps(tables["gaps"], "binance")
    before = known(tables["trades"], Span("binance", until=wanted.since or 0))
    after = known(tables["trades"], Span("binance", since=wanted.until or 1 << 62))
    derivation = Derivation(log, exchange or venue("binance"), sequences("binance", before, ledger))
    for frames in scan.frames(tables["frames"], span):
        derivation.feed(frames)
    derivation.finish((before.ids, after.ids), ledger)
    return log


def holes(log: Log) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """What is neither in the log nor given up in its ledger, between the first and last id of each counter."""
    ids: dict[tuple[str, int], Islands] = {}
    for value in records(log, TRADES):
        trade = decode_trade(value)
        ids.setdefault((trade.symbol, trade.epoch), Islands()).add(trade.trade_id)
    for gap in latest(log).values():
        for pair in gap.missing if gap.state == "unavailable" else ():
            ids[gap.symbol, gap.epoch].add_range(*pair)
    return {c: found for c, one in ids.items() if (found := one.holes(one.first or 0, one.last or 0))}


def test_the_same_decoder_gives_the_same_history(recorded: Recording, tmp_path: Path) -> None:
    before = contents(recorded.config.data_dir)
    into = tmp_path / "new"
    (into / "log").mkdir(parents=True)
    (into / "log" / "broken").write_text("a run that was killed left this")
    (into / NOTES).write_text('{"state": "unfinished"}')
    command = ["--data", recorded.config.data, "rederive", "--into", str(into), "--exchange", "binance"]
    done = CliRunner().invoke(main, command, env={"K2_METRICS_PORT": "0"})
    assert done.exit_code == 0, done.output
    count = len(records(recorded.log, TRADES))
    assert f"343 frames gave {count} trades: {count} equal, 0 changed, 0 missing, 0 new" in done.output
    assert f"proven: {count} trades" in done.output
    assert contents(recorded.config.data_dir) == before
    log = open_log(msgspec.structs.replace(recorded.config, data=str(into)))
    for stream in (FRAMES, TRADES):
        assert records(log, stream) == records(recorded.log, stream)
    assert {key: gap.state for key, gap in latest(log).items()} == {
        key: gap.state for key, gap in latest(recorded.log).items()
    }
    assert resume(log, "binance").amends == [], "a feed handler would go on here as it would in the old folder"
    log.close()
    assert msgspec.json.decode((into / NOTES).read_bytes())["results"]["state"] == "finished"
    done = CliRunner().invoke(main, command)
    assert (done.exit_code, "is not empty" in done.output) == (2, True)


def test_what_another_decoder_does_is_told(
    recorded: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(trade: Trade) -> list[Event]:
        if trade.symbol == "ETH-USDT" and trade.trade_id == 77:
            return []
        if trade.symbol == "ETH-USDT" and trade.trade_id == 33:
            return [msgspec.structs.replace(trade, price="1.5", side="sell")]
        if trade.symbol == "ETH-USDT" and trade.trade_id == 88:
            return [trade, msgspec.structs.replace(trade, symbol="SOL-USDT")]
        return [trade]

    monkeypatch.setattr(rederiving, "venue", lambda name: Changed(change))
    monkeypatch.setattr("k2.ops.verify.ROUNDS", 1)
    found = rederive(recorded.config, tmp_path / "new", Wanted(("binance",)), changes_expected=True)
    assert {check["name"]: check["value"] for check in found["checks"] if not check["ok"]} == {
        "archived trades that the frames no longer give": 1,
        "missing trades": 1,
        "open gaps": 1,
    }
    compared = found["results"]["contrast"]["binance"]
    assert [compared[name] for name in ("changed", "missing", "new", "later")] == [1, 1, 1, 0]
    assert {name: count for name, count in compared["fields"].items() if count} == {"price": 1, "side": 1}
    changed, missing, new = sorted(compared["shown"], key=lambda one: one["trade_id"])
    assert (changed["archived"]["price"], changed["rederived"]["price"]) == ("61016.33", "1.5")
    assert (missing["trade_id"], missing["rederived"]) == (77, None)
    assert (new["symbol"], new["archived"]) == ("SOL-USDT", None)


@pytest.mark.slow
def test_a_part_is_proven_by_itself(recorded: Recording, tmp_path: Path) -> None:
    """It begins after trades that REST brings later, and ends before others come: the ledger says both."""
    wanted = Wanted(("binance",), received(56) - 10, received(180))
    found = rederive(recorded.config, tmp_path / "new", wanted)
    assert passed(found), [check for check in found["checks"] if not check["ok"]]
    log = open_log(msgspec.structs.replace(recorded.config, data=str(tmp_path / "new")))
    gaps = latest(log)
    log.close()
    assert gaps["BTC-USDT", 0, -50].state == gaps["ETH-USDT", 0, -56].state == "start"
    assert gaps["BTC-USDT", 0, 110].missing == ((110, 119),)


def epochs(data: Path) -> Recording:
    """A counter that begins anew, with holes before and after that are filled late."""
    made = Recording(data)
    made.record([trade_frame(n) for n in (*range(2001, 2021), *range(2031, 2041))])
    made.record([trade_frame(n) for n in range(2021, 2029)])
    again = [trade_frame(n) for n in (*range(3, 8), *range(9, 21), 8, *range(21, 30))]
    offset = received(2045) - received(1)
    for frame in again:  # the same numbers at later times
        number = msgspec.json.decode(frame.payload)["data"]["t"]
        at = msgspec.json.decode(frame.payload)["data"]["T"] + offset // 1_000_000
        payload = frame.payload.replace(b'"T": %d' % (at - offset // 1_000_000), b'"T": %d' % at)
        made.record([msgspec.structs.replace(frame, recv_ts=received(number) + offset, payload=payload)])
    made.archive()
    return made


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    made = epochs(tmp_path_factory.mktemp("restarted"))
    yield made
    made.close()


@pytest.mark.parametrize("number", [0, 2010, 2022, 2035, 2048, 2053, 2060])
def test_from_any_time_on_the_records_are_the_recorded_ones(restarted: Recording, number: int) -> None:
    since = received(number)
    log = derive(restarted, Wanted(since=since))
    recorded = records(restarted.log, TRADES)
    assert records(log, TRADES) == [value for value in recorded if decode_trade(value).recv_ts >= since]
    assert {decode_trade(value).epoch for value in recorded} == {0, 1}
    assert holes(log) == holes(restarted.log)
    starts = {(g.symbol, g.epoch) for g in latest(log).values() if g.state in ("start", "epoch")}
    assert starts == {(t.symbol, t.epoch) for t in map(decode_trade, records(log, TRADES))}


def test_an_old_excuse_covers_no_new_loss(recorded: Recording) -> None:
    """Beside trades that the venue did not have, the decoder now loses one: that gap is not given up."""
    log = derive(recorded, Wanted(), Changed(lambda trade: [] if trade.trade_id == 109 else [trade]))  # type: ignore[arg-type]
    gap = latest(log)["BTC-USDT", 0, 109]
    assert (gap.state, gap.last_id) == ("open", 119)
    assert holes(log)["BTC-USDT", 0] == [(109, 119)]


def test_what_came_after_the_end_is_said_to_be_outside(recorded: Recording) -> None:
    log = derive(recorded, Wanted(until=received(62)))
    gap = latest(log)["BTC-USDT", 0, 50]
    assert (gap.state, gap.reason, gap.missing) == ("unavailable", OUTSIDE, ((50, 59),))


def test_frames_come_in_the_order_of_the_log_from_files_that_overlap(
    recorded: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that steps back and forth over midnight spreads neighbours over the files of two days."""
    made = Recording(recorded.config.data_dir / "steps")
    midnight = received(90)
    steps = [midnight + (-1) ** n * n * 1_000_000 for n in range(1, 400)]
    made.record([Frame(at, "ws", "c1", "", b"%d" % n) for n, at in enumerate(steps)])
    made.archive()
    monkeypatch.setattr(scan, "BATCH_ROWS", 16)
    table = tables_of(open_catalog(made.config))["frames"]
    assert len(scan._files(table, Span("binance"))) == 2
    chunks = list(scan.frames(table, Span("binance")))
    assert max(map(len, chunks)) <= 32
    read = [pair for chunk in chunks for pair in chunk]
    assert [offset for offset, _ in read] == list(range(399))
    assert [frame.payload for _, frame in read] == [b"%d" % n for n in range(399)]
    within = [
        frame for chunk in scan.frames(table, Span("binance", midnight, midnight + 9_000_000)) for _, frame in chunk
    ]
    assert [frame.recv_ts for frame in within] == [at for at in steps if midnight <= at < midnight + 9_000_000]
    made.close()


def test_a_damaged_file_of_frames_is_named(tmp_path: Path) -> None:
    made = Recording(tmp_path / "old")
    made.record([trade_frame(1)])
    made.archive()
    made.close()
    (file,) = (made.config.cold_dir / "warehouse").rglob("frames/data/**/*.parquet")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(TierError, match=r"reading cold\.frames"):
        rederive(made.config, tmp_path / "new")


def test_there_must_be_frames(recorded: Recording, tmp_path: Path) -> None:
    with pytest.raises(CannotRederiveError, match="lies in the old one"):
        rederive(recorded.config, recorded.config.data_dir / "new")
    with pytest.raises(CannotRederiveError, match="no frames"):
        rederive(recorded.config, tmp_path / "later", Wanted(("binance",), since=received(100_000)))
    empty = msgspec.structs.replace(recorded.config, data=str(tmp_path / "empty"))
    with pytest.raises(CannotRederiveError, match="k2 archive"):
        rederive(empty, tmp_path / "new")
    assert not (tmp_path / "new").exists()
