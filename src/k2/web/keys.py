"""API keys: made and revoked by `k2 keys`, hashed at rest, checked here."""

from typing import NamedTuple


class Key(NamedTuple):
    """What is known of a key; never the key itself. Times are ns UTC, 0 for never. `rate` 0: as configured."""

    id: str
    name: str
    created: int
    expires: int = 0
    revoked: int = 0
    rate: float = 0.0


class Keys:
    """The keys of a file."""
