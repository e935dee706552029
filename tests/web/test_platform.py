"""The platform at a glance: the edges are judged by what the log and the processes say, and told in words."""

import time

import msgspec
import pytest
from tests.web.serving import Served

from k2.config import Config, TierConfig
from k2.core.codec import frames_stream, trades_stream
from k2.web.edges import edges, silent, tell
from k2.web.flow import Edge, Facts, Job, Look, Process, Stage, Venue, expected, worst
from k2.web.streams import ConsumerAt, StreamState

WAY = [
    ("exchange", "feed"),
    ("feed", "log"),
    ("log", "loader"),
    ("loader", "store"),
    ("store", "web"),
    ("log", "archiver"),
    ("archiver", "cold"),
]


def healthy() -> Look:
    """A platform on which everything runs and flows."""
    stages = {name: Stage(0.004, 0.02, 90.0) for name in ("exchange_to_receive", "decoded_to_durable")}
    stages |= {name: Stage(0.004, 0.02, 90.0) for name in ("log_to_loader", "loader_to_visible")}
    processes = [Process(name, i, 60.0, 1.0, 1 << 20, True) for i, name in enumerate(expected(Config()))]
    venues = [
        Venue(name, True, 30.0, 100, time.time(), 0, 0, 0, 0, 0, 0.001, 0, {}, 0.1)
        for name in ("binance", "coinbase", "kraken")
    ]
    return Look(time.time(), 2.0, processes=processes, venues=venues, stages=stages)


def stream(name: str, loader_s: float = 1.0, archiver_s: float = 100.0) -> StreamState:
    readers = [ConsumerAt("loader", 90, 10, loader_s, False), ConsumerAt("archiver", 50, 50, archiver_s, False)]
    kind = "frames" if name.endswith(".raw") else "trades"
    return StreamState(name, kind, "kraken", 1, 0, 100, 100, 1000, 30.0, "", 0.1, readers)


def facts(look: Look | None = None, **changes: object) -> Facts:
    streams = [stream(trades_stream("kraken")), stream(frames_stream("kraken"))]
    return Facts(Config(), look or healthy(), streams, "", [], 60.0, 12.5)._replace(**changes)  # type: ignore[arg-type]


def states(found: list[Edge]) -> dict[str, str]:
    return {f"{edge.source}-{edge.target}": edge.state for edge in found if edge.state != "ok"}


def test_a_platform_that_flows_is_ok_edge_by_edge() -> None:
    found = edges(facts())
    assert [(edge.source, edge.target) for edge in found] == WAY
    assert states(found) == {}
    assert worst(found) == "ok"
    received, logged, read, loaded, _, followed, archived = found
    assert (received.rate, received.lag_s, received.p99_s) == (90.0, 0.1, 0.02)
    assert (logged.rate, logged.lag) == (90.0, 0)
    assert (read.lag, loaded.lag, loaded.lag_s) == (10, 10, 1.0)
    assert (followed.lag, followed.lag_s, followed.rate) == (100, 100.0, 12.5)
    assert archived.lag_s == 60.0


@pytest.mark.parametrize(
    ("missing", "slow_or_stopped"),
    [
        ("loader", {"log-loader": "stopped", "loader-store": "stopped"}),
        ("store", {"loader-store": "stopped"}),
        ("archiver", {"log-archiver": "stopped", "archiver-cold": "stopped"}),
        ("feed-handler-kraken", {"exchange-feed": "slow", "feed-log": "slow"}),
    ],
)
def test_a_process_that_does_not_run_stops_its_edges(missing: str, slow_or_stopped: dict[str, str]) -> None:
    found = edges(facts(missing=[missing]))
    assert states(found) == slow_or_stopped
    assert all(f"{missing} does not run" in edge.reason for edge in found if edge.state != "ok")


def test_a_process_that_does_not_answer_is_told_apart() -> None:
    look = healthy()
    look.processes = [msgspec.structs.replace(one, answers=one.service != "loader") for one in look.processes]
    found = edges(facts(look))
    assert states(found) == {"log-loader": "stopped", "loader-store": "stopped"}
    assert found[2].reason == "loader does not answer"


def test_connections_that_are_down() -> None:
    look = healthy()
    look.venues[0].connected = False
    (received, *_) = edges(facts(look))
    assert (received.state, received.reason) == ("slow", "binance is not connected")
    for venue in look.venues:
        venue.connected = False
    assert edges(facts(look))[0].state == "stopped"


def test_a_venue_that_is_silent() -> None:
    look = healthy()
    look.venues[2].age_s = 300.0
    (received, *_) = edges(facts(look))
    assert (received.state, received.reason) == ("slow", "no trade of kraken for 300 s")


