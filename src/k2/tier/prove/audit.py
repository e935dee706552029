"""The audit: cold against the log or against the hot store, row by row in effect, and cold's ids against themselves.

Compared is one snapshot of each table, up to the log offsets that it says it contains, both ways and over all columns:
what the log has up to there is in cold, with the content of the first record of its identity; and nothing is in cold
that is not in the log (`against.py` says exactly what the other side must have), nor anything twice. Every hole in a
counter's ids must be one that the gap ledger in cold calls unavailable. A log that grows meanwhile changes nothing.
"""

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from k2.core.islands import Islands
from k2.log import Log
from k2.store import Store
from k2.store.embedded import quoted
from k2.tier.catalog import tables_of
from k2.tier.keep.proof import Proof
from k2.tier.prove.against import Tail, against_hot, against_log, exchange_of, other_side, tail_of
from k2.tier.prove.cold_side import ColdSide
from k2.tier.prove.compare import Comparison, Shown, compare, ids_of
from k2.tier.prove.contents import ALL, data_files, rows_of
from k2.tier.prove.counting import Counting, Say
from k2.tier.prove.density import Counter, Event, Hole, holes, ledger
from k2.tier.prove.digests import Digester, Form
from k2.tier.prove.log_side import Stretch
from k2.tier.prove.proven import disproven
from k2.tier.prove.rowwise import DIFFERS, DOUBLED, EXCESS, MISSING, SHOWN
from k2.tier.prove.shapes import IDENTITIES, audited
from k2.tier.schema import GAPS, PROOFS, TABLES, TRADES
from k2.tier.watermark import read_offsets


class Scope(NamedTuple):
    """What is audited; None: all. `day` is the UTC day of the trades' exchange times (frames: receive times)."""

    exchange: str | None = None
    symbol: str | None = None
    day: date | None = None

    @property
    def day_number(self) -> int | None:
        return (self.day - date(1970, 1, 1)).days if self.day else None

    @property
    def condition(self) -> str:
        parts = [f"exchange = {quoted(self.exchange)}"] if self.exchange else []
        return " AND ".join([*parts, *([f"symbol = {quoted(self.symbol)}"] if self.symbol else [])]) or "1"

    def has(self, counter: Counter) -> bool:
        """Whether trades of the counter are in the scope."""
        return self.exchange in (None, counter[0]) and self.symbol in (None, counter[1])

    def speaks_of(self, proof: Proof) -> bool:
        """Whether a proof's trades are in the scope."""
        return self.has((proof.exchange, proof.symbol, proof.epoch)) and self.day in (None, proof.day)

    def files(self, time_column: str) -> str:
        """Which data files may hold rows of the scope, as PyIceberg's scans understand it."""
        parts = [
            f"{name} = '{value.replace(chr(39), chr(39) * 2)}'"
            for name, value in (("exchange", self.exchange), ("symbol", self.symbol))
            if value
        ]
        if self.day:
            start = datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC)
            end = start + timedelta(days=1)
            parts.append(f"{time_column} >= '{start.isoformat()}' and {time_column} < '{end.isoformat()}'")
        return " and ".join(parts) or ALL


class Finding(NamedTuple):
    """Something that is not as it must be. `total` is in rows, ids, records or files, as `text` says.

    `kind`: `missing`, `excess`, `doubled`, `differs` (rows of cold), `hole` (ids), `ahead`, `lost` (watermark and log),
    `file`, `misplaced` (data files), `proof`. `shown` names the first rows.
    """

    kind: str
    table: str
    exchange: str
    symbol: str
    epoch: int
    total: int
    text: str
    shown: tuple[Shown, ...] = ()


class Compared(NamedTuple):
    """One table: its snapshot, the offsets up to which it was compared, rows read in cold and on the other side."""

    snapshot_id: int | None
    offsets: Mapping[str, int]
    rows: int
    other_rows: int


class Audit(NamedTuple):
    """The verdict. `against` is "log" or "hot"."""

    against: str
    tables: Mapping[str, Compared]
    findings: list[Finding]
    seconds: float

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def rate(self) -> float:
        """Rows of cold compared, a second."""
        return sum(one.rows for one in self.tables.values()) / max(self.seconds, 1e-9)


