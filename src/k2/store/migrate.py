"""The store's schema: SQL files applied in order, each once, and remembered with a checksum."""

import hashlib
import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from k2.store import Store, StoreError


class MigrationError(StoreError):
    """The schema in the store and the files that ship with this version do not agree; the text names the file."""


# A statement that stands for several: `-- each NAME = OTHER`, then a line `-- VALUE = VALUE` for each of them.
_EACH = re.compile(r"^-- each (?P<first>\w+) = (?P<second>\w+)\n(?P<cases>(?:-- .+ = .+\n)+)", re.MULTILINE)


class Migration(NamedTuple):
    """A schema file: `0001_trades.sql` has number 1 and name `trades`. A semicolon at a line's end ends a statement.

    A statement under `-- each interval = start` is made once for every line below that, such as `-- 1m = window_start`,
    with `{interval}` and `{start}` filled in.
    """

    number: int
    name: str
    text: str

    @property
    def file(self) -> str:
        return f"{self.number:04d}_{self.name}.sql"

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def statements(self) -> Iterator[str]:
        for part in re.split(r";[ \t]*$", self.text, flags=re.MULTILINE):
            statement = "\n".join(line for line in part.splitlines() if not line.lstrip().startswith("--")).strip()
            if each := _EACH.search(part):
                for case in each["cases"].splitlines():
                    first, _, second = case.removeprefix("-- ").partition(" = ")
                    yield statement.replace(f"{{{each['first']}}}", first).replace(f"{{{each['second']}}}", second)
            elif statement:
                yield statement


def migrations(folder: Traversable | None = None) -> list[Migration]:
    """The schema files of `folder` (default: K2's own) by number. Raises MigrationError on a misnamed one."""
    found = []
    for file in (folder or files("k2.store") / "schema").iterdir():
        if not file.name.endswith(".sql"):
            continue
        match = re.fullmatch(r"(\d{4})_([a-z0-9_]+)\.sql", file.name)
        if not match:
            raise MigrationError(f"schema file {file.name} is not named like 0001_trades.sql")
        found.append(Migration(int(match[1]), match[2], file.read_text()))
    found.sort()
    for expected, migration in enumerate(found, start=1):
        if migration.number != expected:
            raise MigrationError(f"schema files must count 1, 2, 3, ...: {expected:04d} is missing or there twice")
    return found


def apply(store: Store, folder: Traversable | None = None) -> list[str]:
    """Bring the store's schema up to date. Returns the files applied now. Raises MigrationError, StoreError.

    A file that breaks off half-way is applied again from its beginning, so its statements must bear that: the files
    say IF NOT EXISTS or OR REPLACE where they create.
    """
    wanted = migrations(folder)
    store.execute("CREATE DATABASE IF NOT EXISTS k2")
    store.execute(
        "CREATE TABLE IF NOT EXISTS k2.migrations (number UInt32, name String, checksum String,"
        " applied_at DateTime64(3, 'UTC')) ENGINE = MergeTree ORDER BY number"
    )
    recorded = store.rows("SELECT number, checksum FROM k2.migrations")
    applied = {int(number): str(checksum) for number, checksum in recorded}
    newest = max(applied, default=0)
    if newest > len(wanted):
        raise MigrationError(
            f"the store's schema is at {newest:04d}, this K2 knows only up to {len(wanted):04d}: use a newer K2"
        )
    done = []
    for migration in wanted:
        known = applied.get(migration.number)
        if known == migration.checksum:
            continue
        if known is not None:
            raise MigrationError(
                f"schema file {migration.file} was changed after it had been applied: put it back, and add a new file"
            )
        for statement in migration.statements():
            store.execute(statement)
        store.execute(
            f"INSERT INTO k2.migrations SELECT {migration.number}, '{migration.name}', '{migration.checksum}', now64(3)"
        )
        done.append(migration.file)
    return done


def require_current(store: Store) -> None:
    """Return if nothing is left to apply; changes nothing. Raises MigrationError, StoreError."""
    wanted = {migration.number: migration.checksum for migration in migrations()}
    known = store.rows("SELECT count() FROM system.tables WHERE database = 'k2' AND name = 'migrations'")
    recorded = store.rows("SELECT number, checksum FROM k2.migrations") if known[0][0] else []
    if {int(number): str(checksum) for number, checksum in recorded} != wanted:
        raise MigrationError(
            "the store's schema is not the one of this K2, and nothing may be changed while only reading:"
            " start it once with `k2 store` (or `k2 up`)"
        )
