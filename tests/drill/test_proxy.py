"""The proxy that breaks networks: it must break them as a network does, or the drills prove nothing."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from k2.ops.drill.proxy import Proxy

WITHIN = 20.0


class Echo(threading.Thread):
    """A server that says everything again."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listening.getsockname()
        self.taken: list[socket.socket] = []
        self.ended = threading.Semaphore(0)

    def run(self) -> None:
        while True:
            try:
                one, _ = self.listening.accept()
            except OSError:
                return
            self.taken.append(one)
            threading.Thread(target=self._answer, args=(one,), daemon=True).start()

    def _answer(self, one: socket.socket) -> None:
        try:
            while data := one.recv(1 << 16):
                one.sendall(data)
        except OSError:
            pass
        finally:
            one.close()
            self.ended.release()

    def close(self) -> None:
        self.listening.close()
        for one in self.taken:
            one.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    server.start()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.address) as made:
        yield made


def dial(proxy: Proxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=WITHIN)


def said(one: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count and (data := one.recv(count - len(found))):
        found += data
    return found


def silent(one: socket.socket, seconds: float = 0.3) -> bool:
    one.settimeout(seconds)
    try:
        one.recv(1)
    except TimeoutError:
        return True
    finally:
        one.settimeout(WITHIN)
    return False


def test_forwards_both_ways_also_more_than_fits_anywhere(proxy: Proxy) -> None:
    with dial(proxy) as one:
        body = bytes(range(256)) * (1 << 14)
        threading.Thread(target=one.sendall, args=(body,), daemon=True).start()
        assert said(one, len(body)) == body
    assert proxy.counted == 1
    assert proxy.carried == 2 * len(body)


def test_a_cut_closes_nothing_and_what_was_sent_arrives_when_it_heals(proxy: Proxy) -> None:
    with dial(proxy) as old:
        old.sendall(b"a")
        assert said(old, 1) == b"a"
        proxy.cut()
        old.sendall(b"held")
        with dial(proxy) as new:
            new.sendall(b"too")
            assert silent(old)
            assert silent(new)
            proxy.heal()
            assert said(old, 4) == b"held"
            assert said(new, 3) == b"too"


def test_a_forgotten_connection_stays_silent_while_new_ones_work(proxy: Proxy, echo: Echo) -> None:
    with dial(proxy) as old:
        old.sendall(b"a")
        assert said(old, 1) == b"a"
        proxy.cut()
        proxy.heal(forget=True)
        assert echo.ended.acquire(timeout=WITHIN), "the other side is told"
        old.sendall(b"lost")
        assert silent(old), "and this one never"
        with dial(proxy) as new:
            new.sendall(b"b")
            assert said(new, 1) == b"b"


def test_a_reset_ends_connections_with_an_error(proxy: Proxy) -> None:
    with dial(proxy) as one:
        one.sendall(b"a")
        assert said(one, 1) == b"a"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            one.recv(1)
    with dial(proxy) as again:
        again.sendall(b"b")
        assert said(again, 1) == b"b"


def test_a_delay_makes_late_and_a_throttle_makes_slow(proxy: Proxy) -> None:
    with dial(proxy) as one:
        proxy.delay(0.2)
        began = time.monotonic()
        one.sendall(b"a")
        assert said(one, 1) == b"a"
        assert time.monotonic() - began >= 0.4, "once each way"
        proxy.delay(0.0)
        proxy.throttle(100_000)
        began = time.monotonic()
        one.sendall(bytes(50_000))
        assert len(said(one, 50_000)) == 50_000
        one.sendall(b"b")
        assert said(one, 1) == b"b"
        assert time.monotonic() - began >= 0.5


def test_an_end_at_one_side_is_an_end_at_the_other(proxy: Proxy, echo: Echo) -> None:
    one = dial(proxy)
    one.sendall(b"a")
    assert said(one, 1) == b"a"
    one.close()
    assert echo.ended.acquire(timeout=WITHIN)
