from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k2.store import StoreError, migrate


@pytest.fixture
def store(connect: Callable[[], Any]) -> Any:
    store = connect()
    store.execute("CREATE DATABASE IF NOT EXISTS k2")
    shipped = [row[0] for row in store.rows("SELECT number FROM k2.migrations ORDER BY number")]
    yield store
    store.execute(f"ALTER TABLE k2.migrations DELETE WHERE number > {len(shipped)} SETTINGS mutations_sync = 1")
    store.execute("DROP TABLE IF EXISTS k2.trial")


def shipped(folder: Path) -> Path:
    for migration in migrate.migrations():
        (folder / migration.file).write_text(migration.text)
    return folder


def test_what_is_applied_is_not_applied_again(store: Any) -> None:
    assert migrate.apply(store) == []


def test_a_new_file_is_applied_once_and_its_statements_in_order(store: Any, tmp_path: Path) -> None:
    number = len(migrate.migrations()) + 1
    file = f"{number:04d}_trial.sql"
    (shipped(tmp_path) / file).write_text(
        "-- a comment; with a semicolon\nCREATE TABLE IF NOT EXISTS k2.trial (a String)\nENGINE = Memory;\n"
        "INSERT INTO k2.trial VALUES ('x;y');\n"
    )
    assert migrate.apply(store, tmp_path) == [file]
    assert migrate.apply(store, tmp_path) == []
    assert store.rows("SELECT a FROM k2.trial") == [("x;y",)]
    with pytest.raises(migrate.MigrationError, match="use a newer K2"):
        migrate.apply(store)


def test_whoever_only_reads_wants_the_schema_as_it_is(store: Any, tmp_path: Path) -> None:
    migrate.require_current(store)
    number = len(migrate.migrations()) + 1
    (shipped(tmp_path) / f"{number:04d}_trial.sql").write_text("SELECT 1;\n")
    migrate.apply(store, tmp_path)
    with pytest.raises(migrate.MigrationError, match="nothing may be changed while only reading"):
        migrate.require_current(store)


def test_a_changed_file_is_named(store: Any, tmp_path: Path) -> None:
    first = min(shipped(tmp_path).iterdir())
    first.write_text(first.read_text() + "\n-- changed\n")
    with pytest.raises(migrate.MigrationError, match=first.name):
        migrate.apply(store, tmp_path)


def test_a_file_that_breaks_off_is_applied_again(store: Any, tmp_path: Path) -> None:
    number = len(migrate.migrations()) + 1
    file = shipped(tmp_path) / f"{number:04d}_trial.sql"
    create = "CREATE TABLE IF NOT EXISTS k2.trial (a String) ENGINE = Memory;\n"
    file.write_text(create + "INSERT INTO k2.nowhere VALUES (1);\n")
    with pytest.raises(StoreError):
        migrate.apply(store, tmp_path)
    file.write_text(create)
    assert migrate.apply(store, tmp_path) == [file.name]


@pytest.mark.parametrize("names", [("one.sql",), ("0002_late.sql",), ("0001_a.sql", "0001_b.sql")])
def test_misnamed_files_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1;\n")
    with pytest.raises(migrate.MigrationError):
        migrate.migrations(tmp_path)


def test_a_statement_for_each_case_is_made_once_for_each() -> None:
    text = (
        "-- why\n-- each name = kind\n-- a = UInt8\n-- b = Array(String)\nCREATE TABLE {name} (x {kind});\nSELECT 1;\n"
    )
    statements = list(migrate.Migration(1, "trial", text).statements())
    assert statements == ["CREATE TABLE a (x UInt8)", "CREATE TABLE b (x Array(String))", "SELECT 1"]
