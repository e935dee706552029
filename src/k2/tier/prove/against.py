"""What cold is compared with: which rows of the log, or of the hot store, and which of cold's rows must be there.

Retention drops a log's oldest records. For frames and gaps a row's own offset says whether its record was dropped. For
trades the receive time does: a frame received after the first retained record was appended came into the log behind
it, so its trades are retained (the clock may have been set back by up to a minute in between). Older trades of cold
are not missed in the log; where it has one all the same, the record that came first may have been dropped, so its
content is not compared.

The hot store has no offsets. What the log has past the snapshot's offset, or past the loader's position, may be in one
and not yet in the other: it is read, too, and missed in neither. Trades in ranges of time that were handed over to
cold, and frames older than the hot store keeps, need not be hot; those that are must be in cold.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from k2.core.codec import GAPS_STREAM, frames_stream
from k2.log import Log
from k2.store import Store, seam
from k2.store.commit import last_commit
from k2.store.embedded import quoted
from k2.tier.prove.digests import Block, Digester, Form, Groups
from k2.tier.prove.hot_side import HotSide
from k2.tier.prove.log_side import LogSide, Stretch
from k2.tier.prove.rowwise import Place
from k2.tier.prove.shapes import SOURCES
from k2.tier.prove.sides import Count, Side

CLOCK_BACK_NS = 60_000_000_000
_LEAST, _MOST = -(2**63) + 1, 2**63 - 1
_PREFIX, _SUFFIX = frames_stream("").split("..")[0] + ".", ".raw"


class Against(NamedTuple):
    """`must`: a condition over cold's columns, for rows that the other side must have.

    `where` bounds the other side's rows. `tail`: whether rows under way are to be read as well.
    """

    must: str
    where: str = "1"
    tail: bool = False
    first_may_be_gone: bool = False


def exchange_of(stream: str) -> str:
    """The exchange whose stream it is; "" for the gap ledger's, which holds all."""
    return "" if stream == GAPS_STREAM else stream.removeprefix(_PREFIX).removesuffix(_SUFFIX)


def against_log(log: Log, table: str, stretches: Sequence[Stretch]) -> Against:
    """`stretches`: what the log still has of what the snapshot contains. Raises LogError."""
    if table == "trades":
        since = {one.exchange: _received_since(log, one) for one in stretches}
        return Against(f"recv_ts_ns >= {_by_exchange(since)}", first_may_be_gone=any(one.start for one in stretches))
    return Against(f"log_offset >= {_by_exchange({one.exchange: one.start for one in stretches})}")


def _received_since(log: Log, one: Stretch) -> int:
    """Trades received then or later cannot have been dropped."""
    if one.start == 0:
        return _LEAST
    first = log.read(one.stream, one.start, 1)
    return first[0].append_ts + CLOCK_BACK_NS if first else _MOST


def against_hot(store: Store, table: str, offsets: Mapping[str, int], frames_from_ns: int) -> Against:
    """`offsets`: what the snapshot contains. Raises StoreError."""
    if table == "trades":
        handed = seam.read(store).ranges
        parts = [f"NOT (exchange_ts_ns >= {first} AND exchange_ts_ns < {end})" for first, end in handed]
        return Against(" AND ".join(parts) or "1", tail=True)
    loaded = last_commit(store).positions
    in_hot = f"log_offset < {_by_exchange({exchange_of(one): loaded.get(one, 0) for one in offsets})}"
    in_cold = f"log_offset < {_by_exchange({exchange_of(one): end for one, end in offsets.items()})}"
    kept = f" AND recv_ts_ns >= {frames_from_ns}" if table == "frames" else ""
    return Against(in_hot + kept, in_cold)


def _by_exchange(numbers: Mapping[str, int]) -> str:
    if "" in numbers:
        return f"toInt64({numbers['']})"
    if not numbers:
        return f"toInt64({_LEAST})"
    names = ", ".join(map(quoted, numbers))
    values = ", ".join(f"toInt64({number})" for number in numbers.values())
    return f"transform(exchange, [{names}], [{values}], toInt64({_LEAST}))"


class Tail:
    """What the log has and cold or the hot store may not have yet. It is read to its end of the moment, every time."""

    name = "the log"
    repeats = 0

    def __init__(
        self, digester: Digester, log: Log, form: Form, table: str, starts: Mapping[str, int], exchange: str | None
    ) -> None:
        self._digester = digester
        self._log = log
        self._form = form
        self._table = table
        self._starts = {one: start for one, start in starts.items() if exchange in (None, exchange_of(one))}

    def groups(self, on_rows: Count) -> Groups:
        return self._now().groups(on_rows)

    def look_into(self, side: str, blocks: AbstractSet[Block], groups: Groups) -> None:
        self._now().put(side)

    def show(self, side: str, places: Sequence[Place]) -> None:
        """Nothing: a row that is wrong in cold is shown as it is there and on the other side."""

    def _now(self) -> LogSide:
        return LogSide(self._digester, self._log, self._form, SOURCES[self._table], self._stretches(), ids=True)

    def _stretches(self) -> Iterable[Stretch]:
        for stream, offset in self._starts.items():
            start, end = self._log.bounds(stream)
            yield Stretch(stream, exchange_of(stream), max(start, offset), end)


def tail_of(
    digester: Digester,
    log: Log,
    store: Store | None,
    form: Form,
    table: str,
    offsets: Mapping[str, int],
    exchange: str | None,
) -> Tail:
    """What lies past the snapshot's offsets, or past the loader's positions where those are behind."""
    loaded = last_commit(store).positions if store else offsets
    return Tail(
        digester, log, form, table, {one: min(end, loaded.get(one, 0)) for one, end in offsets.items()}, exchange
    )


def other_side(
    digester: Digester, log: Log, store: Store | None, form: Form, table: str, stretches: Sequence[Stretch]
) -> Side:
    """The rows to compare with."""
    source = SOURCES[table]
    return HotSide(digester, store, form, source) if store else LogSide(digester, log, form, source, stretches)
