"""The venues: one pure module each, which keeps `k2.core.exchange.Exchange`. Importing a module registers nothing:
`venue` finds it by name, so a new venue is a new file here and its transcript in tests/fixtures."""

from importlib import import_module

from k2.core.exchange import Exchange


def venue(name: str) -> Exchange:
    """The venue's module-level `EXCHANGE`. Raises ModuleNotFoundError for a name without a module."""
    exchange: Exchange = import_module(f"k2.exchanges.{name}").EXCHANGE
    return exchange
