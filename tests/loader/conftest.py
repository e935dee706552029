import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from k2.store import fresh, migrate

_spec = importlib.util.spec_from_file_location("local_store", Path(__file__).with_name("local_store.py"))
assert _spec
assert _spec.loader
local_store = sys.modules["local_store"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(local_store)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Any]]:
    """Opens connections to one chDB engine with K2's schema."""
    directory = tmp_path_factory.mktemp("store")
    opened = [local_store.LocalStore(directory)]
    migrate.apply(opened[0])
    fresh.empty(opened[0])

    def connect() -> Any:
        opened.append(local_store.LocalStore(directory))
        return opened[-1]

    yield connect
    for store in opened:
        store.close()


@pytest.fixture
def connect(engine: Callable[[], Any]) -> Iterator[Callable[[], Any]]:
    """The same with all tables emptied."""
    empty(engine())
    return engine


def empty(store: Any) -> None:
    for (table,) in store.rows(
        "SELECT name FROM system.tables WHERE database = 'k2' AND engine != 'View' AND name != 'migrations'"
    ):
        store.execute(f"TRUNCATE TABLE k2.{table}")
