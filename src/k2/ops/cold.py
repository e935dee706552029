"""What happens around the cold tier: the hot store shows what was committed, and lets go of what is old."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from k2.config import Config
from k2.store import StoreError, StoreUnavailable
from k2.store.pins import show
from k2.tier.heads import Head
from k2.wire import open_store

if TYPE_CHECKING:
    from k2.store.expire import Expiry
    from k2.store.expire import Step as ExpiryStep

LOADER_WITHIN_S = 15.0
GRACE = 1.5  # times the longest that a statement may take


class Visible(NamedTuple):
    """Tables of which the hot store shows a newer snapshot now; or why it does not."""

    pinned: tuple[str, ...] = ()
    why_not: str = ""


def maintained_file(config: Config) -> Path:
    """Its time of change is when maintenance last ended well."""
    return config.cold_dir / "maintained"


def make_visible(config: Config, heads: Mapping[str, Head]) -> Visible:
    """Let the hot store show these snapshots; waits a moment for a loader that is behind.

    Raises nothing of the store's: the cold tier is whole without it, and the next run tries again.
    """
    if not heads:
        return Visible()
    store = open_store(config)
    try:
        shown = show(store, heads, LOADER_WITHIN_S)
    except StoreUnavailable:
        return Visible(why_not="the store does not run: what is new in the cold tier is shown by the next `k2 archive`")
    except StoreError as error:
        return Visible(why_not=f"the store does not show what is new in the cold tier: {error}")
    finally:
        store.close()
    if shown.behind:
        behind = ", ".join(f"{count:,} records of {stream}" for stream, count in shown.behind.items())
        return Visible(shown.pinned, f"not shown yet, for the loader has yet to load {behind}")
    return Visible(shown.pinned)


def let_go(
    config: Config, heads: Mapping[str, Head], dry_run: bool, on_step: "Callable[[ExpiryStep], object]"
) -> "tuple[Expiry, str]":
    """Let the hot store go of what is older than its settings say and the cold tier has: what was done, and what went
    wrong, if anything."""
    from k2.store.expire import DaysDiffer, Expiry, expire  # not needed where nothing is new, which is to be quick

    settings = config.store
    if not heads or not (settings.trades_days or settings.frames_days):
        return Expiry((), 0), ""
    store = open_store(config)
    try:
        grace_s = GRACE * settings.max_execution_s
        days = settings.trades_days, settings.frames_days
        return expire(store, heads, time.time_ns(), *days, dry_run, grace_s, on_step), ""
    except StoreUnavailable:
        return Expiry((), 0), "the store does not run: it lets go of nothing now"
    except DaysDiffer as error:
        return error.expiry, str(error)
    except StoreError as error:
        return Expiry((), 0), f"the store let go of nothing more: {error}"
    finally:
        store.close()
