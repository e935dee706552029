"""The socket against a real server on loopback: TLS, fragments, pings, silence, and who may be dialled."""

import asyncio
import socket as sockets
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from feed_kit import VenueServer, eventually
from picows import WSMsgType
from tests.patience import PATIENCE_S

from k2.core.types import Frame
from k2.feed.socket import DialError, Socket, check_url, dial, tls_context


class Queue:
    """Frames, kept."""

    def __init__(self, limit: int = 1000) -> None:
        self.pending: list[Frame] = []
        self.limit = limit
        self.armed = False
        self.fulls: list[Socket] = []

    def arm(self) -> None:
        self.armed = True

    def full(self, socket: Socket) -> None:
        self.fulls.append(socket)


def run(test: Callable[[VenueServer], Awaitable[None]], server_tls: ssl.SSLContext | None = None) -> None:
    async def with_server() -> None:
        async with asyncio.timeout(PATIENCE_S):
            server = await VenueServer().start(server_tls)
            try:
                await test(server)
            finally:
                await server.stop()

    asyncio.run(with_server())


def test_frames_arrive_whole_in_order_with_their_receive_time() -> None:
    async def test(server: VenueServer) -> None:
        queue = Queue()
        socket = await dial(server.url, None, "c1", queue, 5)
        await eventually(lambda: server.peers)
        transport = server.peers[0].transport
        server.peers[0].send(b"one" * 60)
        transport.send(WSMsgType.TEXT, b"tw" * 100, fin=False)
        transport.send(WSMsgType.PING, b"are you there")
        transport.send(WSMsgType.CONTINUATION, b"", fin=False)
        transport.send(WSMsgType.CONTINUATION, b"o" * 200, fin=True)
        transport.send(WSMsgType.BINARY, b"three" * 60)
        await eventually(lambda: len(queue.pending) == 3)
        assert [frame.payload for frame in queue.pending] == [b"one" * 60, b"tw" * 100 + b"o" * 200, b"three" * 60]
        assert [frame.kind for frame in queue.pending] == ["ws"] * 3
        assert {frame.connection for frame in queue.pending} == {"c1"}
        times = [frame.recv_ts for frame in queue.pending]
        assert times == sorted(times)
        await eventually(lambda: server.peers[0].pongs == [b"are you there"])
        socket.close("done")
        assert await socket.closed == "done"

    run(test)


def test_large_frames_are_taken() -> None:
    async def test(server: VenueServer) -> None:
        queue = Queue()
        socket = await dial(server.url, None, "c1", queue, 5)
        await eventually(lambda: server.peers)
        server.peers[0].send(b"x" * (9 << 20))
        await eventually(lambda: queue.pending)
        assert len(queue.pending[0].payload) == 9 << 20
        socket.close("done")

    run(test)


def test_what_is_sent_is_recorded_too() -> None:
    async def test(server: VenueServer) -> None:
        queue = Queue()
        socket = await dial(server.url, None, "c1", queue, 5)
        socket.send(b'{"id":1}')
        assert [(frame.kind, frame.payload) for frame in queue.pending] == [("sent", b'{"id":1}')]
        await eventually(lambda: server.peers and server.peers[0].received == [b'{"id":1}'])
        socket.close("done")

    run(test)


def test_at_the_bound_of_the_queue_the_socket_says_so_and_can_be_held_back() -> None:
    async def test(server: VenueServer) -> None:
        queue = Queue(limit=3)
        socket = await dial(server.url, None, "c1", queue, 5)
        await eventually(lambda: server.peers)
        for _ in range(3):
            server.peers[0].send(b"x")
        await eventually(lambda: queue.fulls == [socket])
        socket.pause()
        await asyncio.sleep(0.02)
        server.peers[0].send(b"held back")
        await asyncio.sleep(0.05)
        assert len(queue.pending) == 3
        socket.resume()
        await eventually(lambda: len(queue.pending) == 4)
        socket.close("done")

    run(test)


def test_the_venues_goodbye_is_the_reason() -> None:
    async def test(server: VenueServer) -> None:
        socket = await dial(server.url, None, "c1", Queue(), 5)
        await eventually(lambda: server.peers)
        server.peers[0].transport.send_close(1012, b"maintenance")
        assert "1012 maintenance" in await socket.closed

    run(test)


def test_a_lost_connection_ends_the_socket() -> None:
    async def test(server: VenueServer) -> None:
        socket = await dial(server.url, None, "c1", Queue(), 5)
        await eventually(lambda: server.peers)
        server.peers[0].transport.disconnect(graceful=False)
        assert await socket.closed

    run(test)


def test_a_server_that_accepts_and_never_answers_is_given_up_in_time() -> None:
    async def test() -> None:
        with sockets.socket() as mute:
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            with pytest.raises(DialError, match="no answer within"):
                await dial(f"ws://127.0.0.1:{mute.getsockname()[1]}/x", None, "c1", Queue(), 0.2)

    asyncio.run(test())


@pytest.mark.parametrize("abruptly", [False, True])
def test_a_line_that_goes_down_before_the_handshake_is_answered_is_no_connection(abruptly: bool) -> None:
    async def leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if abruptly:
            writer.transport.abort()
        else:
            writer.close()

    async def test() -> None:
        async with asyncio.timeout(PATIENCE_S), await asyncio.start_server(leave, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(DialError):
                await dial(f"ws://127.0.0.1:{port}/x", None, "c1", Queue(), 5)

    asyncio.run(test())


def test_a_port_that_nobody_listens_on_is_named() -> None:
    async def test() -> None:
        with sockets.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        with pytest.raises(DialError, match=f"127.0.0.1:{port}"):
            await dial(f"ws://127.0.0.1:{port}/x", None, "c1", Queue(), 2)

    asyncio.run(test())


def tls(tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return server, str(tmp_path / "ca.pem")


def test_tls_with_a_trusted_authority(tmp_path: Path) -> None:
    server_tls, ca_file = tls(tmp_path)

    async def test(server: VenueServer) -> None:
        queue = Queue()
        socket = await dial(server.url, tls_context(ca_file), "c1", queue, 5)
        await eventually(lambda: server.peers)
        server.peers[0].send(b"secret")
        await eventually(lambda: queue.pending)
        socket.close("done")

    run(test, server_tls)


def test_an_untrusted_certificate_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    server_tls, _ = tls(tmp_path)

    async def test(server: VenueServer) -> None:
        with pytest.raises(DialError, match=r"certificate is not trusted .* ca_file"):
            await dial(server.url, tls_context(""), "c1", Queue(), 5)
        assert server.peers == []

    run(test, server_tls)


def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(DialError, match=r"nothing\.pem"):
        tls_context(str(tmp_path / "nothing.pem"))


@pytest.mark.parametrize(
    "url", ["ws://stream.example.com/x", "http://example.com", "wss://", "ftp://a", "ws://10.0.0.1/x"]
)
def test_only_tls_or_loopback_may_be_dialled(url: str) -> None:
    with pytest.raises(DialError, match="127"):
        check_url(url, "wss", "ws")


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1/x", "ws://localhost/x", "ws://[::1]:5/x", "wss://example.com/x"])
def test_these_may(url: str) -> None:
    check_url(url, "wss", "ws")
