"""Validators of answers about the past: what may be kept, and when it has to be fetched anew (`k2.ask.state`)."""

from typing import NamedTuple

from k2.ask import Query
from k2.web.store import StoreReader

OVER = 60_000_000_000  # ns; a range that ended so long ago is closed


class Known(NamedTuple):
    """`settled`: the live tail holds nothing in the range."""

    etag: str
    settled: bool


def closed(query: Query, now_ns: int) -> bool:
    """Whether all that is asked for lies in the past."""
    return bool(query.state) and query.ends is not None and query.ends <= now_ns - OVER


async def validator(store: StoreReader, query: Query) -> Known:
    """The range's state, which must be asked for before the answer is. Raises StoreError."""
    parts = await store.rows(query.state, query.params)
    settled = not any(rows for _, rows, _ in parts)
    return Known(f"{query.sql} {sorted(query.params.items())} {parts}", settled)
