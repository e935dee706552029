"""For all tests: the same Hypothesis examples on every run (HYPOTHESIS_PROFILE=search draws new ones) and no clock; and
Ctrl-C as in a terminal, also for the processes that tests start, where a shell runs the tests in its background."""

import os
import resource
import signal

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("repeat", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", deadline=None, max_examples=2_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure() -> None:
    """An engine in this process keeps files open, and one process runs the tests of many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (65_536 if hard == resource.RLIM_INFINITY else min(65_536, hard), hard))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes a minute on a quiet machine may take many on a busy one."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))
