"""Sealed days are held against their proofs: one digit, one trade less or more, and the day is named."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.tier.conftest import DAY_NS, START_NS, Platform, trade
from tests.tier.damage import edit

from k2.config import TierConfig
from k2.tier.keep.maintenance import Maintenance
from k2.tier.prove.audit import Scope, audit
from k2.tier.prove.contents import data_files


@pytest.fixture
def sealed(platform: Platform, tmp_path: Path) -> Platform:
    """Two days of two symbols, maintained three days later."""
    for day in range(2):
        for symbol in ("BTC-USD", "ETH-USD"):
            first = 10 * day + 1
            platform.put(
                *(trade(n, symbol=symbol, exchange_ts=START_NS + day * DAY_NS + n) for n in range(first, first + 10))
            )
    platform.archiver(slice_rows=7).run()
    maintain(platform, tmp_path)
    return platform


def maintain(platform: Platform, folder: Path) -> None:
    now = START_NS + 5 * DAY_NS
    Maintenance(platform.catalog(), TierConfig(), lambda: now, "test", folder / "spill").run(False)


def told(platform: Platform, scope: Scope = Scope()) -> list[str]:  # noqa: B008  immutable
    findings = audit(platform.catalog(), platform.log, scope=scope, tables=["trades"]).findings
    return [one.text for one in findings if one.kind == "proof"]


def test_what_was_changed_taken_out_and_put_in_since(sealed: Platform) -> None:
    def broken(rows: list[dict[str, object]]) -> list[dict[str, object]]:
        kept = [row for row in rows if (row["symbol"], row["trade_id"]) != ("ETH-USD", 20)]
        changed = [
            {**row, "price": Decimal("1")} if (row["symbol"], row["trade_id"]) == ("BTC-USD", 4) else row
            for row in kept
        ]
        late = {**rows[0], "trade_id": 99, "symbol": "BTC-USD", "exchange_ts": datetime(2026, 1, 2, tzinfo=UTC)}
        return [*changed, late]

    edit(sealed.catalog(), broken)
    first, second, third = told(sealed)
    assert "BTC-USD for 2026-01-01 (revision 1) has another content hash" in first
    assert "BTC-USD for 2026-01-02 (revision 1) says 10 trades, ids 11 to 20; cold has 11, ids 11 to 99" in second
    assert "ETH-USD for 2026-01-02 (revision 1) says 10 trades, ids 11 to 20; cold has 9, ids 11 to 19" in third
    assert told(sealed, Scope(symbol="BTC-USD", day=date(2026, 1, 1))) == [first]
    assert told(sealed, Scope(exchange="binance")) == []

    damaged = Path(urlsplit(min(data_files(sealed.catalog().load_table("cold.trades")))).path)
    damaged.write_bytes(damaged.read_bytes()[:100])
    texts = told(sealed)
    assert "the proofs of kraken for 2026-01-01 cannot be tried" in texts[0]
    assert texts[1:] == [second, third], "the other days are tried all the same"


def test_late_trades_are_told_until_the_day_is_sealed_anew(sealed: Platform, tmp_path: Path) -> None:
    assert told(sealed) == [], "sealed days that are as they were"
    sealed.put(trade(0, exchange_ts=START_NS))
    sealed.archiver().run()
    (text,) = told(sealed)
    assert "`k2 archive maintain` seals the day anew" in text
    maintain(sealed, tmp_path)
    assert told(sealed) == []
