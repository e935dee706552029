"""For the tests of this folder: a served platform, and clients of it over HTTP and over its store."""

from collections.abc import Iterator

import pytest
from tests.web.serving import Served, begin

from k2.client import Client
from k2.client.api import Api
from k2.local import store_of


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all tests of a worker; see tests/web/serving.py."""
    platform = begin(tmp_path_factory.mktemp("client"))
    yield platform
    platform.close()


@pytest.fixture
def api(served: Served) -> Iterator[Client]:
    with Client(Api(served.url)) as client:
        yield client


@pytest.fixture
def direct(served: Served) -> Iterator[Client]:
    with Client(store_of(served.config)) as client:
        yield client
