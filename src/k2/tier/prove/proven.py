"""Sealed days against their trades: whether cold still has exactly what the newest proofs say."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from k2.tier import TierError
from k2.tier.keep.merge import Disorder, in_order
from k2.tier.keep.proof import ContentHash, Proof, ProofKey, newest
from k2.tier.keep.reading import files_by_partition
from k2.tier.schema import TRADES

_1970 = date(1970, 1, 1)


class Disproven(NamedTuple):
    """A proof that the trades do not bear out. `symbol` is "" where the whole day could not be read."""

    exchange: str
    symbol: str
    epoch: int
    text: str


class _Seen(NamedTuple):
    rows: int
    first_id: int
    last_id: int
    content: ContentHash


def disproven(
    trades: Table,
    proofs: Table,
    wanted: Callable[[Proof], bool] = lambda _: True,
    on_rows: Callable[[int], object] = lambda _: None,
) -> Iterator[Disproven]:
    """Read every sealed day anew, in order and bounded memory, and compare it with its newest proofs. Raises TierError.

    A day to which late trades came since it was sealed does not fit its proofs, until maintenance seals it anew.
    """
    days: dict[tuple[int, str], dict[ProofKey, Proof]] = {}
    for key, proof in newest(proofs).items():
        if wanted(proof):
            days.setdefault(((proof.day - _1970).days, proof.exchange), {})[key] = proof
    files = {(record[0], record[1]): found for record, found in files_by_partition(trades).items()}
    for (day, exchange), expected in sorted(days.items()):
        try:
            seen = _seen(trades, files.get((day, exchange), []), on_rows)
        except TierError as error:
            text = f"the proofs of {exchange} for {_1970 + timedelta(day)} cannot be tried: {error}"
            yield Disproven(exchange, "", 0, text)
            continue
        yield from _judged(expected, seen)


def _seen(trades: Table, files: Sequence[DataFile], on_rows: Callable[[int], object]) -> dict[tuple[str, int], _Seen]:
    with tempfile.TemporaryDirectory(prefix="k2-audit-") as folder:
        try:
            return _read(trades, files, Path(folder), on_rows, trust=True)
        except Disorder:
            return _read(trades, files, Path(folder), on_rows, trust=False)


def _read(
    trades: Table, files: Sequence[DataFile], folder: Path, on_rows: Callable[[int], object], *, trust: bool
) -> dict[tuple[str, int], _Seen]:
    seen: dict[tuple[str, int], _Seen] = {}
    with ThreadPoolExecutor(2, "audit") as pool:
        for (symbol, epoch), rows in in_order(trades, TRADES, list(files), folder, trust=trust):
            first, last = rows["trade_id"][0].as_py(), rows["trade_id"][-1].as_py()
            before = seen.get((symbol, epoch), _Seen(0, first, last, ContentHash()))
            before.content.update(rows, pool)
            seen[symbol, epoch] = before._replace(rows=before.rows + rows.num_rows, last_id=last)
            on_rows(rows.num_rows)
    return seen


def _judged(expected: Mapping[ProofKey, Proof], seen: Mapping[tuple[str, int], _Seen]) -> Iterator[Disproven]:
    for proof in expected.values():
        have = seen.get((proof.symbol, proof.epoch))
        of = f"the proof of {proof.exchange} {proof.symbol} for {proof.day} (revision {proof.revision})"
        said = f"{proof.trade_count} trades, ids {proof.first_id} to {proof.last_id}"
        if have is None:
            text = f"{of} says {said}; cold has none"
        elif (have.rows, have.first_id, have.last_id) != (proof.trade_count, proof.first_id, proof.last_id):
            text = f"{of} says {said}; cold has {have.rows}, ids {have.first_id} to {have.last_id}"
            if have.rows > proof.trade_count:
                text += " (if they came late, `k2 archive maintain` seals the day anew)"
        elif have.content.hexdigest() != proof.content_hash:
            text = f"{of} has another content hash than cold's trades: one of their values is not what it was"
        else:
            continue
        yield Disproven(proof.exchange, proof.symbol, proof.epoch, text)
