"""Bringing a cold table up to the columns that this code writes.

A column that the table lacks is added by an Iceberg schema evolution: metadata alone, no file is touched, and files
from before read as null in every engine. So a new column is optional and has no default (engines differ in what they
make of one). Columns that this code does not know stay: it writes null into them.
"""

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.types import NestedField

from k2.tier import TierError
from k2.tier.schema import ColdTable

TRIES = 5


def migrated(catalog: Catalog, cold: ColdTable, table: Table) -> Table:
    """The table with all columns of `cold`; costs nothing where it has them. Safe when several do it at once.

    Raises TierError for a difference that no added column mends.
    """
    for _ in range(TRIES):
        missing = _missing(cold, table)
        if not missing:
            return table
        try:
            with table.update_schema() as change:
                for column in missing:
                    change.add_column(column.name, column.field_type, column.doc)
        except CommitFailedException:
            pass  # someone else added columns, or committed rows
        table = catalog.load_table(cold.identifier)
    raise TierError(f"{cold.identifier}: others kept committing for {TRIES} tries while columns were added: run again")


def _missing(cold: ColdTable, table: Table) -> list[NestedField]:
    there = {column.name: column for column in table.schema().fields}
    found = []
    for column in cold.schema.fields:
        known = there.get(column.name)
        if known is None and column.required:
            raise TierError(
                f"{cold.identifier} has no column {column.name}, which every row needs: it is not a table that K2 made;"
                " give the cold tier a catalog of its own"
            )
        if known is None:
            found.append(column)
        elif str(known.field_type) != str(column.field_type) and not _alike(known, column):
            raise TierError(
                f"column {column.name} of {cold.identifier} is {known.field_type}, this K2 writes {column.field_type}:"
                " use the K2 that made the table, or give the cold tier a catalog of its own"
            )
    return found


def _alike(one: NestedField, other: NestedField) -> bool:
    """Equal but for the numbers that a catalog gave to nested fields."""
    return not one.field_type.is_primitive and type(one.field_type) is type(other.field_type)
