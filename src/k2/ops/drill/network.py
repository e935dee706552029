"""The network fails between two parts: cut, cut for longer than anybody waits, slow, reset."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from k2.config import EXCHANGES, Config
from k2.ops.bench.lab import Process, free_port
from k2.ops.drill import RECOVERED_WITHIN_S, Drill, DrillError
from k2.ops.drill.flow import Tapes
from k2.ops.drill.netns import Namespace, certificate
from k2.ops.drill.proxy import Proxy
from k2.ops.drill.rehearsal import Setup, at_simulator, changed
from k2.ops.drill.stage import Stage
from k2.ops.drill.subscriber import Subscriber

SHORT_S = 4.0
LONG_S = 50.0  # longer than the silence, the dial and the REST time-outs of every venue
STATEMENT_S = 130.0  # longer than a client of the store waits for a byte
CLIENT_S = 10.0
SILENT_S = 2.0
UP_TO_DATE = 200  # trades on their way
SEEN_AT_FEED = (
    "metric:k2_last_trade_timestamp_seconds*",
    "metric:k2_reconnects_total*",
    "metric:k2_backfill_requests_total*",
    "metric:k2_connected*",
    "readyz:venue:*",
)


class Exchanges:
    """The way from all feed handlers to the exchanges, WebSocket and REST, through two proxies."""

    def __init__(self, act: "Callable[[Exchanges, Stage], None]") -> None:
        self._act = act
        self.ways: tuple[Proxy, ...] = ()

    def prepare(self, setup: Setup) -> None:
        sim = setup.exchange.sim
        self.ways = tuple(setup.cleanup.enter_context(Proxy((sim.host, port))) for port in (sim.ws_port, sim.rest_port))
        setup.config = at_simulator(setup.config, *(way.port for way in self.ways))

    def act(self, stage: Stage) -> None:
        self._act(self, stage)


def _cut(
    ways: Iterable[Proxy], stage: Stage, seconds: float, forget: bool, meanwhile: Callable[[], None] = lambda: None
) -> None:
    ways = tuple(ways)
    with stage.failing():
        for way in ways:
            way.cut()
        try:
            stage.hold(seconds, meanwhile)
        finally:
            for way in ways:
                way.heal(forget)


def _exchanges_cut(exchanges: Exchanges, stage: Stage) -> None:
    _cut(exchanges.ways, stage, SHORT_S, forget=False)


def _exchanges_cut_long(exchanges: Exchanges, stage: Stage) -> None:
    _cut(exchanges.ways, stage, LONG_S, forget=True)


def _exchanges_reset(exchanges: Exchanges, stage: Stage) -> None:
    with stage.failing():
        for _ in range(3):
            for way in exchanges.ways:
                way.reset()
            stage.hold(0.7)


def _exchanges_slow(exchanges: Exchanges, stage: Stage) -> None:
    """Half of what the trades need: what does not fit waits, longer and longer."""
    live = exchanges.ways[0]
    before = live.carried
    seconds = stage.wait("a second of traffic", lambda: live.carried - before > 50_000, 20.0)
    needed = (live.carried - before) / seconds
    with stage.failing():
        live.delay(0.3)
        live.throttle(needed / max(1, live.connections) / 2)
        try:
            stage.hold(8.0)
        finally:
            live.throttle(0.0)
            live.delay(0.0)


class Wire:
    """The exchanges in a network namespace, which answer with TLS over a pair of virtual interfaces. The kernel cuts:
    packets are swallowed, nobody is told, and what TCP retransmits comes through when it heals."""

    def __init__(self) -> None:
        self.network: Namespace | None = None

    def prepare(self, setup: Setup) -> None:
        setup.folder.mkdir(parents=True, exist_ok=True)
        self.network = network = setup.cleanup.enter_context(Namespace("drill"))
        cert, key = certificate(setup.folder, network.there)
        setup.exchange_under = network.under
        setup.exchange = changed(setup.exchange, sim={"host": network.there})
        ports = []
        for plain in (setup.exchange.sim.ws_port, setup.exchange.sim.rest_port):
            ports.append(free_port())
            command = ["-m", "k2.ops.drill.proxy", f"{network.there}:{ports[-1]}", f"{network.there}:{plain}"]
            words = setup.folder / "front.err"
            front = Process("front", [*command, str(cert), str(key)], os.environ, words, False, network.under)
            setup.cleanup.callback(front.stop)
        setup.config = _secure(at_simulator(changed(setup.config, sim={"host": network.there}), *ports), cert)

    def act(self, stage: Stage) -> None:
        network = self.network
        assert network is not None
        with stage.failing():
            network.cut()
            try:
                stage.hold(LONG_S)
            finally:
                network.heal()


def _secure(config: Config, cert: Path) -> Config:
    """The exchanges' addresses with TLS, trusted by this certificate."""
    found = {
        name: msgspec.structs.replace(
            config.exchange(name),
            ws_url=config.exchange(name).ws_url.replace("ws:", "wss:", 1),
            rest_url=config.exchange(name).rest_url.replace("http:", "https:", 1),
            ca_file=str(cert),
        )
        for name in EXCHANGES
    }
    return msgspec.structs.replace(config, exchanges=msgspec.structs.replace(config.exchanges, **found))


