"""Where configuration becomes parts: the one file that names backends."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from k2.config import EXCHANGES, Config, ConfigError
from k2.log import Log
from k2.store import Store
from k2.tier import Archive

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from k2.log.repair import Repair
    from k2.tier.heads import Head


def open_log(config: Config) -> Log:
    """The log that the configuration names. Raises ConfigError, LogError."""
    if config.log.backend == "lmdb":
        from k2.log.lmdb import LmdbLog

        return LmdbLog(config.log_dir, map_bytes=config.log.map_gb << 30)
    raise ConfigError(f"log.backend = {config.log.backend!r} is not known: write lmdb")


def repair_log(config: Config, stream: str) -> "Repair":
    """Mend a damaged stream of the embedded log while nothing else has it open. Raises ConfigError, LogError."""
    if config.log.backend == "lmdb":
        from k2.log.repair import repair

        return repair(config.log_dir, stream, config.log.map_gb << 30)
    raise ConfigError(f"log.backend = {config.log.backend!r} mends itself: see its own tools")


def open_store(config: Config) -> Store:
    """A connection to the hot store's database `k2`, for one thread. Connects with its first request."""
    from k2.store.clickhouse import ClickHouseStore

    return ClickHouseStore(config.store_url, config.store.user, config.store.password, database="k2")


def open_past(config: Config, moment_ms: int) -> Store:
    """A reading connection to the cold tables as they were at that moment (ms since 1970), as the store shows them."""
    from k2.store.as_of import SETTING
    from k2.store.clickhouse import ClickHouseStore

    user, password = config.store.readonly_user, config.store.readonly_password
    settings = {SETTING: str(moment_ms)}
    return ClickHouseStore(config.store_url, user, password, database="cold", settings=settings)


def open_catalog(config: Config) -> "Catalog":
    """The catalog of the cold tier. Raises TierError."""
    from k2.tier import catalog

    properties = {"uri": config.tier.catalog, "warehouse": config.tier.warehouse}
    return catalog.open_catalog(config.cold_dir, {name: value for name, value in properties.items() if value})


def open_archive(config: Config, log: Log) -> Archive:
    """What moves the log into the cold tier. Raises TierError."""
    from k2.tier.offload.archiver import Archiver

    return Archiver(log, open_catalog(config), EXCHANGES, config.tier.slice_rows)


def read_heads(config: Config) -> "dict[str, Head]":
    """The cold tables' current snapshots, by table. Quick for the embedded catalog. Raises TierError."""
    from k2.tier import heads

    if config.tier.catalog or config.tier.warehouse:
        return heads.heads_of(open_catalog(config))
    return heads.read_heads(config.cold_dir)


def open_reader(config: Config, url: str) -> Store:
    """A connection that only reads, to a store of this configuration that answers at `url`."""
    from k2.store.clickhouse import ClickHouseStore

    return ClickHouseStore(url, config.store.readonly_user, config.store.readonly_password, database="k2")


def serve_store(config: Config, ready: Callable[[int], None], read_only: bool = False) -> None:
    """Own the embedded store and serve it until told to stop. Raises StoreError, ConfigError.

    `read_only`: the data stay as they are: nothing is migrated or merged, and nobody may write.
    """
    from k2.store import fresh
    from k2.store.migrate import apply, require_current
    from k2.store.server.service import serve

    def migrate(store: Store) -> None:
        if apply(store):
            os.sync()  # the engine syncs no files of a new table: a power loss could leave one that it cannot open
        fresh.empty(store)

    def leave(store: Store) -> None:
        store.execute("SYSTEM STOP MERGES")
        require_current(store)

    serve(config, leave if read_only else migrate, ready)
