"""What all questions have in common: their parameters, conditions on columns, and pages."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from k2.ask import AskError, Query, cursors
from k2.ask.times import parse_time

MOST = 1_000_000  # rows of a page
AS_OF = "iceberg_timestamp_ms"
_TIME = "RFC 3339 with any offset, ns since 1970, how long ago (`-15m`, `-24h`, `-7d`), or `now`"

_Name: TypeAlias = Annotated[str, Meta(max_length=64)]
Names: TypeAlias = tuple[_Name, ...]
Exchanges = Annotated[Names, Meta(description="Only these exchanges.", examples=[["binance", "kraken"]], max_length=64)]
Symbols = Annotated[
    Names,
    Meta(
        description="Only these symbols, `BASE-QUOTE`; `kraken:BTC-USD` means that exchange's alone.",
        examples=[["BTC-USDT", "ETH-USD"]],
        max_length=256,
    ),
]
From = Annotated[str, Meta(description=f"From this time on: {_TIME}.", examples=["-15m"], max_length=64)]
To = Annotated[str, Meta(description=f"Before this time: {_TIME}.", examples=["now"], max_length=64)]
FirstId = Annotated[int, Meta(description="From this trade id on.", ge=0, le=(1 << 63) - 1)]
LastId = Annotated[int, Meta(description="Up to this trade id.", ge=0, le=(1 << 63) - 1)]
Order = Annotated[Literal["asc", "desc"], Meta(description="`asc`: oldest first; `desc`: newest first.")]
Limit = Annotated[
    int, Meta(description="Rows of a page; 0: all rows at once (not as JSON).", ge=0, le=MOST, examples=[100])
]
Token = Annotated[str, Meta(description="`next` of the page before, with the same parameters.", max_length=1_000)]
AsOf = Annotated[
    str,
    Meta(
        description="Answer as the cold tier would have at that time, or with that snapshot of it.",
        examples=["-1d"],
        max_length=64,
    ),
]


class Question(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}, forbid_unknown_fields=True):
    """Parameters that every question has. Empty lists and texts mean that nothing was said."""

    exchange: Exchanges = ()
    symbol: Symbols = ()
    limit: Limit = 1_000
    cursor: Token = ""

    def fingerprint(self) -> str:
        """The same for every page of one walk."""
        said = msgspec.to_builtins(msgspec.structs.replace(self, limit=1, cursor=""))
        return cursors.fingerprint(type(self).__name__, said)

    def resume(self, *kinds: type) -> cursors.Cursor | None:
        """The cursor, if there is one. Raises AskError."""
        return cursors.decode(self.cursor, self.fingerprint(), kinds) if self.cursor else None

    def query(self, now_ns: int, as_of_ms: int | None = None) -> Query:
        """The SELECT that answers. `as_of_ms`: the moment that `as_of` means. Raises AskError."""
        raise NotImplementedError


class Where:
    """Conditions and the parameters in them, gathered. `prefix` keeps the parameters of two apart."""

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        self.params: dict[str, Any] = {} if params is None else params
        self._parts: list[str] = []

    def add(self, condition: str, **params: Any) -> None:
        """A condition with its parameters."""
        self._parts.append(condition)
        self.params.update(params)

    def instruments(self, exchanges: Sequence[str], symbols: Sequence[str]) -> None:
        """`exchange` and `symbol` are among these; a symbol may name its exchange: `kraken:BTC-USD`."""
        if exchanges:
            self.add("exchange IN {exchanges:Array(String)}", exchanges=sorted(set(exchanges)))
        plain = sorted({name for name in symbols if ":" not in name})
        pairs = sorted({name.partition(":")[::2] for name in symbols if ":" in name})
        if not symbols:
            return
        alone = {name for _, name in pairs}
        self.add("symbol IN {symbols:Array(String)}", symbols=sorted({*plain, *alone}))
        if pairs:
            condition = "(exchange, symbol) IN {pairs:Array(Tuple(String, String))}"
            if plain:
                condition = f"(symbol IN {{plain:Array(String)}} OR {condition})"
                self.params["plain"] = plain
            self.add(condition, pairs=pairs)

    def __str__(self) -> str:
        return " AND ".join(self._parts) or "1"


def bounds(from_: str, to: str, now_ns: int, cursor: cursors.Cursor | None) -> tuple[int | None, int | None]:
    """The times (ns) that are meant, those of the walk's beginning if it is under way. Raises AskError."""
    if cursor is not None:
        return cursor.bounds
    first = parse_time(from_, now_ns, "from") if from_ else None
    end = parse_time(to, now_ns, "to") if to else None
    if first is not None and end is not None and first > end:
        raise AskError("from", from_, f"it is later than to={to}", "write the earlier time in from")
    return first, end


def ids(first_id: int | None, last_id: int | None) -> None:
    """Raises AskError for a range of ids that is none."""
    if first_id is not None and last_id is not None and first_id > last_id:
        raise AskError("first_id", first_id, f"it is larger than last_id={last_id}", "write the smaller id in first_id")


def page(key: Sequence[str], order: str, limit: int) -> str:
    """The clauses that put the rows in order and cut a page off."""
    way = " DESC" if order == "desc" else ""
    ordered = ", ".join(f"{column}{way}" for column in key)
    return f" ORDER BY {ordered}" + (f" LIMIT {limit}" if limit else "")


def past(as_of_ms: int | None) -> Mapping[str, str]:
    """The settings that make cold tables answer as they were."""
    return {} if as_of_ms is None else {AS_OF: str(as_of_ms)}
