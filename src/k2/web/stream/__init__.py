"""The live stream: every subscriber is a set of cursors over the log.

A cursor reads until the log's end and waits there for more. History and live are the same loop, so nothing can go
missing, or come twice, where one turns into the other. Nothing here writes, and nobody is sent anything by the way of
the store but candles. `hub.py` follows the log once for all; `connection.py` is one client; `websocket.py` and
`events.py` are its two transports.
"""

from typing import NamedTuple, Protocol

from k2.config import WebConfig


class Limits(NamedTuple):
    """What one process, and one subscriber, may use. Bytes and seconds."""

    connections: int = 512
    buffer_bytes: int = 1 << 20  # unsent, before a subscriber is no longer read for
    heartbeat_s: float = 5.0
    behind_s: float = 10.0  # that a live subscriber may take to catch up after its buffer was full
    stall_s: float = 30.0  # without a byte taken from a full buffer
    recent_bytes: int = 8 << 20  # of each stream's newest records, kept for all
    chunk_bytes: int = 256 << 10  # of records in one message
    cache_bytes: int = 16 << 20  # of encoded messages, kept for all
    subscriptions: int = 64  # of one connection
    look_s: float = 0.01  # between two looks whether a full buffer has emptied
    linger_s: tuple[float, float] = (0.001, 0.050)  # shortest and longest time between two looks at the log


def limits(config: WebConfig) -> Limits:
    """The limits that the configuration names."""
    return Limits(config.subscribers, config.stream_buffer_kb << 10, config.heartbeat_s)


class Sink(Protocol):
    """The way to one client. Called in the event loop only."""

    def write(self, data: bytes) -> None:
        """Take framed bytes. Never blocks: what the socket does not take waits, and counts as unsent."""

    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""

    def gone(self) -> bool:
        """Whether the client has left."""

    def end(self, code: int, reason: str) -> None:
        """Close after what was written; cut off if the client does not take it in time."""
