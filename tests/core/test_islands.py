import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.core.islands import Islands

ids = st.integers(-5, 40)
ranges = st.tuples(ids, st.integers(0, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def runs(numbers: set[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


@given(st.lists(st.one_of(ids, ranges)), ranges)
def test_islands_are_a_set_of_ids(steps: list[int | tuple[int, int]], asked: tuple[int, int]) -> None:
    islands, model = Islands(), set[int]()
    for step in steps:
        if isinstance(step, int):
            assert islands.add(step) == (step not in model)
            model.add(step)
        else:
            span = set(range(step[0], step[1] + 1))
            assert islands.add_range(*step) == len(span - model)
            model |= span
    assert islands.to_list() == runs(model)
    assert islands.count == len(model)
    assert (islands.first, islands.last) == ((min(model), max(model)) if model else (None, None))
    assert bool(islands) == bool(model)
    assert all((number in islands) == (number in model) for number in range(-10, 60))
    assert islands.holes(*asked) == runs(set(range(asked[0], asked[1] + 1)) - model)
    assert Islands.from_list(islands.to_list()) == islands


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="before it begins"):
        Islands([(3, 2)])
