"""The sides of an audit: rows of cold, of the log and of the hot store, as digests and one by one.

Every side gives its digests in one pass and bounded memory; when asked for blocks, it puts their rows where they can be
looked into. Two passes at once keep two cores busy: the engine's statements and Arrow's decoding release the GIL.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from k2.tier.prove.digests import Block, Groups, gathered

AT_ONCE = 2
PIECE_ROWS = 500_000  # rows of one statement: what a second thread can take meanwhile

Count = Callable[[int], object]


class Side(Protocol):
    """Rows to compare. `name` is what a person calls it."""

    name: str

    def groups(self, on_rows: Count) -> Groups:
        """The digests of all rows; `on_rows` is told, from several threads, how many more were read."""

    def look_into(self, side: str, blocks: Sequence[Block], groups: Groups) -> None:
        """Put the rows of these blocks among the sides, as `side`. `groups` is what the pass before found."""


def together(tasks: Iterable[Callable[[], Groups]]) -> Groups:
    found: Groups = {}
    with ThreadPoolExecutor(AT_ONCE, "audit") as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            for future in futures:
                gathered(found, future.result())
        except BaseException:
            for future in futures:
                future.cancel()
            raise
    return found