def audit(
    catalog: Catalog,
    log: Log,
    store: Store | None = None,
    scope: Scope = Scope(),  # noqa: B008  immutable
    tables: Iterable[str] = tuple(TABLES),
    frames_from_ns: int = 0,
    on_progress: Say | None = None,
    *,
    proofs: bool = True,
) -> Audit:
    """Compare cold with the log, or with the hot store if one is given (the log then tells what is under way).

    `frames_from_ns`: the hot store keeps frames received since then. `proofs`: sealed days are read once more, against
    their proofs. Nothing is written but temporary files; memory stays bounded.
    Raises TierError (also if this process has another embedded store open), LogError, StoreError.
    """
    begun = time.perf_counter()
    found = tables_of(catalog)
    compared: dict[str, Compared] = {}
    findings: list[Finding] = []
    events = ledger(rows_of(found[GAPS.name], GAPS.names)) if GAPS.name in found else {}
    with Digester() as digester:
        for name in tables:
            if name in found and not (scope.symbol and name == "frames"):
                one = _TableAudit(digester, found[name], log, store, scope, frames_from_ns, on_progress)
                compared[name] = one.run(events)
                findings += one.findings
    if proofs and TRADES.name in compared and PROOFS.name in found:
        findings += _disproven(found, scope, on_progress)
    return Audit("hot" if store else "log", compared, findings, time.perf_counter() - begun)


def _disproven(tables: Mapping[str, Table], scope: Scope, say: Say | None) -> list[Finding]:
    count = Counting(PROOFS.name, say, 0)
    found = disproven(tables[TRADES.name], tables[PROOFS.name], scope.speaks_of, count)
    return [Finding("proof", PROOFS.name, one.exchange, one.symbol, one.epoch, 1, one.text) for one in found]


