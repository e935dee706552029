"""A column that comes later: old files read as null everywhere, and nothing that was there is touched."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.schema import Schema
from pyiceberg.types import BooleanType, IntegerType, LongType, NestedField, StringType
from tests.tier import readers
from tests.tier.conftest import DAY_NS, START_NS, Platform

from k2.config import TierConfig
from k2.tier import TierError
from k2.tier.catalog import open_table
from k2.tier.files import write_files
from k2.tier.keep.maintenance import Maintenance
from k2.tier.past.history import diff, snapshots
from k2.tier.prove.audit import audit
from k2.tier.prove.shapes import SOURCES
from k2.tier.schema import TABLES, TRADES, ColdTable
from k2.tier.watermark import carried

LATER = (
    NestedField(20, "venue_seq", LongType(), required=False),
    NestedField(21, "flags", StringType(), required=False),
    NestedField(22, "block", BooleanType(), required=False),
)


def with_columns(cold: ColdTable, *columns: NestedField) -> ColdTable:
    return cold._replace(schema=Schema(*cold.schema.fields, *columns))


NEWER = with_columns(TRADES, *LATER)


def append(catalog: Catalog, cold: ColdTable, rows: list[dict[str, Any]]) -> None:
    table = open_table(catalog, cold)
    files = write_files(table, cold, pa.Table.from_pylist(rows, cold.arrow))
    with (
        table.transaction() as change,
        change.update_snapshot(snapshot_properties=carried(table)).fast_append() as added,
    ):
        for file in files:
            added.append_data_file(file)


def shown(rows: readers.Rows) -> list[list[Any]]:
    """Trade id and the columns that came later."""
    return sorted([row[4], *row[-3:]] for row in rows)


def test_old_files_read_as_null_in_every_engine_and_appending_goes_on(platform: Platform, tmp_path: Path) -> None:
    platform.put_ids([1, 2])
    platform.archiver().run()
    catalog = platform.catalog()
    row = catalog.load_table("cold.trades").scan().to_arrow().to_pylist()[0]
    before = platform.data_files()
    open_table(catalog, NEWER)
    assert platform.data_files() == before, "metadata alone"
    append(catalog, NEWER, [{**row, "trade_id": 3, "venue_seq": 7, "flags": "x", "block": True}])
    platform.put_ids([4])
    platform.archiver().run()  # this code knows nothing of the new columns
    expected = [[1, None, None, None], [2, None, None, None], [3, 7, "x", True], [4, None, None, None]]
    table = catalog.load_table("cold.trades")
    assert shown(readers.with_pyiceberg(table)) == expected
    assert shown(readers.with_polars(table)) == expected
    assert shown(readers.with_duckdb(table)) == expected
    assert shown(readers.with_clickhouse(platform.folder, [table])[0]) == expected

    Maintenance(catalog, TierConfig(), lambda: START_NS + 9 * DAY_NS, "test", tmp_path / "spill").run()
    table = catalog.load_table("cold.trades")
    assert len(list(table.scan().plan_files())) == 1
    assert shown(readers.with_pyiceberg(table)) == expected, "files of both schemas as one"
    findings = audit(catalog, platform.log, tables=["trades"]).findings
    assert [(one.kind, one.total) for one in findings] == [("excess", 1)], "but for the row that the log does not have"
    first, *_, last = snapshots(catalog)
    assert diff(catalog, first.snapshot_id, last.snapshot_id).totals == {"added": 2}


def test_columns_are_added_once_though_two_do_it_at_once(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.put_ids([1])
    platform.archiver().run()
    catalog, other = platform.catalog(), platform.catalog()
    real = catalog.commit_table

    def overtaken(*args: Any) -> Any:
        monkeypatch.undo()
        open_table(other, with_columns(TRADES, LATER[0]))
        return real(*args)

    monkeypatch.setattr(catalog, "commit_table", overtaken)
    names = [field.name for field in open_table(catalog, NEWER).schema().fields]
    assert names == [*TRADES.names, "venue_seq", "flags", "block"]
    schemas = len(catalog.load_table("cold.trades").schemas())
    open_table(catalog, NEWER)
    open_table(catalog, TRADES)
    assert len(catalog.load_table("cold.trades").schemas()) == schemas, "nothing to add, nothing committed"


def test_what_no_added_column_mends_is_refused(platform: Platform) -> None:
    catalog = platform.catalog()
    open_table(catalog, NEWER)
    with pytest.raises(TierError, match=r"column flags of cold\.trades is string, this K2 writes int"):
        open_table(catalog, with_columns(TRADES, NestedField(21, "flags", IntegerType(), required=False)))
    with pytest.raises(TierError, match=r"cold\.trades has no column seal, which every row needs"):
        open_table(catalog, with_columns(TRADES, NestedField(21, "seal", IntegerType(), required=True)))


def test_every_column_of_the_cold_tables_is_audited() -> None:
    for name, cold in TABLES.items():
        assert set(cold.names) == SOURCES[name].columns.keys() == SOURCES[name].hot_columns.keys()
