"""Two sides of the same table: what one has and the other lacks, has twice, or has otherwise."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from k2.core.islands import Islands
from k2.tier.prove.cold_side import ColdSide
from k2.tier.prove.digests import Block, Digester, Form, Groups, gathered
from k2.tier.prove.rowwise import DIFFERS, EXCESS, MISSING, SHOWN, Judged, Sides, whole
from k2.tier.prove.sides import Count, Side


class Found(NamedTuple):
    """Rows of one counter with which something is wrong in cold: how many, and the first ones.

    `kind`: `missing` in cold, in `excess` there, `doubled` there (rows beyond the first), or its content `differs`.
    """

    kind: str
    exchange: str
    symbol: str
    epoch: int
    total: int
    shown: tuple["Shown", ...]


class Shown(NamedTuple):
    """One row: its id, and what is wrong, in words (`price: 61000.10 in the log, 61000.11 in cold`; or a file)."""

    id: int
    text: str


class Comparison(NamedTuple):
    """`rows` of cold and `other_rows` were compared; `ids` are cold's, by exchange, symbol and epoch."""

    rows: int
    other_rows: int
    found: list[Found]
    ids: dict[tuple[str, str, int], Islands]
    misplaced: list[str]


def compare(
    digester: Digester,
    form: Form,
    cold: ColdSide,
    other: Side,
    tail: Side | None = None,
    day: int | None = None,
    first_may_be_gone: bool = False,
    on_rows: Count = lambda _: None,
    each_once: bool = False,
) -> Comparison:
    """Compare cold with another side, both ways. Raises TierError, LogError, StoreError.

    `tail` has what the other side may have and cold not yet, or the reverse. `day` (days since 1970): only rows of it.
    `first_may_be_gone`: of a row that the other side has several times the first counts; it may have been dropped, so
    content is compared only where the other side must have the row. `each_once`: the other side has no row twice; then
    blocks that only one side has are counted without being looked into, but for the first rows.
    """
    in_other = other.groups(on_rows)
    in_tail = tail.groups(on_rows) if tail else {}
    in_cold = cold.groups(on_rows)
    ids, doubled = ids_of(in_cold)
    blocks = _suspicious(in_cold, in_other, in_tail, day) | doubled
    found: list[Found] = []
    if each_once:
        counted = _one_sided(blocks - doubled, in_cold, in_other)
        blocks -= {block for block, _ in counted}
        found += [one for _, one in counted]
    if blocks:
        sides = Sides(digester, blocks)
        cold.look_into("cold", blocks, in_cold)
        other.look_into("other", blocks, in_other)
        if tail:
            tail.look_into("tail", blocks, in_tail)
        wrong = sides.judged(day, first_may_be_gone)
        found += _shown(digester, form, sides, wrong, cold, other)
        sides.drop()
    return Comparison(
        sum(group.rows for group in in_cold.values()),
        sum(group.rows for group in in_other.values()) + other.repeats,
        _summed(found),
        ids,
        _misplaced(in_cold, cold),
    )


def ids_of(groups: Groups) -> tuple[dict[tuple[str, str, int], Islands], set[Block]]:
    """The ids of every counter, and the blocks in which an id stands twice."""
    found: dict[tuple[str, str, int], Islands] = {}
    doubled = set()
    for key, group in groups.items():
        islands = found.setdefault((key.exchange, key.symbol, key.epoch), Islands())
        if sum(islands.add_range(first, last) for first, last in group.ids) != group.rows:
            doubled.add(key.of)
    return found, doubled


def _suspicious(cold: Groups, other: Groups, tail: Groups, day: int | None) -> set[Block]:
    expected = dict(cold)
    gathered(expected, tail)
    found = set()
    for key in expected.keys() | other.keys():
        have, want = expected.get(key), other.get(key)
        if day is not None and key.day != day and key not in cold:
            continue
        if want is None and not key.must:
            continue
        if have is None or want is None or not have.same(want):
            found.add(key.of)
    return found


def _one_sided(blocks: set[Block], cold: Groups, other: Groups) -> list[tuple[Block, Found]]:
    """Blocks that one side has and the other does not, but for the first of each counter, which are to be shown."""
    rows: dict[str, dict[Block, int]] = {EXCESS: {}, MISSING: {}}
    for kind, groups in ((EXCESS, cold), (MISSING, other)):
        for key, group in groups.items():
            rows[kind][key.of] = rows[kind].get(key.of, 0) + group.rows
    shown: dict[tuple[str, str, str, int], int] = {}
    found = []
    for block in sorted(blocks):
        if (block in rows[EXCESS]) == (block in rows[MISSING]):
            continue
        kind = EXCESS if block in rows[EXCESS] else MISSING
        exchange, symbol, epoch, _ = block
        of = (kind, exchange, symbol, epoch)
        if shown.get(of, 0) >= SHOWN:
            found.append((block, Found(*of, rows[kind][block], ())))
        shown[of] = shown.get(of, 0) + rows[kind][block]
    return found


def _shown(
    digester: Digester, form: Form, sides: Sides, wrong: Sequence[Judged], cold: ColdSide, other: Side
) -> list[Found]:
    if not wrong:
        return []
    names = {(one.exchange, one.symbol, one.epoch, number) for one in wrong for number in one.ids}
    at = sides.places(form.schema, names)
    cold.show("cold", at["cold"])
    other.show("other", at["other"])
    columns = [field.name for field in form.schema.fields]
    rows = whole(digester, columns)
    return [
        Found(
            *one[:5],
            tuple(
                Shown(number, _words(one.kind, columns, rows[*one[1:4], number], cold, other.name))
                for number in one.ids
            ),
        )
        for one in wrong
    ]


def _words(kind: str, names: list[str], rows: dict[str, list[tuple[Any, ...]]], cold: ColdSide, other: str) -> str:
    paths = sorted({cold.files[row[0]].path for row in rows.get("cold", ())})
    if kind == MISSING:
        return _told(names, rows["other"][0][1:])
    if kind == DIFFERS:
        _, *want = rows["other"][0]
        _, *have = rows["cold"][0]
        differing = [
            f"{name}: {_short(a)} in {other}, {_short(b)} in {cold.name}"
            for name, a, b in zip(names, want, have, strict=True)
            if a != b
        ]
        return f"{'; '.join(differing)} ({', '.join(paths)})"
    return f"{_told(names, rows['cold'][0][1:])} ({', '.join(paths)})"


def _told(names: list[str], values: Sequence[Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in zip(names, values, strict=True))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _summed(found: Iterable[Found]) -> list[Found]:
    """One entry for each kind and counter."""
    together: dict[tuple[str, str, str, int], Found] = {}
    for one in found:
        known = together.get(one[:4])
        if known:
            shown = tuple(sorted((*known.shown, *one.shown))[:SHOWN])
            one = known._replace(total=known.total + one.total, shown=shown)  # noqa: PLW2901
        together[one[:4]] = one
    return sorted(together.values())


def _misplaced(groups: Groups, cold: ColdSide) -> list[str]:
    """Files with rows that do not belong into their partition: a reader that prunes would not see them."""
    found = set()
    for key, group in groups.items():
        for number in group.sources:
            file = cold.files[number]
            if file.partition != (key.day, key.exchange):
                found.add(file.path)
    return sorted(found)
