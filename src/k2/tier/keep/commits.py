"""Commits of maintenance: built anew on whatever head they meet, and always with that head's watermark."""

import time
from collections.abc import Callable, Sequence

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction

from k2.tier import TierError
from k2.tier.catalog import never_retries, open_table
from k2.tier.faults import told
from k2.tier.files import remove_files
from k2.tier.keep.reading import files_by_partition
from k2.tier.schema import RETRIES, ColdTable
from k2.tier.snapshot_time import keep_order
from k2.tier.watermark import carried

TRIES = 20
PAUSE_S = 0.05  # longer after each try: an archiver that catches up commits several times a second


class Overtaken(TierError):
    """Someone else changed the same files first. Nothing was written; the next run sees what is left to do."""


def commit(catalog: Catalog, cold: ColdTable, build: Callable[[Table, Transaction], None]) -> Table:
    """Commit what `build` puts into a transaction of the table as it is now, again on each new head that comes first.

    Returns the table after it. Raises TierError if others keep coming first, and what PyIceberg raises for the rest.
    """
    for i in range(TRIES):
        table = open_table(catalog, cold)
        require_no_retries(table)
        try:
            with table.transaction() as change:
                build(table, change)
                keep_order(change, table)
            return table
        except CommitFailedException:
            time.sleep(PAUSE_S * (i + 1))
    raise TierError(f"{cold.identifier}: others kept committing for {TRIES} tries: run again later")


def require_no_retries(table: Table) -> None:
    """Raises TierError if a commit that lost a race would be repeated with an old watermark."""
    if not never_retries(table):
        raise TierError(f"{'.'.join(table.name())} has {RETRIES} = {table.properties.get(RETRIES)}: it must be 0")


def replace_files(catalog: Catalog, cold: ColdTable, old: Sequence[DataFile], new: Sequence[DataFile]) -> Table:
    """Put `new` in the place of exactly `old`, whatever is appended meanwhile. Raises Overtaken, TierError.

    Where that fails for certain the new files are removed. Where it is not known whether the catalog took the commit
    they stay: if it did not, they are orphans, and go as such.
    """

    def overwrite(table: Table, change: Transaction) -> None:
        with change.update_snapshot(snapshot_properties=carried(table)).overwrite() as files:
            for file in old:
                files.delete_data_file(file)
            for file in new:
                files.append_data_file(file)

    with told(f"{cold.identifier} cannot be committed to"):
        try:
            return commit(catalog, cold, overwrite)
        except TierError:
            _remove_unused(catalog, cold, new)
            raise
        except ValidationException as error:
            _remove_unused(catalog, cold, new)
            raise Overtaken(
                f"files of {cold.identifier} were replaced by someone else meanwhile; nothing was written: run again to"
                " see what is left to do"
            ) from error
        except (OSError, pa.ArrowException):
            _remove_unused(catalog, cold, new)
            raise


def _remove_unused(catalog: Catalog, cold: ColdTable, files: Sequence[DataFile]) -> None:
    """Remove files of a commit that failed before the catalog was asked, or was refused by it."""
    table = open_table(catalog, cold)
    used = {file.file_path for live in files_by_partition(table).values() for file in live}
    remove_files(table, [file for file in files if file.file_path not in used])
