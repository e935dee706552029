"""The hot store's side of an audit."""

from collections.abc import Sequence
from typing import BinaryIO

from k2.store import Store
from k2.tier.prove.digests import (
    Block,
    Digester,
    Form,
    Groups,
    among,
    as_groups,
    gathered,
    into_sides,
    piped,
    structure_of_rows,
)
from k2.tier.prove.shapes import NS_A_DAY, Source
from k2.tier.prove.sides import Count


class HotSide:
    """The hot store's rows of one table, asked day by day. Not while other threads use the same connection."""

    name = "the hot store"

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

    def look_into(self, side: str, blocks: Sequence[Block], groups: Groups) -> None:
        wanted = set(blocks)
        days = {key.day for key in groups if key.of in wanted}
        if not days:
            return
        rows = self._form.rows(self._source.hot_columns, self._rows_of(min(days), max(days)))
        sql = f"SELECT * FROM ({rows}) WHERE {among(blocks)} SETTINGS prefer_column_name_to_alias = 1"
        passed = f"SELECT * FROM {piped('Native', structure_of_rows(self._form.schema))}"

        def write(pipe: BinaryIO) -> None:
            for chunk in self._store.stream(sql, "Native"):
                pipe.write(chunk)

        self._digester.fed(into_sides(side, passed), write)

    def _rows_of(self, first_day: int, last_day: int) -> str:
        start, end = (f"fromUnixTimestamp64Nano({day * NS_A_DAY}, 'UTC')" for day in (first_day, last_day + 1))
        time = self._source.hot_time
        span = f"{time} >= {start} AND {time} < {end}"
        return f"SELECT *, toInt32(-1) AS row_source FROM {self._source.hot_from} WHERE {span}"
