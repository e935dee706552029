"""Opening the catalog, and making the cold tables where they are missing. All of it raises TierError."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pyarrow.fs import FileSelector
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.io import load_file_io
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from k2.tier import TierError
from k2.tier.durable import IMPLEMENTATION
from k2.tier.evolve import migrated
from k2.tier.faults import told
from k2.tier.heads import CATALOG_FILE
from k2.tier.memory import reuse
from k2.tier.names import CATALOG, NAMESPACE
from k2.tier.schema import RETRIES, ColdTable

logging.getLogger("pyiceberg.io").setLevel(logging.WARNING)  # it tells of every file system that it opens


def open_catalog(folder: Path, properties: Mapping[str, str] | None = None) -> Catalog:
    """The catalog that PyIceberg's `properties` describe; where they say nothing, SQLite and files in `folder`."""
    reuse()
    given = dict(properties or {})
    with told(f"the catalog of the cold tier ({given.get('uri') or folder / CATALOG_FILE}) cannot be opened"):
        if not {"uri", "type", "py-catalog-impl"} & given.keys():
            if {"#", "?"} & set(str(folder.absolute())):
                raise TierError(f"the cold tier cannot live in {folder}: # and ? mean something else in its addresses")
            folder.mkdir(parents=True, exist_ok=True)
            given = {"type": "sql", "uri": f"sqlite:///{folder / CATALOG_FILE}", "py-io-impl": IMPLEMENTATION, **given}
        if given.get("type") == "sql":
            given.setdefault("warehouse", f"file://{folder.absolute() / 'warehouse'}")  # PyIceberg decodes no %20
        try:
            return load_catalog(CATALOG, **given)
        except SQLAlchemyError:  # another process makes the catalog's own tables in the same moment
            return load_catalog(CATALOG, **given)


def open_table(catalog: Catalog, table: ColdTable) -> Table:
    """The table as it is now, made if it does not exist, and with every column that this code writes."""
    with told(f"{table.identifier} cannot be opened"):
        try:
            return migrated(catalog, table, catalog.load_table(table.identifier))
        except NoSuchTableError:
            return _create(catalog, table)


def tables_of(catalog: Catalog) -> dict[str, Table]:
    """The cold tables that exist, by name."""
    with told("the cold tables cannot be listed"):
        try:
            identifiers = catalog.list_tables(NAMESPACE)
        except NoSuchNamespaceError:
            return {}
        return {identifier[-1]: catalog.load_table(identifier) for identifier in identifiers}


def _create(catalog: Catalog, table: ColdTable) -> Table:
    _refuse_forgotten(catalog, table)
    with suppress(NamespaceAlreadyExistsError, IntegrityError):
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


def _refuse_forgotten(catalog: Catalog, table: ColdTable) -> None:
    """A table that would be made over data of an older one is no new table: its catalog is lost."""
    warehouse = catalog.properties.get("warehouse", "")
    if not isinstance(catalog, SqlCatalog) or not warehouse:
        return  # a server knows its tables, and where they lie
    folder = f"{warehouse.rstrip('/')}/{NAMESPACE}/{table.name}/data"
    io = load_file_io(dict(catalog.properties), folder)
    if not isinstance(io, PyArrowFileIO):
        return
    scheme, netloc, path = io.parse_location(folder, io.properties)
    if io.fs_by_scheme(scheme, netloc).get_file_info(FileSelector(path, allow_not_found=True)):
        raise TierError(
            f"the catalog knows no {table.identifier}, but {folder} holds its data: put the catalog's file back (or, if"
            " there is no copy of it, register the newest metadata file of each table with PyIceberg's register_table)"
        )


def never_retries(table: Table) -> bool:
    """Whether a commit that lost against another one fails, rather than being made again on top of the other."""
    return table.properties.get(RETRIES) == "0"
