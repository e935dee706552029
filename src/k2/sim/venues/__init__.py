"""What each venue says and how it says it. One module a venue; sockets, clocks and files stay outside.

`Client` is a connection and `Book` the venue's trades as its module sees them; the server implements both.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from k2.sim.generator import Instrument
from k2.sim.truth import Made, decimal_text


class Client(Protocol):
    """One WebSocket connection. `trades` and `heartbeats` hold the venue's own symbol names."""

    trades: set[str]
    heartbeats: set[str]
    last_sent: float  # s, the server's monotonic clock
    last_pong: float
    memory: dict[str, float]  # the venue module's own, for this connection

    def now(self) -> float:
        """The server's monotonic clock, s."""

    def ping(self, payload: bytes) -> None:
        """A ping frame, now."""

    def send(self, payload: bytes) -> None:
        """One text frame, now."""

    def close(self, code: int, reason: str) -> None:
        """A close frame, then the end."""


class Book(Protocol):
    """A venue's instruments and what they traded, newest epoch only: a relisted symbol's past is gone there as well."""

    by_native: Mapping[str, Instrument]

    def now(self) -> int:
        """The venue's clock, ns."""

    def refuses(self, native: str) -> bool:
        """Whether the venue refuses subscriptions to this symbol at present."""

    def latest(self, instrument: Instrument, limit: int) -> list[Made]:
        """The newest trades, oldest first, for the socket: no REST fault touches them."""

    def from_id(self, instrument: Instrument, trade_id: int, limit: int) -> list[Made]:
        """Trades with this id or higher, ascending."""

    def before_id(self, instrument: Instrument, trade_id: int | None, limit: int) -> list[Made]:
        """The newest trades below this id (all, if None), oldest first."""

    def after_time(self, instrument: Instrument, exchange_ts: int, limit: int) -> list[Made]:
        """Trades later than this time, ascending."""


class Answer(NamedTuple):
    """A REST answer."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = {}


class Venue(Protocol):
    """One venue's protocol."""

    name: str
    path: str  # of the WebSocket on the simulator's port
    refill: float  # REST weight that comes back each second
    burst: float  # REST weight that can be spent at once
    time_unit: int  # ns; the venue's clock has no finer ticks

    def native(self, symbol: str) -> str:
        """The venue's WebSocket name of BASE-QUOTE."""

    def decimals(self, symbol: str, price: float) -> tuple[int, int, int]:
        """(price places, quantity places, places printed at least) of an instrument at about this price."""

    def prepare(self, instrument: Instrument) -> None:
        """Print the instrument's prices and sizes, and set its `row`, which prints a trade."""

    def moment(self, exchange_ts: int, buy: int) -> tuple[bytes, bytes]:
        """What all trades of an order share, in the two pieces that `row` wants."""

    def bundle(self, rows: list[bytes]) -> list[bytes]:
        """The rows of one order as payloads of frames."""

    def greet(self, client: Client, book: Book) -> None:
        """What the venue says first."""

    def receive(self, client: Client, message: bytes, book: Book) -> None:
        """A client's message."""

    def beat(self, client: Client, book: Book, now: float) -> None:
        """Called about once a second for each connection; `now` in seconds of the server's monotonic clock."""

    def channel(self, payload: bytes) -> tuple[str, str | None]:
        """(channel, symbol's own name) of a recorded frame; trades come on `trade`, answers to requests on `answer`."""

    def subject(self, path: str, query: Mapping[str, str], book: Book) -> Instrument | None:
        """The instrument that a GET asks about; None if it names none that is listed."""

    def rest(self, path: str, query: Mapping[str, str], book: Book) -> Answer:
        """The answer to a GET; `path` without the venue's prefix."""

    def weight(self, path: str, query: Mapping[str, str]) -> float:
        """What a GET costs of `burst`."""

    def refused(self, kind: str, retry_after: float, now: int) -> Answer:
        """The venue's own form of `429`, `418` or `503`."""


def padded(number: int, scale: int, places: int) -> str:
    """`number` / 10**`scale` as text with at least `places` places."""
    missing = places - scale
    return decimal_text(number * 10**missing, places) if missing > 0 else decimal_text(number, scale)


def printed(numbers: Sequence[int], scale: int, places: int) -> list[bytes]:
    """Each number / 10**`scale` with at least `places` places."""
    return [padded(number, scale, places).encode() for number in numbers]


def bounded(text: str | None, default: int, highest: int) -> int | None:
    """A query's limit: the default if absent, never above the highest; None if it is no number."""
    if text is None:
        return default
    return min(int(text), highest) if text.isdigit() and int(text) > 0 else None