class _TableAudit:
    def __init__(
        self,
        digester: Digester,
        table: Table,
        log: Log,
        store: Store | None,
        scope: Scope,
        frames_from_ns: int,
        on_progress: Say | None,
    ) -> None:
        self._digester = digester
        self._table = table
        self._cold = TABLES[table.name()[-1]]
        self._log = log
        self._store = store
        self._scope = scope
        self._frames_from_ns = frames_from_ns
        self._say = on_progress
        self._offsets = read_offsets(table)
        self.findings: list[Finding] = []

    def run(self, events: Mapping[Counter, list[Event]]) -> Compared:
        """Compare the table; `events` is the gap ledger. What is wrong is then in `findings`."""
        name, day = self._cold.name, self._scope.day_number
        stretches = self._stretches()
        if self._store:
            against = against_hot(self._store, name, self._offsets, self._frames_from_ns)
        else:
            against = against_log(self._log, name, stretches)
        form = Form(audited(name, self._table.schema()), IDENTITIES[name], self._scope.condition, against.must)
        bounded = form._replace(where=f"({form.where}) AND {against.where}")
        files = data_files(self._table, where=self._scope.files(self._cold.day)).values()
        cold = ColdSide(self._digester, self._table.io, form, files)
        other = other_side(self._digester, self._log, self._store, bounded, name, stretches)
        tail = tail_of(self._digester, self._log, self._store, form, name, self._offsets, self._scope.exchange)
        count = Counting(name, self._say, cold.rows + sum(one.end - one.start for one in stretches))
        result = compare(
            self._digester, form, cold, other, tail if against.tail else None, day, against.first_may_be_gone, count
        )
        self._tell(result, cold, other.name)
        if self._cold is TRADES:
            self._tell_holes(result.ids, events, tail)
        snapshot = self._table.current_snapshot()
        return Compared(snapshot.snapshot_id if snapshot else None, self._offsets, result.rows, result.other_rows)

    def _stretches(self) -> list[Stretch]:
        """What the log still has of what the snapshot says that it contains."""
        found = []
        for stream, offset in self._offsets.items():
            exchange = exchange_of(stream)
            if exchange and self._scope.exchange not in (None, exchange):
                continue
            start, end = self._log.bounds(stream)
            if end < offset:
                text = f"{stream} ends at offset {end}, cold claims to have it up to {offset}"
                self._found("ahead", exchange, offset - end, text)
            if start > offset:
                text = f"{stream} begins at offset {start}, cold ends at {offset}: what lies between is in neither"
                self._found("lost", exchange, start - offset, text)
            found.append(Stretch(stream, exchange, start, max(start, min(offset, end))))
        return found

    def _found(self, kind: str, exchange: str, count: int, text: str) -> None:
        self.findings.append(Finding(kind, self._cold.name, exchange, "", 0, count, text))

    def _tell(self, result: Comparison, cold: ColdSide, other: str) -> None:
        words = {
            MISSING: f"in {other} and not in cold",
            EXCESS: f"in cold and not in {other}",
            DOUBLED: "in cold more than once (counted beyond the first)",
            DIFFERS: f"in cold with another content than in {other}",
        }
        for one in result.found:
            text = f"{one.total} rows of {_named(one.exchange, one.symbol, one.epoch)} are {words[one.kind]}"
            self.findings.append(
                Finding(one.kind, self._cold.name, one.exchange, one.symbol, one.epoch, one.total, text, one.shown)
            )
        for path, fault in sorted(cold.faults.items()):
            self._found("file", "", 1, f"the data file {path} {fault}")
        for path in result.misplaced:
            self._found("misplaced", "", 1, f"the data file {path} has rows that do not belong into its partition")

    def _tell_holes(self, ids: Mapping[Counter, Islands], events: Mapping[Counter, list[Event]], tail: Tail) -> None:
        whole = self._scope.day is None
        events = {counter: said for counter, said in events.items() if self._scope.has(counter)}
        found = holes(ids, events, whole, {})
        if found:
            known, _ = ids_of(tail.groups(_quietly))
            for counter, islands in {} if whole else self._elsewhere(found).items():
                known[counter] = Islands([*known.get(counter, Islands()).to_list(), *islands.to_list()])
            found = holes(ids, events, whole, known)
        by_counter: dict[Counter, list[Hole]] = {}
        for one in found:
            by_counter.setdefault((one.exchange, one.symbol, one.epoch), []).append(one)
        for counter, missing in by_counter.items():
            count = sum(one.last_id - one.first_id + 1 for one in missing)
            text = f"{count} ids of {_named(*counter)} are missing in cold, and the gap ledger does not excuse them"
            shown = tuple(Shown(one.first_id, f"to {one.last_id}: {_ledger_says(one)}") for one in missing[:SHOWN])
            self.findings.append(Finding("hole", self._cold.name, *counter, count, text, shown))

    def _elsewhere(self, found: Iterable[Hole]) -> dict[Counter, Islands]:
        """Which of these ids cold has on another day: around midnight ids and times may not be in the same order."""
        bounds: dict[tuple[str, str], tuple[int, int]] = {}
        for one in found:
            first, last = bounds.get((one.exchange, one.symbol), (one.first_id, one.last_id))
            bounds[one.exchange, one.symbol] = min(first, one.first_id), max(last, one.last_id)
        ids: dict[Counter, Islands] = {}
        for (exchange, symbol), (first, last) in bounds.items():
            scope = Scope(exchange, symbol)
            form = Form(audited("trades", self._table.schema()), IDENTITIES["trades"], scope.condition)
            within = f"{scope.files(self._cold.day)} and trade_id >= {first} and trade_id <= {last}"
            files = data_files(self._table, where=within).values()
            ids |= ids_of(ColdSide(self._digester, self._table.io, form, files).groups(_quietly))[0]
        return ids


def _quietly(rows: int) -> None:
    del rows


def _named(exchange: str, symbol: str, epoch: int) -> str:
    return " ".join(part for part in (exchange, symbol, f"epoch {epoch}" if epoch else "") if part)


def _ledger_says(hole: Hole) -> str:
    return f"the gap ledger says {hole.state}" if hole.state else "the gap ledger does not know of it"
