import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.core.pacing import Backoff, TokenBucket


def test_delays_double_to_the_cap_and_begin_anew_after_success() -> None:
    backoff = Backoff(0.2, 1.0)
    assert [backoff.next(1.0) for _ in range(5)] == pytest.approx([0.2, 0.4, 0.8, 1.0, 1.0])
    backoff.reset()
    assert backoff.next(0.0) == pytest.approx(0.1)


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40))
def test_chance_shortens_a_delay_by_a_half_at_most(chances: list[float]) -> None:
    backoff, full = Backoff(0.2, 30.0), 0.2
    for chance in chances:
        assert full / 2 <= backoff.next(chance) <= full
        full = min(full * 2, 30.0)


@given(
    st.floats(0.5, 100),
    st.floats(1, 50),
    st.lists(st.tuples(st.floats(0, 3), st.floats(0.1, 30)), min_size=1, max_size=50),
)
def test_a_bucket_never_lets_more_through_than_the_rate_and_one_burst(
    rate: float, burst: float, calls: list[tuple[float, float]]
) -> None:
    bucket, now, used, start = TokenBucket(rate, burst), 10.0, 0.0, 10.0
    for pause, weight in calls:
        now += pause
        now += bucket.wait(now, weight)
        used += weight
        assert used <= burst + rate * (now - start) + 1e-6


def test_a_bucket_that_is_full_does_not_wait() -> None:
    bucket = TokenBucket(2.0, 3.0)
    assert [bucket.wait(0.0) for _ in range(5)] == pytest.approx([0, 0, 0, 0.5, 1.0])
    assert bucket.wait(100.0) == 0


def test_after_a_penalty_nobody_goes_before_its_end_and_no_burst_follows() -> None:
    bucket = TokenBucket(1.0, 10.0)
    bucket.penalise(5.0, 30.0)
    assert bucket.wait(6.0) == pytest.approx(29.0)
    bucket.penalise(7.0, 1.0)  # a shorter one does not shorten it
    assert bucket.wait(8.0) == pytest.approx(27.0)
    bucket.penalise(34.9, 0.5)
    assert bucket.wait(40.0) == 0
