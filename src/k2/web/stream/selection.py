"""Which records a subscriber wants: symbols as people write them, turned into what a record's key is compared with."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from k2.config import EXCHANGES
from k2.web.problems import Problem

MOST_SYMBOLS = 1_000
_SYMBOL = re.compile(r"[A-Z0-9]{1,20}-[A-Z0-9]{1,20}\Z").match


@dataclass(frozen=True)
class Selection:
    """`whole` names exchanges of which every symbol is wanted, `pairs` are (exchange, symbol) of the others."""

    whole: frozenset[str]
    pairs: frozenset[tuple[str, str]]

    def keys(self, exchange: str) -> frozenset[str] | None:
        """The wanted symbols of an exchange; None: all of them."""
        return None if exchange in self.whole else frozenset(s for name, s in self.pairs if name == exchange)

    def exchanges(self) -> list[str]:
        """The exchanges of which anything is wanted."""
        return [name for name in EXCHANGES if self.keys(name) != frozenset()]

    def has(self, exchange: str, symbol: str) -> bool:
        return exchange in self.whole or (exchange, symbol) in self.pairs


def select(texts: Iterable[str]) -> Selection:
    """`*`, `EXCHANGE:*`, `SYMBOL` (at every exchange) or `EXCHANGE:SYMBOL`, in any case. Raises Problem."""
    whole: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    texts = list(texts)
    if not texts:
        raise _refused("the list of symbols is empty", "name symbols, or * for all of them")
    if len(texts) > MOST_SYMBOLS:
        raise _refused(f"{len(texts)} symbols were named", f"name at most {MOST_SYMBOLS}, or EXCHANGE:*, or *")
    for text in texts:
        exchange, _, symbol = text.strip().rpartition(":")
        exchange, symbol = exchange.lower(), symbol.upper()
        if exchange and exchange not in EXCHANGES:
            raise _refused(f"{text[:60]!r} names no exchange of K2", f"the exchanges are {', '.join(EXCHANGES)}")
        named = (exchange,) if exchange else EXCHANGES
        if symbol == "*":
            whole.update(named)
        elif _SYMBOL(symbol):
            pairs.update((name, symbol) for name in named)
        else:
            raise _refused(f"{text[:60]!r} is no symbol", "write BTC-USDT, binance:BTC-USDT, kraken:* or *")
    return Selection(frozenset(whole), frozenset(pair for pair in pairs if pair[0] not in whole))


def _refused(detail: str, remedy: str) -> Problem:
    return Problem(400, "Invalid parameter", detail, remedy, "invalid-parameter")
