"""A set of ids as sorted, disjoint, non-adjacent ranges: dense ids make it tiny, however many there are."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable


class Islands:
    """Ids that are present. Extending the last range takes constant time; anything else is a binary search.

    Whoever knows that an id follows the last range may write it over `ends[-1]` instead of calling `add`.
    """

    __slots__ = ("_starts", "ends")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self.ends: list[int] = []
        for first, last in ranges:
            self.add_range(first, last)

    @classmethod
    def from_list(cls, ranges: Iterable[Iterable[int]]) -> "Islands":
        """The reverse of `to_list`. Raises ValueError on anything but pairs (first, last) with first <= last."""
        return cls((first, last) for first, last in ranges)

    def to_list(self) -> list[tuple[int, int]]:
        """The ranges (first, last), both inclusive, ascending."""
        return list(zip(self._starts, self.ends, strict=True))

    def add(self, number: int) -> bool:
        """Put one id in. False: it was there already."""
        ends = self.ends
        if ends and number == ends[-1] + 1:
            ends[-1] = number
            return True
        return self.add_range(number, number) == 1

    def add_range(self, first: int, last: int) -> int:
        """Put first..last in. Returns how many of them were not there before."""
        if first > last:
            raise ValueError(f"a range of ids cannot end ({last}) before it begins ({first})")
        starts, ends = self._starts, self.ends
        low = bisect_left(ends, first - 1)
        high = bisect_right(starts, last + 1)
        if low == high:
            starts.insert(low, first)
            ends.insert(low, last)
            return last - first + 1
        present = sum(ends[i] - starts[i] + 1 for i in range(low, high))
        first, last = min(first, starts[low]), max(last, ends[high - 1])
        starts[low:high] = [first]
        ends[low:high] = [last]
        return last - first + 1 - present

    def holes(self, first: int, last: int) -> list[tuple[int, int]]:
        """The ranges within first..last that are absent, ascending."""
        starts, ends = self._starts, self.ends
        absent = []
        at = first
        for i in range(bisect_left(ends, first), len(starts)):
            if starts[i] > last:
                break
            if starts[i] > at:
                absent.append((at, starts[i] - 1))
            at = ends[i] + 1
        if at <= last:
            absent.append((at, last))
        return absent

    @property
    def count(self) -> int:
        return sum(self.ends) - sum(self._starts) + len(self._starts)

    @property
    def first(self) -> int | None:
        return self._starts[0] if self._starts else None

    @property
    def last(self) -> int | None:
        return self.ends[-1] if self.ends else None

    def __contains__(self, number: int) -> bool:
        i = bisect_left(self.ends, number)
        return i < len(self._starts) and self._starts[i] <= number

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Islands) and (self._starts, self.ends) == (other._starts, other.ends)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Islands({self.to_list()})"
