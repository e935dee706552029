"""For the tests of this folder: `served`, a platform with a log, a store, a loader and a web, all of it real.

    def test_it(served: Served) -> None:
        assert served.get("/v1/symbols").status == 200

One for all tests of a worker: leave the trades of `history()` alone; `served.say()` adds others (use ids and symbols of
your own). `served.another(rate_per_s=1)` is one more web over the same data; `WebProcess(served.environ)` a process.
"""

from collections.abc import Iterator

import pytest
from tests.web.serving import Served, begin


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """See this module's docstring."""
    platform = begin(tmp_path_factory.mktemp("served"))
    yield platform
    platform.close()
