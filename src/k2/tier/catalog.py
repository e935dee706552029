"""Opening the catalog, and making the cold tables where they are missing."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.table import Table

from k2.tier.schema import NAMESPACE, RETRIES, ColdTable

NAME = "k2"  # a SQL catalog keeps it in its tables: other engines must open the catalog under the same name


def open_catalog(folder: Path, properties: Mapping[str, str] | None = None) -> Catalog:
    """The catalog that PyIceberg's `properties` describe; where they say nothing, SQLite and files in `folder`."""
    given = dict(properties or {})
    if not {"uri", "type", "py-catalog-impl"} & given.keys():
        folder.mkdir(parents=True, exist_ok=True)
        given = {"type": "sql", "uri": f"sqlite:///{folder / 'catalog.db'}", **given}
    if given.get("type") == "sql":
        given.setdefault("warehouse", (folder / "warehouse").as_uri())
    return load_catalog(NAME, **given)


def open_table(catalog: Catalog, table: ColdTable) -> Table:
    """The table as it is now, made if it does not exist."""
    try:
        return catalog.load_table(table.identifier)
    except NoSuchTableError:
        return _create(catalog, table)


def _create(catalog: Catalog, table: ColdTable) -> Table:
    with suppress(NamespaceAlreadyExistsError):
        catalog.create_namespace(NAMESPACE)
    try:
        return catalog.create_table(
            table.identifier,
            table.schema,
            partition_spec=table.partitions,
            sort_order=table.order,
            properties=table.properties,
        )
    except TableAlreadyExistsError:
        return catalog.load_table(table.identifier)


def never_retries(table: Table) -> bool:
    """Whether a commit that lost against another one fails, rather than being made again on top of the other."""
    return table.properties.get(RETRIES) == "0"
