"""The proof must fail for each thing that can be wrong, and hold when nothing is."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k2.config import LoaderConfig
from k2.core.codec import GAPS_STREAM, encode_gap, encode_trade, trades_stream
from k2.core.types import Gap, Trade
from k2.log import Entry
from k2.log.memory import MemoryLog
from k2.ops import verify as proving
from k2.ops.evidence import LogSide, Scope
from k2.ops.verify import CannotVerifyError, Round
from k2.store import migrate
from k2.store.loader import Loader

_spec = importlib.util.spec_from_file_location("local_store", Path(__file__).parents[1] / "loader" / "local_store.py")
assert _spec
assert _spec.loader
local_store = sys.modules.setdefault("local_store", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(local_store)

SECOND = 1_000_000_000
START = 1_700_000_000
KRAKEN = Scope(("kraken",))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    store = local_store.LocalStore(tmp_path_factory.mktemp("store"))
    migrate.apply(store)
    yield store
    store.close()


class World:
    """A log with a hole-free run of trades and its start, loaded."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.log = MemoryLog()
        self.loader = Loader(self.log, store, store, LoaderConfig(), ("kraken",))
        self.gap("start", 1, 1)
        self.trades(*range(1, 101))
        self.loader.take_over()

    def trades(self, *ids: int) -> None:
        values = [encode_trade(trade(number)) for number in ids]
        self.log.append([Entry(trades_stream("kraken"), ["BTC-USD"] * len(values), values)])

    def gap(self, state: Any, first: int, last: int, missing: tuple[tuple[int, int], ...] = ()) -> None:
        gap = Gap("kraken", "BTC-USD", first, last, state, "a reason", 1, 2, missing)
        self.log.append([Entry(GAPS_STREAM, ["BTC-USD"], [encode_gap(gap)])])

    def load(self) -> None:
        self.loader.load()
        self.loader.flush(self.loader.seal(), settled=False)

    def round(self, scope: Scope = KRAKEN) -> Round:
        return Round(self.log, self.store, LogSide(self.log, scope), lambda _: None)

    def failed(self, scope: Scope = KRAKEN) -> set[str]:
        return {check.name for check in self.round(scope).checks if not check.ok}


def trade(number: int) -> Trade:
    side: Any = "buy" if number % 2 else "sell"
    at = (START + number) * SECOND
    return Trade("kraken", "BTC-USD", "BTC/USD", number, f"{100 + number}.5", "0.25", side, at, at + 5, "live")


@pytest.fixture
def world(engine: Any) -> World:
    tables = "SELECT name FROM system.tables WHERE database = 'k2' AND engine != 'View' AND name != 'migrations'"
    for (table,) in engine.rows(tables):
        engine.execute(f"TRUNCATE TABLE k2.{table}")
    return World(engine)


CANDLES = {f"{interval} candles that differ" for interval in ("1m", "5m", "15m", "30m", "1h", "1d")}


def test_what_is_whole_is_proven(world: World) -> None:
    found = world.round()
    assert all(check.ok for check in found.checks), found.checks
    report = found.report()
    assert set(report) == {"commit", "machine", "parameters", "results", "checks"}
    (one,) = report["results"]["symbols"]
    assert (one["first_id"], one["last_id"], one["expected"], one["present"], one["missing"]) == (1, 100, 100, 100, [])
    assert report["results"]["candles"]["1m"]["checked"] == 3


def test_nothing_at_all_is_not_a_proof(world: World) -> None:
    assert world.failed(Scope(("kraken",), "ETH-USD")) == {"trades present"}


def test_a_row_twice_in_the_store(world: World) -> None:
    world.store.execute("INSERT INTO k2.silver_base SELECT * FROM k2.silver_base WHERE trade_id = 7")
    assert "duplicates in the store" in world.failed()


def test_a_row_lost_from_the_store(world: World) -> None:
    world.store.execute("ALTER TABLE k2.silver_base DELETE WHERE trade_id = 7 SETTINGS mutations_sync = 1")
    assert world.failed() == {"missing trades", "symbols whose store and log differ"}
    assert world.round().counters[0]["missing"] == [(7, 7)]


def test_a_last_row_lost_from_the_store(world: World) -> None:
    world.store.execute("ALTER TABLE k2.silver_base DELETE WHERE trade_id = 100 SETTINGS mutations_sync = 1")
    assert world.failed() == {"symbols whose store and log differ"}


