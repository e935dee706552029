import os

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.ops.bench.samples import cpu_seconds, memory, quantile, spread


@pytest.mark.parametrize(
    ("samples", "q", "expected"),
    [
        ([7], 0.5, 7),
        ([1, 2, 3, 4], 0.5, 2),
        ([1, 2, 3, 4], 0.51, 3),
        (list(range(1, 101)), 0.99, 99),
        (list(range(1, 1001)), 0.999, 999),
        ([1, 2, 3], 1.0, 3),
    ],
)
def test_a_quantile_is_the_least_sample_that_so_many_do_not_exceed(samples, q, expected):
    assert quantile(samples, q) == expected


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 0.999, 1.0]))
def test_a_quantile_leaves_the_right_share_above(samples, q):
    found = quantile(sorted(samples), q)
    assert found in samples
    assert sum(sample > found for sample in samples) <= (1 - q) * len(samples) + 1e-9


def test_spread_scales_and_counts():
    assert spread([2_000_000, 1_000_000], 1e-6) == {
        "count": 2, "p50": 1.0, "p90": 2.0, "p99": 2.0, "p99.9": 2.0, "max": 2.0,
    }  # fmt: skip
    assert spread([]) == {"count": 0}


def test_this_process_uses_time_and_memory():
    me = psutil.Process(os.getpid())
    before = cpu_seconds(me)
    sum(range(3_000_000))
    assert cpu_seconds(me) > before
    assert 0 < memory(me).pss <= memory(me).rss
