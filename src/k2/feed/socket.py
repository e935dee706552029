"""The WebSocket: dialling with verified TLS, and frames from the wire to the recorder's queue with their receive time.

Nothing is decoded here. One socket is one `Socket`, named "c1", "c2", ... in the order of dialling.
"""

import asyncio
import ipaddress
import ssl
from time import time_ns
from typing import Protocol
from urllib.parse import urlsplit

import certifi
from picows import WSCloseCode, WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from k2.core.types import Frame

MAX_FRAME = 16 << 20  # Coinbase book snapshots run to megabytes
READ_BUFFER = 64 << 10
MAX_CONTROL = 125  # bytes of a ping, pong or close frame (RFC 6455, 5.5)

_TEXT, _BINARY, _MORE = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION


class DialError(Exception):
    """The connection could not be made; the text says to what, why, and what to do where something can be done.

    `heard`: the venue said so itself, which tries in quick succession may annoy. Else nobody answered.
    """

    def __init__(self, message: str, heard: bool = True) -> None:
        super().__init__(message)
        self.heard = heard


class Queue(Protocol):
    """Where a socket puts its frames: the recorder's side of the bounded queue."""

    pending: list[Frame]
    limit: int
    armed: bool

    def arm(self) -> None:
        """Frames wait and no cycle is due yet: see to it that one comes."""

    def full(self, socket: "Socket") -> None:
        """The queue has reached its bound: pause this socket, and resume it when there is room again."""


class Socket(WSListener):
    """One connection. `closed` gets the reason, once, when it has ended, whoever ended it."""

    __slots__ = ("_parts", "_reason", "_transport", "closed", "last_recv", "name", "paused", "queue")

    def __init__(self, name: str, queue: Queue) -> None:
        self.name = name
        self.queue = queue
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.last_recv = time_ns()
        self.paused = False
        self._transport: WSTransport | None = None
        self._parts: list[bytes] = []
        self._reason = ""

    @property
    def connected(self) -> bool:
        """Whether the venue has answered the handshake, whatever came after."""
        return self._transport is not None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.last_recv = now = time_ns()
        if frame.payload_size > MAX_CONTROL and frame.fin and not self._parts:
            # A whole text or binary message, told by its size: asking for the type costs as much as all this.
            queue = self.queue
            pending = queue.pending
            pending.append(Frame(now, "ws", self.name, "", frame.get_payload_as_bytes()))
            if not queue.armed:
                queue.arm()
            if len(pending) >= queue.limit:
                queue.full(self)
        else:
            self._otherwise(transport, frame, now)

    def _otherwise(self, transport: WSTransport, frame: WSFrame, now: int) -> None:
        kind = frame.msg_type
        if frame.fin and (kind is _TEXT or kind is _BINARY):
            self._take(frame.get_payload_as_bytes(), now)
        elif kind is _TEXT or kind is _BINARY or kind is _MORE:
            self._part(frame, now)
        elif kind is WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind is WSMsgType.CLOSE:
            self.close(f"closed by the venue ({_close_text(frame)})")

    def _part(self, frame: WSFrame, now: int) -> None:
        self._parts.append(frame.get_payload_as_bytes())
        if sum(map(len, self._parts)) > MAX_FRAME:
            self.close(f"a message of more than {MAX_FRAME >> 20} MB", WSCloseCode.MESSAGE_TOO_BIG)
            self._parts = []
        elif frame.fin:
            payload = b"".join(self._parts)
            self._parts = []
            self._take(payload, now)

    def _take(self, payload: bytes, now: int) -> None:
        self.queue.pending.append(Frame(now, "ws", self.name, "", payload))
        self.queue.arm()
        if len(self.queue.pending) >= self.queue.limit:
            self.queue.full(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if not self.closed.done():
            self.closed.set_result(self._reason or "connection lost")

    def send(self, message: bytes) -> None:
        """Send one text message. Frames sent after the end are dropped: `closed` tells."""
        if self._transport is not None and not self.closed.done():
            self._transport.send(_TEXT, message)
            self.queue.pending.append(Frame(time_ns(), "sent", self.name, "", message))
            self.queue.arm()

    def pause(self) -> None:
        """Stop reading from the socket, so that TCP holds the venue back."""
        if self._transport is not None and not self.closed.done():
            self._transport.underlying_transport.pause_reading()
            self.paused = True

    def resume(self) -> None:
        """Read again."""
        if self._transport is not None and not self.closed.done():
            self._transport.underlying_transport.resume_reading()
            self.paused = False
            self.last_recv = time_ns()

    def close(self, reason: str, code: WSCloseCode = WSCloseCode.OK) -> None:
        """Say goodbye and end the connection at once; frames already received stay in the queue. Idempotent."""
        self._reason = self._reason or reason
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_close(code)
            self._transport.disconnect(graceful=False)


def tls_context(ca_file: str) -> ssl.SSLContext:
    """A verifying context: the system's authorities and certifi's, and `ca_file` where one is configured."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise DialError(f"ca_file {ca_file} cannot be used ({error}): name a PEM file of certificates") from None
    return context


def check_url(url: str, secure: str, plain: str) -> None:
    """Raise DialError unless the URL is `secure`, or `plain` to this machine's loopback."""
    parts = urlsplit(url)
    if parts.scheme == secure and parts.hostname:
        return
    if parts.scheme == plain and _is_loopback(parts.hostname or ""):
        return
    raise DialError(f"{url}: write {secure}://HOST/..., or {plain}:// for an address of this machine such as 127.0.0.1")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def dial(url: str, context: ssl.SSLContext | None, name: str, queue: Queue, timeout: float) -> Socket:
    """Connect, with TLS and the WebSocket handshake, within `timeout` seconds. Raises DialError."""
    check_url(url, "wss", "ws")
    socket = Socket(name, queue)
    host = urlsplit(url).netloc
    try:
        async with asyncio.timeout(timeout):
            await ws_connect(
                lambda: socket,
                url,
                ssl_context=context if url.startswith("wss:") else None,
                websocket_handshake_timeout=timeout,
                max_frame_size=MAX_FRAME,
                read_buffer_init_size=READ_BUFFER,
                max_redirects=0,
                enable_auto_pong=False,  # a ping is a sign of life, and picows keeps those that it answers to itself
                logger_name="k2",
            )
    except ssl.SSLCertVerificationError as error:
        raise DialError(
            f"{host}: its certificate is not trusted ({error.verify_message}); if it is yours, name its CA in ca_file"
        ) from None
    except TimeoutError:
        raise DialError(f"{host}: no answer within {timeout:g} s", heard=False) from None
    except WSError as error:
        raise DialError(f"{host}: refused the WebSocket handshake ({_one_line(error)})") from None
    except OSError as error:
        raise DialError(f"{host}: {_one_line(error)}", heard=isinstance(error, ConnectionError)) from None
    if not socket.connected:  # picows returns as if all were well when the line goes down before the answer
        raise DialError(f"{host}: the connection ended before the WebSocket handshake was answered")
    return socket


def _close_text(frame: WSFrame) -> str:
    payload = frame.get_payload_as_bytes()  # two bytes of code, then text; picows knows only the registered codes
    code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else WSCloseCode.NO_INFO.value
    return f"{code} {payload[2:].decode(errors='replace')}".strip()


def _one_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