@pytest.mark.parametrize(
    "change",
    ["recv_ts = recv_ts + toIntervalNanosecond(1)", "source = 'backfill'", "side = if(side = 'buy', 'sell', 'buy')"],
)
def test_a_row_changed_in_the_store(world: World, change: str) -> None:
    world.store.execute(f"ALTER TABLE k2.silver_base UPDATE {change} WHERE trade_id = 7 SETTINGS mutations_sync = 1")
    assert world.failed() == {"symbols whose store and log differ"}


@pytest.mark.parametrize(
    "change", ["open = open + 1", "volume = volume + toDecimal256('0.000000000000000001', 18)", "apart = 1"]
)
def test_a_candle_changed_in_the_store(world: World, change: str) -> None:
    world.store.execute(f"ALTER TABLE k2.ohlcv_1m_base UPDATE {change} WHERE 1 SETTINGS mutations_sync = 1")
    assert world.failed() == CANDLES


def test_a_candle_lost_from_the_store(world: World) -> None:
    world.store.execute("TRUNCATE TABLE k2.ohlcv_1m_base")
    assert world.failed() == CANDLES


def test_a_hole_that_nobody_explains(world: World) -> None:
    world.trades(*range(111, 121))
    world.load()
    assert world.failed() == {"missing trades"}
    assert world.round().counters[0]["missing"] == [(101, 110)]


def test_an_open_gap(world: World) -> None:
    world.gap("open", 101, 110)
    world.trades(*range(111, 121))
    world.load()
    assert world.failed() == {"missing trades", "open gaps"}


def test_a_gap_that_cannot_be_had_is_excused_and_counted(world: World) -> None:
    world.gap("open", 101, 110)
    world.gap("unavailable", 101, 110, ((104, 105),))
    world.trades(*range(111, 121), *range(101, 104), *range(106, 111))
    world.load()
    assert world.failed() == set()
    one = world.round().counters[0]
    assert (one["unavailable"], one["expected"], one["present"]) == (2, 118, 118)


def test_a_trade_twice_in_the_log(world: World) -> None:
    world.trades(50)
    world.load()
    assert world.failed() == {"duplicates in the log"}


def test_a_ledger_that_the_store_has_otherwise(world: World) -> None:
    world.store.execute("TRUNCATE TABLE k2.gaps_base")
    assert world.failed() == {"gaps that the store has otherwise than the log"}


def test_a_part_of_the_time_is_proven_alone(world: World) -> None:
    since, until = (START + 20) * SECOND, (START + 80) * SECOND
    scope = Scope(("kraken",), "BTC-USD", since, until)
    assert world.failed(scope) == set()
    (one,) = world.round(scope).counters
    assert (one["first_id"], one["last_id"], one["present"]) == (20, 79, 60)
    world.store.execute("ALTER TABLE k2.silver_base DELETE WHERE trade_id = 90 SETTINGS mutations_sync = 1")
    assert world.failed(scope) == set()
    world.store.execute("ALTER TABLE k2.silver_base DELETE WHERE trade_id = 30 SETTINGS mutations_sync = 1")
    assert world.failed(scope) == {"symbols whose store and log differ"}


def test_trades_that_come_while_the_store_is_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in the store's answer, not in what was recomputed before; they are told apart, and nothing is wrong."""
    asked = proving.stored_trades
    late = iter([(101, 102, 103)])

    def slowly(*arguments: Any) -> Any:
        for ids in late:
            world.trades(*ids)
            world.loader.load()
        return asked(*arguments)

    monkeypatch.setattr(proving, "stored_trades", slowly)
    assert world.failed() == set()
    world.load()
    assert world.round().counters[0]["present"] == 103


def test_a_loader_that_does_not_move_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "STALLED", 0.2)
    world.trades(101)
    with pytest.raises(CannotVerifyError, match="k2 load"):
        world.round()


def test_a_symbol_is_never_pasted_into_a_statement(tmp_path: Path) -> None:
    from k2.config import load

    with pytest.raises(CannotVerifyError, match="BASE-QUOTE"):
        proving.verify(load(data=str(tmp_path)), symbol="X' OR '1'='1")
