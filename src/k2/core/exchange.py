"""The seam between K2 and a venue: what one module in `exchanges/` has to know.

A venue is pure knowledge: names in, bytes out; bytes in, events out. The feed owns sockets, clocks and retries and
calls these functions in its event loop; so none of them blocks, and none raises on anything a venue may send.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from k2.core.types import Event, Frame, Hole, RestRequest, Trade


class Limits(NamedTuple):
    """A venue's rules, each with its source in the venue's module. Times in seconds."""

    messages_per_second: float  # what we may send on one socket
    symbols_per_message: int
    connection_age: float | None  # the venue closes the socket after this; None = never announced
    heartbeat_channel: str | None  # channel whose heartbeats arm the silence watchdog; None = any frame or ping counts
    silence: float  # longest legitimate silence of a living connection
    rest_per_second: float  # weight units per second that REST healing may spend
    rest_burst: float


class Exchange(Protocol):
    """One venue. Stateless: every answer depends on the arguments alone."""

    name: str
    channels: tuple[str, ...]  # channels that are subscribed; the first one carries trades
    limits: Limits
    ws_url: str  # production defaults; configuration may replace them (the simulator does)
    rest_url: str

    def native(self, symbol: str) -> str:
        """`BTC-USDT` to the venue's own name on the WebSocket, e.g. `BTCUSDT`."""

    def canonical(self, native_symbol: str) -> str:
        """The venue's name (WebSocket or REST form) to `BASE-QUOTE`, XBT being BTC. Raises ValueError."""

    def subscribe(self, native_symbols: Sequence[str], request_id: int) -> list[bytes]:
        """Messages that subscribe all channels for these symbols; the first carries `request_id`, then counting up."""

    def unsubscribe(self, native_symbols: Sequence[str], request_id: int) -> list[bytes]:
        """The reverse of `subscribe`."""

    def decode(self, frame: Frame) -> list[Event]:
        """A `ws` or `rest` frame to events, trades in the order to be recorded. Never raises: junk becomes a Fault.

        The same frame always gives the same events. A frame of several trades with one bad among them gives the good
        ones and a Fault. Trades from `rest` frames have source `backfill`, those from `ws` frames `live`.
        """

    def heal(self, hole: Hole) -> RestRequest:
        """The first request that helps to fill a hole."""

    def heal_next(self, hole: Hole, request: RestRequest, page: Sequence[Trade], frame: Frame) -> RestRequest | None:
        """After `page` came for `request` (its answer is `frame`): the next request, or None when the venue's answer is
        conclusive: what is still missing now does not exist there. Always advances, so that healing ends."""
