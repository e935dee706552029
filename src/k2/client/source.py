"""Who answers: the HTTP API, or a store directly. Both take the API's paths and parameters, and give the same rows."""

from collections.abc import Mapping
from typing import Any, Protocol

from k2.client.result import Batches

Params = Mapping[str, Any]


class Source(Protocol):
    """Thread-safe. Every method raises K2Error."""

    name: str

    def table(self, path: str, params: Params) -> Batches:
        """The rows of `GET path`; a value is text, an integer, a boolean or a list of them."""

    def sql(self, text: str, params: Params) -> Batches:
        """The rows of a SELECT; `params` fill `{name:Type}`."""

    def live(self) -> tuple[str, Mapping[str, str], Any]:
        """For live streams: the WebSocket's address, headers, and aiohttp's `ssl` argument."""

    def close(self) -> None:
        """Release what is held. Idempotent."""
