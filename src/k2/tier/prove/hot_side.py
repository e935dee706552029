"""The hot store's side of an audit."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import BinaryIO

from k2.store import Store
from k2.store.embedded import quoted
from k2.tier.prove.digests import (
    Block,
    Digester,
    Form,
    Groups,
    Named,
    as_groups,
    gathered,
    piped,
)
from k2.tier.prove.rowwise import Place, into_sides, into_whole, light, structure_of_light, structure_of_rows
from k2.tier.prove.shapes import NS_A_DAY, Source
from k2.tier.prove.sides import Count

AT_ONCE = 1000  # blocks or rows that one statement asks for by name


class HotSide:
    """The hot store's rows of one table, asked day by day. Not while other threads use the same connection."""

    name = "the hot store"
    repeats = 0

    def __init__(self, digester: Digester, store: Store, form: Form, source: Source) -> None:
        self._digester = digester
        self._store = store
        self._form = form
        self._source = source
        self.rows = 0

    def groups(self, on_rows: Count) -> Groups:
        found: Groups = {}
        days = self._store.rows(
            f"SELECT DISTINCT toInt32(toDate({self._source.hot_time})) FROM {self._source.hot_from}"
        )
        for (day,) in sorted(days):
            sql = self._form.groups(self._source.hot_columns, self._rows_of(day, day))
            groups = as_groups(self._store.rows(f"{sql} SETTINGS prefer_column_name_to_alias = 1"))
            gathered(found, groups)
            count = sum(group.rows for group in groups.values())
            self.rows += count
            on_rows(count)
        return found

    def look_into(self, side: str, blocks: AbstractSet[Block], groups: Groups) -> None:
        days: dict[Block, set[int]] = {}
        for key in groups:
            days.setdefault(key.of, set()).add(key.day)
        there = [(block, days[block]) for block in sorted(blocks) if block in days]
        sql = into_sides(side, f"SELECT * FROM {piped('Native', structure_of_light())}")
        self._pass(sql, "row_block", there, only_light=True)

    def show(self, side: str, places: Sequence[Place]) -> None:
        sql = into_whole(side, f"SELECT * FROM {piped('Native', structure_of_rows(self._form.schema))}")
        self._pass(sql, "row_id", [(one.name, {one.day}) for one in places], only_light=False)

    def _pass(
        self, into: str, number: str, there: Sequence[tuple[Block | Named, Iterable[int]]], *, only_light: bool
    ) -> None:
        for at in range(0, len(there), AT_ONCE):
            part = there[at : at + AT_ONCE]
            days = {day for _, on in part for day in on}
            rows = self._form.rows(self._source.hot_columns, self._rows_of(min(days), max(days)))
            listed = ", ".join(f"({quoted(e)}, {quoted(s)}, {epoch}, {n})" for (e, s, epoch, n), _ in part)
            sql = (
                f"SELECT * FROM ({light(rows) if only_light else rows})"
                f" WHERE (row_exchange, row_symbol, row_epoch, {number}) IN ({listed})"
                " SETTINGS prefer_column_name_to_alias = 1"
            )

            def write(pipe: BinaryIO, sql: str = sql) -> None:
                for chunk in self._store.stream(sql, "Native"):
                    pipe.write(chunk)

            self._digester.fed(into, write)

    def _rows_of(self, first_day: int, last_day: int) -> str:
        start, end = (f"fromUnixTimestamp64Nano({day * NS_A_DAY}, 'UTC')" for day in (first_day, last_day + 1))
        time = self._source.hot_time
        span = f"{time} >= {start} AND {time} < {end}"
        return f"SELECT *, toInt32(-1) AS row_source FROM {self._source.hot_from} WHERE {span}"
