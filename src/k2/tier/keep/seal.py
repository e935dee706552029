"""Sealing closed days: a proof for every symbol, and the day's candles. What late trades change is sealed anew."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction
from pyiceberg.typedef import Record

from k2.core.islands import Islands
from k2.tier import TierError
from k2.tier.catalog import open_table
from k2.tier.faults import told
from k2.tier.files import remove_files
from k2.tier.keep.candles import MinuteCandles
from k2.tier.keep.commits import Overtaken, commit, replace_files, require_no_retries
from k2.tier.keep.merge import Disorder, in_order
from k2.tier.keep.proof import ContentHash, Proof, ProofKey, counts, gaps_of, newest
from k2.tier.keep.reading import files_by_partition, held_schema, read
from k2.tier.keep.writer import FileWriter
from k2.tier.schema import OHLCV_1M, PROOFS, TRADES, ColdTable
from k2.tier.snapshot_time import keep_order
from k2.tier.watermark import read_identities

DAY_NS = 86_400_000_000_000
PROOF_FILES = 32  # so many are put together into one
_1970 = date(1970, 1, 1)
_NEVER_CUT = 1 << 62  # bytes


class Unsealed(NamedTuple):
    """One exchange's trades of a closed UTC day that no proof speaks for, or an outdated one. `revision`: the next."""

    day: date
    exchange: str
    partition: Record
    files: list[DataFile]

    @property
    def rows(self) -> int:
        return sum(file.record_count for file in self.files)


class Sealed(NamedTuple):
    """What sealing one exchange's day made: the proofs that say something new, and how many candles."""

    proofs: list[Proof]
    candles: int
    bytes: int


def due(trades: Table, proofs: Mapping[ProofKey, Proof], now_ns: int, seal_after_s: float) -> Iterator[Unsealed]:
    """Closed days to seal, oldest first: not sealed yet, or changed since. Reads no data file.

    Trades are only ever added, so a day is as it was if it has as many as its proofs say and if they still tell right
    what is missing. Raises TierError.
    """
    present = _present(trades)
    proven = counts(proofs)
    outdated = {
        (proof.day, proof.exchange)
        for proof in proofs.values()
        if gaps_of(
            present.get(proof.exchange, {}).get((proof.symbol, proof.epoch), Islands()), proof.first_id, proof.last_id
        )
        != (proof.missing, proof.preceded)
    }
    partitions = files_by_partition(trades)
    for partition in sorted(partitions, key=lambda record: (record[0], record[1])):
        number, exchange = partition[0], partition[1]
        if (number + 1) * DAY_NS + int(seal_after_s * 1e9) > now_ns:
            continue
        found = Unsealed(_1970 + timedelta(number), exchange, partition, partitions[partition])
        if proven.get((found.day, exchange)) != found.rows or (found.day, exchange) in outdated:
            yield found


def seal(
    catalog: Catalog,
    work: Unsealed,
    folder: Path,
    now_ns: int,
    on_rows: Callable[[int], object] = lambda _: None,
) -> Sealed:
    """Seal one exchange's day: first its candles, replaced as a whole, then its proofs, which say that it is done.

    `folder` takes rows that memory does not. Raises Overtaken, TierError; the next run then does it again.
    """
    candles = open_table(catalog, OHLCV_1M)  # before the trades: if anyone seals meanwhile, the commit is refused
    before = newest(open_table(catalog, PROOFS))
    trades = catalog.load_table(TRADES.identifier)
    work = work._replace(files=files_by_partition(trades).get(work.partition, []))
    try:
        gathered = _gather(trades, work, folder, on_rows, trust=True)
    except Disorder:
        gathered = _gather(trades, work, folder, on_rows, trust=False)
    present = _present(trades).get(work.exchange, {})
    with told(f"{work.exchange} {work.day} cannot be sealed"):
        rows = gathered.candles.rows(work.exchange, present)
    size = _replace_candles(candles, work, rows)
    proofs = [_proof(work, group, gathered, present, now_ns, trades, before) for group in sorted(gathered.first_ids)]
    new = [proof for proof in proofs if not (old := before.get(proof.key)) or not proof.says_the_same(old)]
    _append_proofs(catalog, new, before)
    return Sealed(new, len(rows), size)


class _Gathered(NamedTuple):
    candles: MinuteCandles
    hashes: dict[tuple[str, int], ContentHash]
    counts: dict[tuple[str, int], int]
    first_ids: dict[tuple[str, int], int]
    last_ids: dict[tuple[str, int], int]


def _gather(trades: Table, work: Unsealed, folder: Path, on_rows: Callable[[int], object], *, trust: bool) -> _Gathered:
    found = _Gathered(MinuteCandles(), {}, {}, {}, {})
    done = 0
    with ThreadPoolExecutor(2, "seal") as pool:
        for group, rows in in_order(trades, TRADES, work.files, folder, trust=trust):
            symbol, epoch = group
            with told(f"the candles of {symbol} on {work.exchange}, {work.day}, cannot be computed"):
                found.candles.add(symbol, epoch, rows)
            found.hashes.setdefault((symbol, epoch), ContentHash()).update(rows, pool)
            found.counts[symbol, epoch] = found.counts.get((symbol, epoch), 0) + rows.num_rows
            found.first_ids.setdefault((symbol, epoch), rows["trade_id"][0].as_py())
            found.last_ids[symbol, epoch] = rows["trade_id"][-1].as_py()
            done += rows.num_rows
            on_rows(done)
    return found