@pytest.mark.parametrize(("age", "state"), [(5.0, None), (40.0, "slow"), (90.0, "stopped")])
def test_trades_that_wait_for_the_store(age: float, state: str | None) -> None:
    found = edges(facts(streams=[stream(trades_stream("kraken"), loader_s=age)]))
    assert states(found) == ({"log-loader": state, "loader-store": state} if state else {})


@pytest.mark.parametrize(("age", "state"), [(1000.0, None), (2500.0, "slow"), (9000.0, "stopped")])
def test_records_that_wait_for_the_cold_tier(age: float, state: str | None) -> None:
    found = edges(facts(streams=[stream(frames_stream("kraken"), archiver_s=age)]))
    assert states(found) == ({"log-archiver": state, "archiver-cold": state} if state else {})


def test_a_slow_stage_and_a_long_queue() -> None:
    look = healthy()
    look.stages["decoded_to_durable"] = Stage(0.1, 0.9, 90.0)
    assert states(edges(facts(look))) == {"feed-log": "slow"}
    look = healthy()
    look.processes[0].queue = 150_000
    assert states(edges(facts(look))) == {"feed-log": "slow"}


def test_a_store_that_does_not_answer() -> None:
    found = edges(facts(store_error="it cannot be reached"))
    assert states(found) == {"loader-store": "stopped", "store-web": "stopped"}


def test_offloads_that_are_switched_off_are_no_standstill() -> None:
    found = edges(facts(config=Config(tier=TierConfig(every_s=0)), missing=[]))
    assert states(found) == {}
    assert "switched off" in found[5].reason


def test_a_venue_whose_feed_does_not_speak_is_listed_with_its_own_edges() -> None:
    look = healthy()
    look.venues = look.venues[:2]
    look.processes = [msgspec.structs.replace(one, answers="kraken" not in one.service) for one in look.processes]
    found = facts(look)
    (kraken,) = silent(found)
    look.venues.append(kraken)
    assert (kraken.exchange, kraken.silent, kraken.connected, kraken.age_s) == ("kraken", True, False, 0.1)
    for venue in look.venues:
        tell(found, venue)
    assert [venue.state for venue in look.venues] == ["ok", "ok", "stopped"]
    assert kraken.reason == "feed-handler-kraken does not answer"
    received, logged, read, followed = kraken.edges
    assert (received.state, received.rate, logged.state) == ("stopped", None, "stopped")
    assert (read.state, read.lag, read.lag_s) == ("ok", 10, 1.0)
    assert (followed.path, followed.lag, followed.lag_s) == ("cold", 100, 100.0)
    assert [(edge.source, edge.lag) for edge in look.venues[0].edges] == [
        ("exchange", None), ("feed", 0), ("log", 0), ("log", 0),
    ]  # fmt: skip
    assert states(edges(found)) == {"exchange-feed": "slow", "feed-log": "slow"}


def test_a_log_that_cannot_be_read_is_told_at_its_edges() -> None:
    found = edges(facts(streams=[], log_error="a process that writes the log stands still"))
    assert states(found) == {"log-loader": "stopped", "log-archiver": "stopped", "archiver-cold": "stopped"}
    assert found[2].lag is None


def test_how_long_the_last_offload_took() -> None:
    look = healthy()
    look.jobs["offload"] = Job(3, 0, time.time(), 1.5)
    assert edges(facts(look))[-1].took_s == 1.5


def test_the_status_of_a_served_platform(served: Served) -> None:
    status = served.get("/v1/status").json()
    assert [(edge["source"], edge["target"]) for edge in status["edges"]] == WAY
    assert status["span_s"] > 0
    assert status["state"] == "stopped", "no feed handlers run here"
    assert {"feed-handler-binance", "loader", "archiver"} <= set(status["missing"])
    assert [venue["exchange"] for venue in status["venues"]] == ["binance", "coinbase", "kraken"]
    assert {venue["state"] for venue in status["venues"]} == {"stopped"}
    assert all(venue["silent"] and venue["last_trade"] for venue in status["venues"])
    services = {process["service"]: process for process in status["processes"]}
    assert services["store"]["answers"] is True
    assert services["store"]["memory"] > 1 << 20
    disk = status["disk"]
    assert disk["used"] == sum(disk["parts"].values())
    assert {"log", "store"} <= set(disk["parts"])
    assert 0 < disk["free"] <= disk["total"]
    assert status["versions"]["store"]
    served_by_store = status["edges"][4]
    assert served_by_store["state"] == "ok"
