"""A log in memory and a catalog of its own for every test."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog

from k2.core.codec import GAPS_STREAM, encode_frame, encode_gap, encode_trade, frames_stream, trades_stream
from k2.core.types import Frame, Gap, Trade
from k2.log import Entry
from k2.log.memory import MemoryLog
from k2.tier.catalog import open_catalog
from k2.tier.offload.archiver import Archiver

DAY_NS = 86_400_000_000_000
START_NS = 1_767_225_600_000_000_000  # 2026-01-01


def trade(trade_id: int, **changes: object) -> Trade:
    fields: dict[str, object] = {
        "exchange": "kraken",
        "symbol": "BTC-USD",
        "native_symbol": "BTC/USD",
        "trade_id": trade_id,
        "price": "61000.10",
        "quantity": "0.00027625",
        "side": "buy",
        "exchange_ts": START_NS + trade_id * 1_000_123,
        "recv_ts": START_NS + trade_id * 1_000_123 + 777,
        "source": "live",
    }
    return Trade(**{**fields, **changes})  # type: ignore[arg-type]


class Platform:
    """What an archiver stands between: a log and a catalog."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = MemoryLog()

    def catalog(self) -> Catalog:
        return open_catalog(self.folder)

    def archiver(self, slice_rows: int = 500_000, catalog: Catalog | None = None) -> Archiver:
        return Archiver(self.log, catalog or self.catalog(), ("binance", "kraken"), slice_rows)

    def put(self, *trades: Trade) -> None:
        for one in trades:
            self.log.append([Entry(trades_stream(one.exchange), [one.symbol], [encode_trade(one)])])

    def put_ids(self, ids: Iterable[int]) -> None:
        self.put(*(trade(number) for number in ids))

    def put_frames(self, exchange: str, *frames: Frame) -> None:
        self.log.append([Entry(frames_stream(exchange), [""] * len(frames), [encode_frame(f) for f in frames])])

    def put_gaps(self, *gaps: Gap) -> None:
        self.log.append([Entry(GAPS_STREAM, [gap.symbol for gap in gaps], [encode_gap(gap) for gap in gaps])])

    def ids(self) -> list[int]:
        rows = self.catalog().load_table("cold.trades").scan(selected_fields=("trade_id",)).to_arrow()
        return sorted(rows["trade_id"].to_pylist())

    def data_files(self) -> set[Path]:
        return set(self.folder.rglob("*.parquet"))


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path / "cold")
