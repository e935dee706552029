"""K2: capture every crypto trade, keep it, serve it, and prove that none is missing.

import k2

platform = k2.connect()  # what runs on this machine, or the data folder itself
platform.trades("BTC-USDT", start="-15m").to_polars()
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from k2.client import Client

__version__ = "0.1.0"
__all__ = ["__version__", "connect"]


def connect(url: str | None = None, key: str | None = None, data: "str | os.PathLike[str] | None" = None) -> "Client":
    """Connect to a platform, for reading.

    `url`: the address of `k2 web` (`http://host:port`), and `key` an API key where it wants one. Without: the data
    folder `data` (default: as configured, by `k2.toml` and `K2_DATA`), through its running `k2 web`, through its
    running store, or, if nothing runs there, by opening it. That changes nothing in the folder.
    Raises k2.client.K2Error, which says what to do.
    """
    from k2.local import connect as connect_to

    return connect_to(url, key, data)
