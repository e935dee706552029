"""The leak test finds a slope that is there, and does not cry at what is none."""

import math
import random

import pytest

from k2.ops.burnin.slope import slope, steady

EVERY_H = 10 / 3600
HOURS = 2.0
LOOKS = int(HOURS / EVERY_H)
WARM_UP = 0.5
SEEDS = range(50)


def correlated(seed, keeps=0.98, spread=1.0):
    """Noise in which a sample keeps most of the one before, as memory does."""
    draw = random.Random(seed)
    value, found = draw.gauss(0, spread / math.sqrt(1 - keeps**2)), []
    for _ in range(LOOKS):
        value = keeps * value + draw.gauss(0, spread)
        found.append(value)
    return found


def life(values, begin=0.0):
    return [(begin + index * EVERY_H, value) for index, value in enumerate(values)]


def found_in(make):
    """In how many of the seeds a slope is called one."""
    return sum(not slope([steady(life(make(seed)), WARM_UP)]).flat for seed in SEEDS)


def test_a_leak_is_found_and_its_size_is_told():
    for leak in (10.0, -10.0):
        values = [100 + leak * index * EVERY_H + noise for index, noise in enumerate(correlated(1, 0.9, 0.1))]
        found = slope([steady(life(values), WARM_UP)])
        assert not found.flat
        assert found.low < leak < found.high
        assert found.per_hour == pytest.approx(leak, rel=0.2)


def test_a_leak_under_noise_is_found_nearly_always():
    def leaking(seed):
        return [20 * index * EVERY_H + noise for index, noise in enumerate(correlated(seed, 0.9, 0.3))]

    assert found_in(leaking) >= 45


@pytest.mark.parametrize(("keeps", "at_most"), [(0.0, 3), (0.9, 3), (0.98, 3), (0.995, 6)])
def test_noise_is_no_leak_however_alike_neighbours_are(keeps, at_most):
    assert found_in(lambda seed: correlated(seed, keeps)) <= at_most


def test_a_warm_up_is_no_leak():
    def warming(seed):
        return [
            150 * (1 - math.exp(-index * EVERY_H / 0.08)) + (60 if index * EVERY_H > 0.4 else 0) + noise
            for index, noise in enumerate(correlated(seed, 0.9))
        ]

    assert found_in(warming) <= 3


@pytest.mark.parametrize("at", [0.3, 0.5, 0.7, 0.9])
def test_a_single_step_is_no_leak(at):
    assert found_in(lambda seed: [40 * (i > at * LOOKS) + noise for i, noise in enumerate(correlated(seed, 0.9))]) <= 3


def test_teeth_of_a_saw_are_no_leak():
    def saw(seed):
        period = 60 + 7 * seed
        return [(index + 31 * seed) % period / period * 50 for index in range(LOOKS)]

    assert found_in(saw) <= 3


def test_two_lives_with_different_levels_have_one_slope():
    """An interruption: the new process begins lower, and leaks as the old one did."""
    first = [300 + 10 * index * EVERY_H for index in range(LOOKS // 2)]
    second = [100 + 10 * index * EVERY_H for index in range(LOOKS // 2)]
    lives = [steady(life(first), 0.2), steady(life(second, begin=5.0), 0.2)]
    assert slope(lives).per_hour == pytest.approx(10.0)
    assert not slope(lives).flat


def test_a_constant_is_flat():
    found = slope([life([7.0] * LOOKS)])
    assert found == (0.0, 0.0, 0.0)
    assert found.flat


@pytest.mark.parametrize("lives", [[], [[]], [life([1.0, 2.0])], [life([1.0] * 20), life([2.0] * 15, begin=1.0)]])
def test_too_little_tells_nothing(lives):
    assert slope(lives) is None
