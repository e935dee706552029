"""For the tests of the page: `browser` (chromium), and a platform to look at.

`served` is the small served platform of tests/web: quick to start. `demo` is a running `k2 demo` of its own.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright
from tests.page.demo import Demo
from tests.page.looking import GET_A_BROWSER, launch
from tests.web.serving import Served, begin


@pytest.fixture(scope="module")  # while it lives, an event loop runs in this thread, and other tests want their own
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = launch(playwright)
        if found is None:
            pytest.skip(GET_A_BROWSER)
        yield found
        found.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    platform = begin(tmp_path_factory.mktemp("served"))
    yield platform
    platform.close()


@pytest.fixture(scope="module")  # it trades all the while
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    running = Demo(tmp_path_factory.mktemp("demo"))
    yield running
    running.stop()