def _present(trades: Table) -> dict[str, dict[tuple[str, int], Islands]]:
    """All ids that cold has, by exchange, then by symbol and epoch."""
    found: dict[str, dict[tuple[str, int], Islands]] = {}
    for (exchange, symbol, epoch), islands in read_identities(trades).items():
        found.setdefault(exchange, {})[symbol, epoch] = islands
    return found


def _proof(
    work: Unsealed,
    group: tuple[str, int],
    gathered: _Gathered,
    present: Mapping[tuple[str, int], Islands],
    now_ns: int,
    trades: Table,
    before: Mapping[ProofKey, Proof],
) -> Proof:
    first, last = gathered.first_ids[group], gathered.last_ids[group]
    missing, preceded = gaps_of(present[group], first, last)
    snapshot = trades.current_snapshot()
    old = before.get((work.exchange, *group, work.day))
    return Proof(
        work.exchange,
        *group,
        work.day,
        old.revision + 1 if old else 1,
        gathered.counts[group],
        first,
        last,
        missing,
        preceded,
        gathered.hashes[group].hexdigest(),
        datetime.fromtimestamp(now_ns // 10**9, UTC),
        snapshot.snapshot_id if snapshot else 0,
    )


# -- committing --------------------------------------------------------------------------------------------------------


def _replace_candles(candles: Table, work: Unsealed, rows: list[dict[str, Any]]) -> int:
    """Put the candles in place of those that the day had when `candles` was loaded; returns their bytes on disk."""
    require_no_retries(candles)
    old = files_by_partition(candles).get(work.partition, [])
    new = _written(candles, OHLCV_1M, work.partition, rows)
    with told(f"{OHLCV_1M.identifier} cannot be committed to"):
        try:
            with candles.transaction() as change:
                with change.update_snapshot().overwrite() as files:
                    for file in old:
                        files.delete_data_file(file)
                    for file in new:
                        files.append_data_file(file)
                keep_order(change, candles)
        except CommitFailedException as error:
            remove_files(candles, new)
            raise Overtaken(
                f"{work.exchange} {work.day} was sealed by another maintenance meanwhile: run again to see what is left"
            ) from error
        except (OSError, pa.ArrowException):
            remove_files(candles, new)
            raise
    return sum(file.file_size_in_bytes for file in new)


def _append_proofs(catalog: Catalog, proofs: list[Proof], before: Mapping[ProofKey, Proof]) -> None:
    if not proofs:
        return
    files = _written(open_table(catalog, PROOFS), PROOFS, Record(), _proof_rows(proofs))
    known = {proof.key: before[proof.key] for proof in proofs if proof.key in before}

    def append(table: Table, change: Transaction) -> None:
        found = newest(table)
        if {key: found[key] for key in (proof.key for proof in proofs) if key in found} != known:
            raise Overtaken(
                f"{proofs[0].exchange} {proofs[0].day} was sealed by another maintenance meanwhile: run again to see"
                " what is left"
            )
        with change.update_snapshot().fast_append() as added:
            for file in files:
                added.append_data_file(file)

    _committed(catalog, PROOFS, append, files)


def tidy_proofs(catalog: Catalog) -> int:
    """Put the files of `cold.proofs` together when there are many; returns how many there were, else 0."""
    table = open_table(catalog, PROOFS)
    files = files_by_partition(table).get(Record(), [])
    if len(files) < PROOF_FILES:
        return 0
    rows = pa.concat_tables([part for file in files for part in read(table, PROOFS, file)])
    plain = rows.cast(PROOFS.arrow).sort_by([(name, "ascending") for name in PROOFS.sort])
    new = _written(table, PROOFS, Record(), plain.to_pylist())
    replace_files(catalog, PROOFS, files, new)
    return len(files)


def _committed(
    catalog: Catalog, cold: ColdTable, build: Callable[[Table, Transaction], None], files: list[DataFile]
) -> None:
    with told(f"{cold.identifier} cannot be committed to"):
        try:
            commit(catalog, cold, build)
        except (TierError, OSError, pa.ArrowException):
            remove_files(open_table(catalog, cold), files)
            raise


def _written(table: Table, cold: ColdTable, partition: Record, rows: list[dict[str, Any]]) -> list[DataFile]:
    if not rows:
        return []
    schema = held_schema(table, cold)
    with FileWriter(table, cold, partition, _NEVER_CUT) as writer, told(f"rows of {cold.identifier} do not fit"):
        writer.write(None, pa.Table.from_pylist(rows, schema))
        return writer.finish()


def _proof_rows(proofs: list[Proof]) -> list[dict[str, Any]]:
    ranges = [[{"first_id": first, "last_id": last} for first, last in proof.missing] for proof in proofs]
    rows = [{**proof._asdict(), "missing": missing} for proof, missing in zip(proofs, ranges, strict=True)]
    return sorted(rows, key=lambda row: [row[name] for name in PROOFS.sort])