def own_settings(setup: Setup, settings: Mapping[str, Mapping[str, str]]) -> None:
    """Give some services other settings than the platform has: verb (`load`, `web`) to K2_* variables and their values.

    A person would do so by starting them on other machines. Python runs `sitecustomize` before anything else.
    """
    folder = setup.folder / "own"
    folder.mkdir(parents=True)
    text = "import os, sys\n"
    for verb, values in settings.items():
        text += f"if sys.orig_argv[-1:] == [{verb!r}]:\n    os.environ.update({dict(values)!r})\n"
    (folder / "sitecustomize.py").write_text(text)
    setup.environ["PYTHONPATH"] = str(folder)


class Store:
    """The way from one service to the store, through a proxy; the other services go straight."""

    def __init__(self, verb: str, seconds: float) -> None:
        self._verb, self._seconds = verb, seconds
        self.way: Proxy | None = None

    def prepare(self, setup: Setup) -> None:
        store = setup.config.store
        self.way = setup.cleanup.enter_context(Proxy((store.host, store.port)))
        own_settings(setup, {self._verb: {"K2_STORE_PORT": str(self.way.port)}})

    def act(self, stage: Stage) -> None:
        assert self.way is not None
        if not self.way.counted:
            raise DrillError(f"`k2 {self._verb}` does not go to the store through the proxy")
        _cut([self.way], stage, self._seconds, forget=False)


class Client:
    """The way from a subscriber of the live stream to `k2 web`, through a proxy."""

    def __init__(self) -> None:
        self.way: Proxy | None = None

    def prepare(self, setup: Setup) -> None:
        web = setup.config.web
        self.way = setup.cleanup.enter_context(Proxy((web.host, web.port)))

    def act(self, stage: Stage) -> None:
        way = self.way
        assert way is not None
        tapes = Tapes(stage.platform.exchange.data_dir)
        with Subscriber(f"http://{way.host}:{way.port}") as subscriber:
            stage.wait("the subscriber to be up to date", lambda: subscriber.lacks(tapes.spans()) < UP_TO_DATE, 30.0)
            # Odd rounds: what was held back comes after all. Even ones: the way has forgotten the connection.
            forget = stage.number % 2 == 0
            _cut([way], stage, CLIENT_S, forget, partial(_tell_silence, stage, subscriber))
            ended, due = stage.ended, tapes.spans()
            stage.wait("the subscriber to have all", lambda: subscriber.error or not subscriber.lacks(due), 90.0)
            took = time.monotonic() - ended
            kind = "its connection was forgotten" if forget else "its connection lived on"
            stage.note(f"the subscriber ({kind}) had everything {took:.1f} s after the end, {subscriber.twice} twice")
            if took > RECOVERED_WITHIN_S:
                stage.fault(f"the subscriber recovered after {took:.1f} s, not within {RECOVERED_WITHIN_S:g} s")
            if subscriber.twice or subscriber.error:
                stage.fault(f"the subscriber was given {subscriber.twice} trades twice {subscriber.error}".rstrip())


