"""Whatever the simulator does to its clients, in the end all its trades are stored once, and the candles are right."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.conftest import Platform

from k2.config import EXCHANGES
from k2.sim.faults import FAULTS

Orders = list[tuple[str, dict[str, float]]]

LOSS: Orders = [("drop", {"probability": 0.1})]
SINGLE: dict[str, Orders] = {
    "drop": LOSS,
    "duplicate": [("duplicate", {"probability": 0.3})],
    "reorder": [("reorder", {"probability": 0.2})],
    "delay": [("delay", {"probability": 0.2, "amount": 0.6})],
    "truncate": [("truncate", {"probability": 0.1})],
    "corrupt": [("corrupt", {"probability": 0.1})],
    "junk": [("junk", {"probability": 0.2})],
    "close": [("close", {"probability": 0.005})],
    "close-loop": [("close-loop", {"seconds": 4}), ("close", {})],
    "silent": [("silent", {"seconds": 4})],
    "silent-channel": [("silent-channel", {"seconds": 4})],
    "no-handshake": [("no-handshake", {"seconds": 4}), ("close", {})],
    "refuse": [("refuse", {"seconds": 2}), ("close", {})],
    "rest-429": [*LOSS, ("rest-429", {"probability": 0.6})],
    "rest-418": [*LOSS, ("rest-418", {"probability": 0.4})],
    "rest-5xx": [*LOSS, ("rest-5xx", {"probability": 0.6})],
    "rest-slow": [*LOSS, ("rest-slow", {"probability": 0.5, "amount": 0.8})],
    "rest-timeout": [*LOSS, ("rest-timeout", {"probability": 0.4})],
    "overlap": [*LOSS, ("overlap", {"amount": 7})],
    "clock-skew ahead": [("clock-skew", {"amount": 3})],
    "clock-skew behind": [("clock-skew", {"amount": -3})],
    "epoch": [("epoch", {"count": 3})],
}

ROUNDS = (
    ("drop", "duplicate", "reorder", "delay", "truncate", "corrupt", "junk", "overlap"),
    ("close", "rest-429", "rest-5xx", "rest-slow", "clock-skew ahead"),
    ("silent", "rest-timeout", "rest-418"),
    ("close-loop", "refuse", "clock-skew behind"),
    ("silent-channel", "junk"),
    ("no-handshake", "drop"),
    ("epoch", "duplicate"),  # what is lost of the old epoch is lost: the venue has no word of it any more
)


def play(platform: Any, orders: Orders, seconds: float, rate: float = 150.0) -> int:
    """Order the faults at every venue while the market trades; then all must be stored, and true."""
    platform.trade(rate)
    time.sleep(0.5)
    for fault, fields in orders:
        platform.order(fault, "all", **fields)
    time.sleep(seconds)
    platform.control("pause")
    if any(fault == "refuse" for fault, _ in orders):
        platform.clear()
        platform.order("close", "all")  # what was refused is asked for again at the next connection, else after minutes
        time.sleep(0.3)
    platform.settle()
    return platform.equals_truth()


def test_every_fault_of_the_simulator_is_rehearsed_here() -> None:
    assert {name for orders in SINGLE.values() for name, _ in orders} | {"rest-empty"} == set(FAULTS)


@pytest.mark.slow
def test_faults_together(run_platform: Callable[..., Any]) -> None:
    """The short form: hurt frames, lost lines and an unwilling REST, all at once at every venue, round after round."""
    platform = run_platform()
    platform.emit(2)
    for names in ROUNDS:
        platform_trades = play(platform, [order for name in names for order in SINGLE[name]], 3.5)
        print(f"{', '.join(names)}: {platform_trades} trades, all there")
    platform.proven()
    assert set(platform.restarts.values()) == {0}, f"a process ended: {platform.said}"


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", SINGLE)
def test_each_fault_alone(lent: "Lent", name: str) -> None:
    """One after the other on one platform, each over before the next; a failure leaves the next a new platform."""
    platform = lent.take()
    play(platform, SINGLE[name], 5)
    platform.proven()
    assert set(platform.restarts.values()) == {0}, f"a process ended: {platform.said}"
    lent.give_back(platform)


class Lent:
    """A platform that several tests use in turn, and another one after a test that did not give it back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Platform] = []
        self._whole: Platform | None = None

    def take(self) -> Platform:
        platform, self._whole = self._whole, None
        if platform is None:
            self.close()
            folder = self._folder / f"p{len(self._made)}"
            folder.mkdir()
            platform = Platform(folder, {})
            self._made.append(platform)
            platform.start()
            platform.emit(2)
        return platform

    def give_back(self, platform: Platform) -> None:
        self._whole = platform

    def close(self) -> None:
        if self._made:
            self._made[-1].close()


@pytest.fixture(scope="module")
def lent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lent]:
    one = Lent(tmp_path_factory.mktemp("lent"))
    yield one
    one.close()


@pytest.mark.slow
def test_what_rest_does_not_have_is_unavailable_until_it_has_it(run_platform: Callable[..., Any]) -> None:
    """A hole that REST denies is closed as unavailable with the reason; the next start asks again, and heals it."""
    platform = run_platform(K2_FEED_HEAL_GIVE_UP="3")
    platform.emit(2)
    platform.order("rest-empty", "all")
    platform.order("drop", "all", count=3)
    platform.emit(3)
    platform.clear("drop")
    platform.emit(1)
    given_up = "SELECT uniqExact(exchange) FROM k2.gaps WHERE state = 'unavailable' AND reason != ''"
    platform.wait("a gap given up at every venue", lambda: platform.count(given_up) == len(EXCHANGES))
    platform.clear()
    for name in EXCHANGES:
        platform.kill(f"feed-handler-{name}")
    platform.settle()
    platform.equals_truth()
    platform.proven()
    assert platform.count(given_up) == 0
