"""How often one may ask: token buckets for keys and addresses, and the headers that tell of them."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.web.serving import Served

from k2.web import limits as limits_module
from k2.web.keys import create
from k2.web.limits import Limits
from k2.web.problems import Problem


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    clock = Clock()
    limits = Limits(clock)
    assert [limits.take("a", 2.0, 3).allowed for _ in range(5)] == [True, True, True, False, False]
    clock.now += 0.5
    assert [limits.take("a", 2.0, 3).allowed for _ in range(2)] == [True, False]
    clock.now += 1000
    assert [limits.take("a", 2.0, 3).allowed for _ in range(4)] == [True, True, True, False]
    clock.now -= 5000  # a clock that jumps back gives nothing, and takes nothing
    assert not limits.take("a", 2.0, 3).allowed
    assert limits.take("b", 2.0, 3).allowed


@given(
    st.floats(0.1, 50),
    st.integers(1, 20),
    st.lists(st.floats(0, 3), max_size=60),
)
def test_never_more_than_burst_and_rate_allow(rate: float, burst: int, pauses: list[float]) -> None:
    clock = Clock()
    limits = Limits(clock)
    began, allowed = clock.now, 0
    for pause in pauses:
        clock.now += pause
        taken = limits.take("a", rate, burst)
        allowed += taken.allowed
        assert allowed <= burst + rate * (clock.now - began) + 1e-6
        if not taken.allowed:
            clock.now += taken.next_in + 1e-9
            assert limits.take("a", rate, burst).allowed
            allowed += 1


def test_the_number_of_buckets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "_KNOWN", 10)
    limits = Limits(Clock())
    for number in range(1000):
        limits.take(f"{number}", 1.0, 5)
    assert len(limits._buckets) == 10


def test_headers_and_refusal() -> None:
    clock = Clock()
    limits = Limits(clock)
    assert limits.admit("a", 0.5, 2) == {"RateLimit-Policy": '"requests";q=2;w=4', "RateLimit": '"requests";r=1;t=2'}
    limits.admit("a", 0.5, 2)
    with pytest.raises(Problem) as refused:
        limits.admit("a", 0.5, 2)
    assert refused.value.status == 429
    assert refused.value.headers["Retry-After"] == "2"
    assert limits.admit("a", 0, 2) == {}


def test_one_address_without_keys(served: Served) -> None:
    web = served.another(rate_per_s=0.01, burst=3)
    replies = [web.get("/v1/log/streams") for _ in range(5)]
    assert [reply.status for reply in replies] == [200, 200, 200, 429, 429]
    assert [int(re.findall(r"r=(\d+)", reply.headers["ratelimit"])[0]) for reply in replies] == [2, 1, 0, 0, 0]
    refused = replies[-1]
    assert 1 <= int(refused.headers["retry-after"]) <= 100
    assert refused.headers["content-type"] == "application/problem+json"
    assert web.get("/openapi.json").status == 200  # files are not counted


def test_every_key_has_its_own(served: Served, tmp_path: Path) -> None:
    _, slow = create(tmp_path / "keys.json", "slow", rate=0.01)
    _, quick = create(tmp_path / "keys.json", "quick")
    web = served.another(data=tmp_path, rate_per_s=1000.0, burst=2)
    assert [web.get("/v1/log/streams", {"X-API-Key": slow}).status for _ in range(3)] == [200, 200, 429]
    assert [web.get("/v1/log/streams", {"X-API-Key": quick}).status for _ in range(3)] == [200, 200, 200]


def test_guessing_is_limited_too(served: Served, tmp_path: Path) -> None:
    _, text = create(tmp_path / "keys.json", "only")
    web = served.another(data=tmp_path, rate_per_s=0.01, burst=3)
    assert [web.get("/v1/log/streams", {"X-API-Key": f"{n}"}).status for n in range(5)] == [401, 401, 401, 429, 429]
    assert web.get("/v1/log/streams", {"X-API-Key": text}).status == 200  # who has a key is not shut out by it