def _tell_silence(stage: Stage, subscriber: Subscriber) -> None:
    """What a subscriber's own watch would say, once: that no trade has come for a while."""
    silent = time.monotonic() - subscriber.last_at
    if silent > SILENT_S and stage.signals.first(stage.struck, ("subscriber:silent",)) is None:
        stage.signals.tell("subscriber:silent", f"no trade for {silent:.1f} s")


_short, _long = Exchanges(_exchanges_cut), Exchanges(_exchanges_cut_long)
_resets, _slow, _wire = Exchanges(_exchanges_reset), Exchanges(_exchanges_slow), Wire()
_loader, _loader_long, _web, _client = Store("load", 6.0), Store("load", STATEMENT_S), Store("web", 8.0), Client()

DRILLS = (
    Drill(
        name="exchanges-cut",
        summary=f"no packet between feed handlers and exchanges for {SHORT_S:g} s (a proxy that holds everything back)",
        expectation=(
            "the feeds' clocks of the last trade stand still; whoever is silent for longer than its venue ever is, is "
            "dialled anew; what was traded meanwhile arrives late or is healed over REST by its ids"
        ),
        prepare=_short.prepare, act=_short.act, seen_by=SEEN_AT_FEED,
    ),
    Drill(
        name="exchanges-cut-long",
        summary=f"no packet between feed handlers and exchanges for {LONG_S:g} s; old connections never speak again",
        expectation=(
            "every connection is given up as silent and dialled again and again; within seconds of the network's "
            "return one stands, and the hole is healed over REST"
        ),
        prepare=_long.prepare, act=_long.act, seen_by=SEEN_AT_FEED,
    ),
    Drill(
        name="exchanges-cut-wire",
        summary=f"the wire to the exchanges (a network namespace, TLS) swallows every packet for {LONG_S:g} s",
        expectation="the same with the kernel's own TCP: retransmissions, dials that nobody answers",
        prepare=_wire.prepare, act=_wire.act, seen_by=SEEN_AT_FEED,
        needs=("root", "linux", "ip", "tc", "openssl", "namespaces"),
    ),
    Drill(
        name="exchanges-reset",
        summary="every connection to the exchanges is reset, three times within two seconds",
        expectation="each is dialled again at once; the hole between two connections is healed over REST",
        prepare=_resets.prepare, act=_resets.act, seen_by=("metric:k2_reconnects_total*", *SEEN_AT_FEED),
    ),
    Drill(
        name="exchanges-slow",
        summary="the line to the exchanges carries half of what it must, 0.3 s late",
        expectation="trades come later and later, none is missing; once the line is good again all that waited comes",
        prepare=_slow.prepare, act=_slow.act, seen_by=(*SEEN_AT_FEED, "metric:k2_exchange_clock_offset_seconds*"),
    ),
    Drill(
        name="loader-cut-from-store",
        summary="no packet between loader and store for 6 s",
        expectation="the loader waits for its answer, the lag grows, nothing is written twice; then it catches up",
        prepare=_loader.prepare, act=_loader.act, seen_by=("metric:k2_consumer_lag_records*", "readyz:loader"),
    ),
    Drill(
        name="loader-cut-from-store-long",
        summary=f"no packet between loader and store for {STATEMENT_S:g} s: longer than a statement is waited for",
        expectation="the loader gives its statement up and takes the store over once it answers: none lost, none twice",
        prepare=_loader_long.prepare, act=_loader_long.act,
        seen_by=("metric:k2_consumer_lag_records*", "readyz:loader", "metric:k2_store_errors_total*"),
    ),
    Drill(
        name="web-cut-from-store",
        summary="no packet between web and store for 8 s",
        expectation="questions fail in time with a reason, the live stream goes on from the log; then all is answered",
        prepare=_web.prepare, act=_web.act, seen_by=("readyz:store", "readyz:web"), spares=EXCHANGES,
    ),
    Drill(
        name="subscriber-cut",
        summary=f"no packet between a subscriber and web for {CLIENT_S:g} s",
        expectation="the client notices, comes back with its positions and has every trade once; no other is concerned",
        prepare=_client.prepare, act=_client.act, seen_by=("subscriber:silent",), spares=EXCHANGES,
    ),
)  # fmt: skip
