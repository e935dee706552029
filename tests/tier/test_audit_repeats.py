"""A log may have a record again, cold may not: whatever is repeated, missing, put in or changed, the audit says it.

What it must say is worked out here again, naively, from the trades that were logged and the rows that cold was given.
"""

import random
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

import pytest
from tests.tier.conftest import DAY_NS, START_NS, Platform, trade
from tests.tier.damage import Row, edit

from k2.core.types import Trade
from k2.tier.prove import log_side, rowwise, sides
from k2.tier.prove.audit import Audit, audit
from k2.tier.prove.cold_side import ColdSide
from k2.tier.prove.digests import BLOCK_BITS

BLOCK = 1 << BLOCK_BITS
KINDS = ("missing", "excess", "doubled", "differs")
PRICES = ("1", "2.5", "61000.10")
Name = tuple[str, int, int]  # symbol, epoch, id
Told = dict[tuple[str, str, int], set[int]]  # kind, symbol, epoch: ids


class Record(NamedTuple):
    """One delivery of a trade: the price and the day may be others than those of the delivery before."""

    symbol: str
    epoch: int
    id: int
    price: str = PRICES[0]
    day: int = 0

    @property
    def name(self) -> Name:
        return self[:3]

    def trade(self) -> Trade:
        at = START_NS + self.day * DAY_NS
        return trade(self.id, symbol=self.symbol, epoch=self.epoch, price=self.price, exchange_ts=at)


def drawn(draw: random.Random) -> list[Record]:
    """Few identities of each of many counters, most of them several times, near and far, with other contents."""
    return [
        Record(
            f"S{draw.randrange(20)}-USD",
            draw.randrange(2),
            BLOCK - 3 + draw.randrange(6),  # on both sides of a border of blocks
            draw.choice(PRICES),
            draw.randrange(2),
        )
        for _ in range(draw.choice((90, 400, 900)))
    ]


def damaged(rows: Iterable[Row], wrong: Mapping[Name, str]) -> list[Row]:
    changed = []
    for row in rows:
        what = wrong.get((row["symbol"], row["epoch"], row["trade_id"]), "")
        if what == "excess":
            changed.append({**row, "trade_id": row["trade_id"] + 2 * BLOCK})
        if what == "differs":
            row = {**row, "price": row["price"] + Decimal("1e-18")}  # noqa: PLW2901
        changed += [row] * {"missing": 0, "doubled": 2}.get(what, 1)
    return changed


def expected(wrong: Mapping[Name, str]) -> Told:
    found: Told = {}
    for (symbol, epoch, number), what in wrong.items():
        shown = number + 2 * BLOCK if what == "excess" else number
        found.setdefault((what, symbol, epoch), set()).add(shown)
    return found


def said(result: Audit) -> Told:
    found: Told = {}
    for one in result.findings:
        if one.kind != "hole":
            assert one.total == len(one.shown)
            found[one.kind, one.symbol, one.epoch] = {row.id for row in one.shown}
    return found


@pytest.fixture
def in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeats of records of the same piece and of earlier ones, and rows judged block by block."""
    for module in (log_side, sides):
        monkeypatch.setattr(module, "PIECE_ROWS", 60)
    monkeypatch.setattr(rowwise, "AT_ONCE", 3)


@pytest.mark.usefixtures("in_small_pieces")
@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 16))])
def test_whatever_is_repeated_and_broken_is_told_exactly(platform: Platform, seed: int) -> None:
    draw = random.Random(seed)
    records = drawn(draw)
    names = sorted({one.name for one in records})
    wrong = {name: draw.choice(KINDS) for name in draw.sample(names, draw.choice((0, 1, 40)))}
    platform.put(*(one.trade() for one in records))
    platform.archiver(slice_rows=131).run()
    edit(platform.catalog(), lambda rows: damaged(rows, wrong))
    result = audit(platform.catalog(), platform.log, tables=("trades",))
    assert said(result) == expected(wrong)
    assert result.tables["trades"].other_rows == len(records)


@pytest.fixture
def looked_into(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The files that each pass over differing blocks reads."""
    passes: list[int] = []
    read = ColdSide._read

    def counted(self: ColdSide, sql: str, numbers: Iterable[int]) -> None:
        passes.append(len(set(numbers)))
        read(self, sql, numbers)

    monkeypatch.setattr(ColdSide, "_read", counted)
    return passes


def _wide(platform: Platform) -> None:
    """A hundred blocks of ids with a few trades of each, every trade logged twice or three times, all over."""
    records = [Record("BTC-USD", 0, block * BLOCK + number) for block in range(100) for number in range(3)]
    again = [one._replace(price="2.5") if one.id % 2 else one for one in records]
    platform.put(
        *(
            one.trade()
            for one in (*records[:200], *again[190:200], *again[100:200], *records[200:], *again, *again[::7])
        )
    )
    platform.archiver(slice_rows=150).run()


@pytest.mark.usefixtures("in_small_pieces")
def test_repeats_alone_let_nothing_be_looked_into(platform: Platform, looked_into: list[int]) -> None:
    _wide(platform)
    result = audit(platform.catalog(), platform.log, tables=("trades",))
    assert [one.kind for one in result.findings] == ["hole"], "the ids are not dense"
    assert looked_into == []
    assert (result.tables["trades"].rows, result.tables["trades"].other_rows) == (300, 753)


def test_blocks_that_differ_cost_one_pass(
    platform: Platform, looked_into: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _wide(platform)
    files = len(platform.data_files())
    missing = [block * BLOCK for block in range(100)]
    edit(platform.catalog(), lambda rows: [row for row in rows if row["trade_id"] % BLOCK])
    monkeypatch.setattr(rowwise, "AT_ONCE", 3)
    result = audit(platform.catalog(), platform.log, tables=("trades",))
    (one,) = (one for one in result.findings if one.kind == "missing")
    assert (one.total, [row.id for row in one.shown]) == (100, missing[: rowwise.SHOWN])
    assert len(looked_into) == 2, "once for the hashes, once for the rows that are shown"
    assert sum(looked_into) <= files


def test_a_row_that_the_log_has_again_may_not_be_in_cold_again(platform: Platform) -> None:
    """Even if the log's two records are just the rows that cold has."""
    records = [Record("BTC-USD", 0, number) for number in (1, 2, 3)]
    platform.put(*(one.trade() for one in (*records, *records)))
    platform.archiver().run()
    edit(platform.catalog(), lambda rows: rows + rows)
    result = audit(platform.catalog(), platform.log, tables=("trades",))
    assert said(result) == {("doubled", "BTC-USD", 0): {1, 2, 3}}


def test_a_later_delivery_is_not_what_cold_must_have(platform: Platform) -> None:
    """Of records with one identity the first counts, wherever the later one stands."""
    first, later = Record("BTC-USD", 0, 1, "1"), Record("BTC-USD", 0, 1, "2.5", 1)
    platform.put(first.trade(), Record("BTC-USD", 0, 2).trade(), later.trade())
    platform.archiver().run()
    assert audit(platform.catalog(), platform.log, tables=("trades",)).ok
    edit(
        platform.catalog(),
        lambda rows: [{**row, "price": Decimal("2.5")} if row["trade_id"] == 1 else row for row in rows],
    )
    (one,) = audit(platform.catalog(), platform.log, tables=("trades",)).findings
    assert (one.kind, one.shown[0].text.partition(" (")[0]) == ("differs", "price: 1 in the log, 2.5 in cold")
