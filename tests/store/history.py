"""What one history stands on, all of it real: a log, a store process with a loader, and a cold tier in Iceberg."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE_S
from tests.store.conftest import StoreProcess

from k2.config import LoaderConfig
from k2.core.codec import encode_frame, encode_trade, frames_stream, trades_stream
from k2.core.types import Frame, Trade
from k2.log import Entry
from k2.log.memory import MemoryLog
from k2.store.clickhouse import ClickHouseStore
from k2.store.expire import Expiry, expire
from k2.store.loader import Loader
from k2.store.migrate import migrations
from k2.store.pins import Shown, show
from k2.tier.catalog import open_catalog
from k2.tier.heads import Head, read_heads
from k2.tier.offload.archiver import Archiver

DAY = 86_400_000_000_000
START = 1_767_225_600_000_000_000  # 2026-01-01
STEP = 60_000_000_000 // 4 + 123  # between two trades: four a minute, and nanoseconds that count
PER_DAY = 40  # trades of a day; they lie within its first ten minutes
EXCHANGE = "kraken"


def trade(number: int, at: int | None = None, **changes: Any) -> Trade:
    """The trade with this id: `PER_DAY` of them a day, ascending from START."""
    day, nth = divmod(number - 1, PER_DAY)
    when = START + day * DAY + nth * STEP if at is None else at
    fields: dict[str, Any] = {
        "exchange": EXCHANGE,
        "symbol": "BTC-USD",
        "native_symbol": "BTC/USD",
        "trade_id": number,
        "price": f"{60_000 + number % 977}.25",
        "quantity": f"0.{number % 89 + 1:03}",
        "side": "buy" if number % 3 else "sell",
        "exchange_ts": when,
        "recv_ts": when + 777 + number,
        "source": "live",
    }
    return Trade(**{**fields, **changes})


def emptied(running: StoreProcess) -> StoreProcess:
    """The store as it begins."""
    store = running.client()
    for database, name in store.rows(
        "SELECT database, name FROM system.tables WHERE database IN ('k2', 'cold', 'cold_pins') AND engine != 'View'"
        " AND name != 'migrations'"
    ):
        store.execute(f"TRUNCATE TABLE k2.{name}" if database == "k2" else f"DROP TABLE {database}.{name}")
    for statement in migrations()[4].statements():
        store.execute(statement)
    store.execute("CREATE OR REPLACE VIEW k2.trades AS SELECT * FROM k2.silver_trades")
    store.close()
    return running


class History:
    """A platform in a folder, over an empty store."""

    def __init__(self, folder: Path, running: StoreProcess) -> None:
        self.folder = folder
        self.running = running
        self.log = MemoryLog()
        self.said: list[Trade] = []
        self.store = self.client()
        self.loader = self.new_loader()

    def client(self) -> ClickHouseStore:
        return self.running.client(database="k2")

    def new_loader(self) -> Loader:
        loader = Loader(self.log, self.client(), self.client(), LoaderConfig(flush_s=0.2, interval_ms=15), (EXCHANGE,))
        loader.take_over()
        return loader

    def put(self, *trades: Trade) -> None:
        """Into the log."""
        self.said += trades
        values = [encode_trade(one) for one in trades]
        self.log.append([Entry(trades_stream(EXCHANGE), [one.symbol for one in trades], values)])

    def put_frames(self) -> None:
        """A frame for each trade so far."""
        frames = [encode_frame(Frame(one.recv_ts, "ws", "c1", "", b'{"id":%d}' % one.trade_id)) for one in self.said]
        self.log.append([Entry(frames_stream(EXCHANGE), [""] * len(frames), frames)])

    def put_days(self, first: int, count: int) -> None:
        """All trades of `count` days from day `first` (0 is START's)."""
        self.put(*(trade(number) for number in range(first * PER_DAY + 1, (first + count) * PER_DAY + 1)))

    def load(self) -> None:
        """Everything in the log into the store, committed."""
        self.loader.load()
        self.loader.flush(self.loader.seal(), settled=False)

    def archive(self) -> dict[str, Head]:
        Archiver(self.log, open_catalog(self.folder / "cold"), (EXCHANGE,)).run()
        return self.heads()

    def heads(self) -> dict[str, Head]:
        return read_heads(self.folder / "cold")

    def show(self) -> Shown:
        return show(self.store, self.archive())

    def expire(self, before: int, grace_s: float = 0.0, **more: Any) -> Expiry:
        """Let go of the days before day `before`, as at a noon when they are just old enough."""
        now = START + (before + 10) * DAY + DAY // 2
        return expire(self.store, self.archive(), now, 10, more.pop("frames_days", 0), grace_s=grace_s, **more)

    def ids(self, table: str = "k2.trades") -> list[int]:
        return [int(number) for (number,) in self.store.rows(f"SELECT trade_id FROM {table} ORDER BY trade_id")]

    def hot(self) -> list[int]:
        return self.ids("k2.silver_base")

    def columns(self, table: str = "k2.trades") -> Sequence[tuple[Any, ...]]:
        """Every column of every trade, times in ns."""
        return self.store.rows(
            "SELECT exchange, symbol, native_symbol, epoch, trade_id, toString(price), toString(quantity), side,"
            f" toUnixTimestamp64Nano(exchange_ts), toUnixTimestamp64Nano(recv_ts), source FROM {table}"
            " ORDER BY symbol, epoch, trade_id"
        )

    def expected(self) -> Sequence[tuple[Any, ...]]:
        """The same from what was put into the log, each identity once."""
        rows = {
            (t.symbol, t.epoch, t.trade_id): (
                t.exchange,
                t.symbol,
                t.native_symbol,
                t.epoch,
                t.trade_id,
                t.price.rstrip("0").rstrip(".") if "." in t.price else t.price,
                t.quantity.rstrip("0").rstrip(".") if "." in t.quantity else t.quantity,
                t.side,
                t.exchange_ts,
                t.recv_ts,
                t.source,
            )
            for t in reversed(self.said)
        }
        return [rows[key] for key in sorted(rows)]

    def close(self) -> None:
        self.store.close()


def wait_until(done: Any, within: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
