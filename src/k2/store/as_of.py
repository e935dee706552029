"""The cold tables as they were: which moment a person means, as the engine's setting `iceberg_timestamp_ms` wants it.

A table answers with the snapshot that was its current one at that moment, and that its pinned metadata still lists.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from k2.store import Store, StoreError

SETTING = "iceberg_timestamp_ms"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RELATIVE = re.compile(r"-(\d{1,9})([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
SHOWN = (
    "SELECT table, snapshot_id, toUnixTimestamp64Milli(made_current_at) AS at FROM system.iceberg_history"
    " WHERE database = 'cold' ORDER BY at"
)


def resolve(store: Store, text: str, now_ns: int) -> int:
    """The moment in ms since 1970. `text` is a snapshot's id, a time (RFC 3339, UTC where it does not say; or ns since
    1970), or how long ago (`-15m`, `-2h`, `-1d`). Raises StoreError, also for a moment before the first snapshot."""
    return pick(store.rows(SHOWN), text, now_ns)


def pick(shown: Sequence[tuple[Any, ...]], text: str, now_ns: int) -> int:
    """The same, of the rows that `SHOWN` gave."""
    moments = {str(snapshot): int(at) for _, snapshot, at in shown}
    if text in moments:
        return moments[text]
    moment = moment_ms(text, now_ns)
    if moment is None:
        raise StoreError(
            f"{text!r} is no snapshot that the store shows, and no time: write a snapshot's id (k2 archive snapshots),"
            " a time such as 2026-01-31T12:00:00Z, ns since 1970, or how long ago, such as -15m, -2h, -1d"
        )
    if not moments:
        raise StoreError("the store shows no snapshot of the cold tier yet: run `k2 archive` first")
    oldest = min(moments.values())
    if moment < oldest:
        raise StoreError(f"no snapshot is as old as {_utc(moment)}: the oldest that is kept is of {_utc(oldest)}")
    return moment


def told(error: StoreError, text: str) -> StoreError:
    """The engine's error about a table that has no snapshot as old as `text`, for the person; others as they are."""
    if "No snapshot found in snapshot log before requested timestamp" not in str(error):
        return error
    return StoreError(f"a table that you ask for has no snapshot as old as {text}: see `k2 archive snapshots`")


def _utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment_ms(text: str, now_ns: int) -> int | None:
    """A time that a person wrote, in ms since 1970: RFC 3339 (UTC where it does not say), ns since 1970, or how long
    ago (`-15m`). None: it is no time."""
    if relative := _RELATIVE.match(text):
        return now_ns // 1_000_000 - int(relative[1]) * _SECONDS[relative[2]] * 1000
    if text.isdigit():
        ns = int(text)
        return ns // 1_000_000 if 946_684_800_000_000_000 <= ns < 7_258_118_400_000_000_000 else None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // timedelta(milliseconds=1)
