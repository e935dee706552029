"""Where configuration becomes parts: the one file that names backends."""

from k2.config import Config, ConfigError
from k2.log import Log


def open_log(config: Config) -> Log:
    """The log that the configuration names. Raises ConfigError, LogError."""
    if config.log.backend == "lmdb":
        from k2.log.lmdb import LmdbLog

        return LmdbLog(config.log_dir, map_bytes=config.log.map_gb << 30)
    raise ConfigError(f"log.backend = {config.log.backend!r} is not known: write lmdb")
