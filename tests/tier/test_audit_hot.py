"""Cold against the hot store: a real store process with a loader, a real cold tier, and a log that is ahead of both."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.store.conftest import start
from tests.store.history import EXCHANGE, PER_DAY, START, History, trade
from tests.tier.damage import edit

from k2.core.codec import GAPS_STREAM, encode_gap
from k2.core.types import Gap
from k2.log import Entry
from k2.tier.catalog import open_catalog
from k2.tier.prove.audit import Audit, Scope, audit

DAY = 86_400_000_000_000


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """Three days in hot and cold; then trades that only the log and hot have, and some that only the log has."""
    folder = tmp_path_factory.mktemp("history") / "data"
    history = History(folder, start(folder))
    history.put_days(0, 3)
    history.put_frames()
    gap = Gap(EXCHANGE, "BTC-USD", 1, 1, "start", "the first trade seen", START, START)
    history.log.append([Entry(GAPS_STREAM, ["BTC-USD"], [encode_gap(gap)])])
    history.load()
    history.archive()
    history.put_days(3, 1)
    history.put(trade(7, price="1"))  # a duplicate past the snapshot
    history.load()
    history.put_days(4, 1)
    yield history
    history.running.stop()


def audited(platform: History, scope: Scope = Scope(), **more: Any) -> Audit:  # noqa: B008  immutable
    return audit(open_catalog(platform.folder / "cold"), platform.log, platform.client(), scope=scope, **more)


def short(result: Audit) -> list[tuple[Any, ...]]:
    return [(one.table, one.kind, one.total, [row.id for row in one.shown]) for one in result.findings]


def test_cold_hot_and_log_at_different_places_agree(platform: History) -> None:
    result = audited(platform)
    assert result.ok, result.findings
    assert {name: (one.rows, one.other_rows) for name, one in result.tables.items()} == {
        "trades": (3 * PER_DAY, 4 * PER_DAY),
        "frames": (3 * PER_DAY, 3 * PER_DAY),
        "gaps": (1, 1),
    }


def test_an_archiver_that_is_ahead_of_the_loader(platform: History) -> None:
    platform.archive()
    assert short(audited(platform)) == []


def test_what_differs_is_named_on_both_sides(platform: History) -> None:
    catalog = open_catalog(platform.folder / "cold")
    undone = {name: catalog.load_table(f"cold.{name}").metadata.current_snapshot_id for name in ("trades", "frames")}
    edit(
        catalog,
        lambda rows: [
            *({**row, "side": "sell"} if row["trade_id"] == 31 else row for row in rows if row["trade_id"] != 50),
            {**rows[0], "trade_id": 999},
        ],
    )
    edit(
        catalog,
        lambda rows: [{**row, "kind": "sent"} if row["log_offset"] == 30 else row for row in rows],
        "frames",
    )
    try:
        result = audited(platform)
        assert short(result) == [
            ("trades", "differs", 1, [31]),
            ("trades", "excess", 1, [999]),
            ("trades", "missing", 1, [50]),
            ("trades", "hole", 799, [50, 201]),
            ("frames", "differs", 1, [30]),
        ]
        assert "side: buy in the hot store, sell in cold" in result.findings[0].shown[0].text
    finally:
        for name, snapshot in undone.items():
            catalog.load_table(f"cold.{name}").manage_snapshots().rollback_to_snapshot(snapshot).commit()


@pytest.mark.slow
def test_rows_that_the_hot_store_lost_are_excess_in_cold_unless_handed_over(platform: History) -> None:
    platform.load()
    platform.loader.replace_tail(0)
    platform.expire(1)  # the first day becomes cold's
    platform.expire(1)  # and leaves
    assert platform.hot()[0] == PER_DAY + 1
    assert short(audited(platform)) == []
    platform.store.execute("ALTER TABLE k2.silver_base DELETE WHERE trade_id IN (60, 61) SETTINGS mutations_sync = 1")
    platform.store.execute("ALTER TABLE k2.bronze_base DELETE WHERE position < 5 SETTINGS mutations_sync = 1")
    result = audited(platform)
    assert short(result) == [("trades", "excess", 2, [60, 61]), ("frames", "excess", 5, [0, 1, 2, 3, 4])]
    assert result.findings[0].text == "2 rows of kraken BTC-USD are in cold and not in the hot store"
    assert short(audited(platform, frames_from_ns=START + DAY)) == [("trades", "excess", 2, [60, 61])]
