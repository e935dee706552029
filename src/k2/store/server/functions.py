"""Which functions a read-only account may call: a list (`functions.txt`), not a search for bad ones.

And what may stand in the structure of a table that comes with a request: columns with types, and nothing that is
evaluated. The engine would take `x String ALIAS file('/etc/passwd')` for a column like any other.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from k2.store.server.native import split_types

_AGGREGATES = "Aggregate and window functions"
_COMBINATORS = (
    "if", "array", "map", "tuple", "simplestate", "state", "mergestate", "merge", "foreach", "distinct", "ordefault",
    "ornull", "resample", "argmin", "argmax", "null",
)  # fmt: skip
_COLUMN = re.compile(r"(?:\w+|`[^`\\]+`|\"[^\"\\]+\")\s+(?P<type>\w+)\s*(?P<arguments>\(.*\))?\Z", re.DOTALL)
_WITHIN = re.compile(r"(?P<called>\w+)\s*\(|[()]|[\w\s,=.+]|-(?=\d)|'[^'\\]*'|`[^`\\]*`")


@cache
def _listed() -> tuple[frozenset[str], frozenset[str]]:
    """All functions of the list, and the aggregate functions among them, in lower case."""
    every: set[str] = set()
    aggregates: set[str] = set()
    section = ""
    for line in (files("k2.store.server") / "functions.txt").read_text().splitlines():
        if line.startswith("#"):
            section = line[1:].strip()
            continue
        names = {name.lower() for name in line.split()}
        every |= names
        if section == _AGGREGATES:
            aggregates |= names
    return frozenset(every), frozenset(aggregates)


def aliases_of_listed(aliases: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Those of the engine's aliases, as (alias, name), that mean a function of the list."""
    return frozenset(alias.lower() for alias, name in aliases if may_call(name))


def may_call(name: str, aliases: frozenset[str] = frozenset()) -> bool:
    """Whether it is listed, an alias of one that is, or an aggregate function with combinators (`sumIf`)."""
    every, aggregates = _listed()
    name = name.lower()
    return name in every or name in aliases or _combined(name, aggregates, aliases)


def _combined(name: str, aggregates: frozenset[str], aliases: frozenset[str]) -> bool:
    bases = [name.removesuffix(one) for one in _COMBINATORS if name.endswith(one)]
    return any(base in aggregates or base in aliases or _combined(base, aggregates, aliases) for base in bases)


def only_columns(structure: str, types: frozenset[str]) -> bool:
    """Whether the text is a list of columns with types and nothing else. `types` are the engine's, in lower case."""
    return all(_is_column(column, types) for column in split_types(structure))


def _is_column(text: str, types: frozenset[str]) -> bool:
    found = _COLUMN.match(text)
    return bool(found and found["type"].lower() in types and _are_arguments(found["arguments"] or "", types))


def _are_arguments(text: str, types: frozenset[str]) -> bool:
    """Whether it is empty, or one pair of brackets around types, names and plain values."""
    depth = at = 0
    while at < len(text):
        found = _WITHIN.match(text, at)
        if not found or (at and not depth) or (found["called"] and found["called"].lower() not in types):
            return False
        depth += found[0].endswith("(") - (found[0] == ")")
        at = found.end()
    return depth == 0
