"""The sides of an audit: rows of cold, of the log and of the hot store, as digests and one by one.

Every side gives its digests in one pass and bounded memory; when asked for blocks, it puts their rows where they can be
looked into, in a second pass over the files or records concerned. Two statements at once keep two cores busy: the
engine's statements and Arrow's decoding release the GIL.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

from k2.tier.prove.digests import Block, Groups, gathered
from k2.tier.prove.rowwise import Place

AT_ONCE = 2
PIECE_ROWS = 500_000  # rows of one statement: what a second thread can take meanwhile

Count = Callable[[int], object]
T = TypeVar("T")


class Side(Protocol):
    """Rows to compare. `name` is what a person calls it.

    `repeats`: how many rows the last `groups` left out, because the side had had their identity before.
    """

    name: str
    repeats: int

    def groups(self, on_rows: Count) -> Groups:
        """The digests of all rows; `on_rows` is told, from several threads, how many more were read."""

    def look_into(self, side: str, blocks: AbstractSet[Block], groups: Groups) -> None:
        """Put the rows of these blocks among the sides, as `side`. `groups` is what the pass before found."""

    def show(self, side: str, places: Sequence[Place]) -> None:
        """Put the rows at these places among those that are shown, as `side`; others with their identities may come."""


def in_turn(tasks: Iterable[Callable[[], T]]) -> Iterator[T]:
    """What the tasks return, in their order, though two of them run at once; not far ahead of who takes it."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(AT_ONCE, "audit") as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(task))
                if len(waiting) > AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def together(tasks: Iterable[Callable[[], Groups]]) -> Groups:
    found: Groups = {}
    for groups in in_turn(tasks):
        gathered(found, groups)
    return found
