"""What the process has, handed to every handler: `commands/web.py` puts it together."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k2.config import Config
from k2.log import Log
from k2.web.keys import Keys
from k2.web.store import StoreReader

if TYPE_CHECKING:
    from k2.web.stream.hub import Hub


@dataclass
class Parts:
    """`log` is None until there is one. `look` gives the platform's vitals as `k2 status --json` does, at most about a
    second old. `hub` feeds live streams. `started` is the process's start, in seconds since 1970."""

    config: Config
    store: StoreReader
    log: Log | None
    look: Callable[[], Awaitable[Mapping[str, Any]]]
    keys: Keys
    hub: "Hub"
    started: float
