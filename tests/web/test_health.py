"""Liveness and readiness: ready only while data flows, and otherwise with the cause, the time and the remedy."""

import time
from pathlib import Path

import msgspec
import pytest
from tests.web.serving import Served

from k2.config import EXCHANGES, Config, ExchangeConfig, ExchangesConfig
from k2.core.codec import encode_frame, encode_trade, frames_stream, trades_stream
from k2.core.types import Frame, FrameKind, Trade
from k2.log import Entry
from k2.log.memory import MemoryLog
from k2.metrics import parse
from k2.web.freshness import loader_check, log_checks, sign_of_life, venue_check

S = 1_000_000_000
HEARTBEAT = b'{"channel":"heartbeat"}'
CONFIRMED = (
    b'{"method":"subscribe","result":{"channel":"trade","snapshot":true,"symbol":"BTC/USD"},"success":true,'
    b'"time_in":"2026-01-02T00:00:00.000000Z","time_out":"2026-01-02T00:00:00.000001Z"}'
)


def trade(exchange: str, trade_id: int, at: int) -> Trade:
    return Trade(exchange, "ZZZ-USD", "ZZZUSD", trade_id, "1.5", "2.5", "buy", at, at + 1, "live")


def put(log: MemoryLog, exchange: str, payload: bytes, recv_ts: int, kind: FrameKind = "ws") -> None:
    log.append([Entry(frames_stream(exchange), [""], [encode_frame(Frame(recv_ts, kind, "c1", "", payload))])])


def put_trade(log: MemoryLog, exchange: str, trade_id: int = 1) -> None:
    one = trade(exchange, trade_id, time.time_ns())
    log.append([Entry(trades_stream(exchange), [one.symbol], [encode_trade(one)])])


def test_a_fresh_trade_is_enough_and_an_old_one_is_named() -> None:
    log, config = MemoryLog(), Config()
    put_trade(log, "kraken")
    now = time.time_ns()
    assert venue_check(sign_of_life(log, config, "kraken", now), config, now).ok
    later = now + 60 * S
    check = venue_check(sign_of_life(log, config, "kraken", later), config, later)
    assert not check.ok
    assert "kraken came 60.0 s ago" in check.detail
    assert check.since is not None
    assert "feed-handler-kraken.log" in check.remedy


@pytest.mark.parametrize(
    ("payload", "kind", "ready"),
    [
        (HEARTBEAT, "ws", True),
        (CONFIRMED, "ws", False),
        (b"junk", "ws", False),
        (b'{"method":"subscribe"}', "sent", False),
        (b'{"error":[],"result":{}}', "rest", False),
    ],
)
def test_without_trades_only_a_heartbeat_is_a_sign_of_life(payload: bytes, kind: FrameKind, ready: bool) -> None:
    log, config = MemoryLog(), Config()
    put_trade(log, "kraken")
    later = time.time_ns() + 60 * S
    put(log, "kraken", payload, later - S, kind)
    assert venue_check(sign_of_life(log, config, "kraken", later), config, later).ok is ready


def test_an_old_heartbeat_is_found_among_newer_junk_and_says_since_when() -> None:
    log, config = MemoryLog(), Config()
    now = time.time_ns()
    put(log, "kraken", HEARTBEAT, now - 30 * S)
    for i in range(120):
        put(log, "kraken", b"junk", now - i)
    check = venue_check(sign_of_life(log, config, "kraken", now), config, now)
    assert not check.ok
    assert "the newest heartbeat 30.0 s ago" in check.detail


def test_the_loader_is_judged_by_the_age_of_what_it_has_yet_to_commit() -> None:
    log, config = MemoryLog(), Config()
    put_trade(log, "kraken", 1)
    put_trade(log, "kraken", 2)
    stream, now = trades_stream("kraken"), time.time_ns()
    assert loader_check(log, config, {}, now).ok, "new trades may wait a while"
    late = loader_check(log, config, {stream: 1}, now + 60 * S)
    assert not late.ok
    assert "1 trades of the log" in late.detail
    assert loader_check(log, config, {stream: 2}, now + 60 * S).ok, "nothing waits"
    foreign = loader_check(log, config, {stream: 3}, now)
    assert not foreign.ok
    assert "do not belong together" in foreign.remedy


def test_an_exchange_that_is_switched_off_is_not_waited_for() -> None:
    config = Config(exchanges=ExchangesConfig(binance=ExchangeConfig(enabled=False)))
    names = [check.name for check in log_checks(MemoryLog(), config, None)]
    assert names == ["venue:coinbase", "venue:kraken"]


def test_it_lives(served: Served) -> None:
    answer = served.get("/healthz")
    assert answer.status == 200
    assert answer.json()["status"] == "ok"
    assert answer.json()["up_s"] >= 0
    assert answer.headers["cache-control"] == "no-store"


def test_ready_while_every_exchange_trades(served: Served) -> None:
    served.say([trade(exchange, 1, time.time_ns()) for exchange in EXCHANGES])
    answer = served.get("/readyz")
    assert answer.status == 200, answer.body
    checks = {check["name"]: check for check in answer.json()["checks"]}
    assert list(checks) == ["store", *(f"venue:{name}" for name in EXCHANGES), "loader"]
    assert all(check["ok"] and not check["remedy"] for check in checks.values())


def test_not_ready_over_a_log_in_which_nothing_arrives(served: Served, tmp_path: Path) -> None:
    still = served.another(tmp_path / "still")
    answer = still.get("/readyz")
    assert answer.status == 503
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.headers["retry-after"] == "5"
    problem = answer.json()
    assert problem["type"] == "/docs/problems#not-ready"
    assert {f"venue:{name}" for name in EXCHANGES} <= set(problem["failed"])
    assert "loader" in problem["failed"], "the store has what this log never had"
    assert "nothing was ever received from binance" in problem["detail"]
    assert still.get("/healthz").status == 200, "it lives all the same"


def test_not_ready_without_a_store(served: Served) -> None:
    gone = msgspec.structs.replace(served.config, store=msgspec.structs.replace(served.config.store, port=1))
    whole = served.config
    served.config = gone
    try:
        answer = served.another().get("/readyz")
    finally:
        served.config = whole
    assert answer.status == 503
    problem = answer.json()
    assert "store" in problem["failed"]
    assert "cannot be reached" in problem["detail"]
    assert "store.log" in problem["remedy"]


def test_metrics_are_prometheus_text(served: Served) -> None:
    served.get("/healthz")
    answer = served.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = parse(answer.body.decode())
    assert samples["k2_web_requests_total", (("route", "/healthz"), ("status", "200"))] >= 1
