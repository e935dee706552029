"""One story for every alert, for `promtool test rules`: all is well, something is wrong, all is well again.

Beside what goes wrong stands something alike that stays well, and must not fire: another venue, service or symbol.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from k2.ops.watch.alerts import ALERTS
from k2.ops.watch.rules import SCRAPE_S

Part = tuple[float, float | None]  # minutes, and what holds in them; None: nobody answers
Values = list[float | None]
_A_MINUTE = 60 / SCRAPE_S


@dataclass(frozen=True)
class Example:
    """`series` over time, by minutes. Nothing fires at `quiet`; the alert does at `firing`, with these labels and for
    nothing else; at `over` it does not any more."""

    alert: str
    series: dict[str, Values]
    quiet: float
    firing: float
    over: float
    labels: dict[str, str] = field(default_factory=dict)


def gauge(*parts: Part) -> Values:
    """A value for so many minutes, then another."""
    return [value for minutes, value in parts for _ in range(round(minutes * _A_MINUTE))]


def counter(*parts: Part) -> Values:
    """So many a minute, for so many minutes."""
    found: Values = []
    total = 0.0
    for minutes, rate in parts:
        for _ in range(round(minutes * _A_MINUTE)):
            total += (rate or 0.0) / _A_MINUTE
            found.append(None if rate is None else total)
    return found


def stamp(*parts: Part) -> Values:
    """A time: now while 1, standing still while 0."""
    found: Values = []
    at = 0.0
    for minutes, alive in parts:
        for _ in range(round(minutes * _A_MINUTE)):
            at = len(found) * SCRAPE_S if alive else at
            found.append(None if alive is None else at)
    return found


def _live(exchange: str) -> str:
    return _at("k2_trades_total", exchange=exchange, source="live", service=f"feed-handler-{exchange}", job="k2")


def _at(name: str, **labels: str) -> str:
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def _up(service: str) -> str:
    return _at("up", job="k2", instance="a", service=service)


def _venue(name: str, exchange: str, **more: str) -> str:
    return _at(name, exchange=exchange, **more)


KRAKEN = {"exchange": "kraken"}
STORE = {"instance": "a", "service": "store"}
WELL: Values = gauge((150, 1))
FLOWING: Values = counter((150, 600))


def _of_venue(name: str, kind: Callable[..., Values], *parts: Part, well: float = 0, **more: str) -> dict[str, Values]:
    """Kraken has it, Binance has not."""
    return {_venue(name, "kraken", **more): kind(*parts), _venue(name, "binance", **more): kind((150, well))}


EXAMPLES = (
    Example("Watchdog", {_up("store"): WELL}, -1, 0, -1),
    Example(
        "PlatformDown", {_up("store"): WELL, _live("kraken"): counter((10, 60), (10, 0), (20, 60))}, 9, 13, 25
    ),
    Example(
        "ServiceDown",
        {
            _at("k2_service_up", **STORE): gauge((10, 1), (5, 0), (20, 1)),
            _at("k2_service_up", instance="a", service="web"): WELL,
            _up("store"): gauge((10, 1), (5, 0), (20, 1)), _up("web"): WELL,
        },
        9, 12, 17, STORE,
    ),
    Example(
        "ServiceRestarting",
        {
            _at("k2_service_restarts_total", reason="exit", **STORE): counter((10, 0), (3, 1), (60, 0)),
            _at("k2_service_restarts_total", reason="exit", instance="a", service="web"):
                counter((10, 0), (1, 1), (60, 0)),
        },
        9, 14, 60, STORE,
    ),
    Example("ScrapeDown", {_up("store"): gauge((10, 1), (5, 0), (20, 1)), _up("web"): WELL}, 11, 13, 17, STORE),
    Example(
        "DiskFilling",
        {
            _at("k2_disk_free_bytes", instance="a", service="store"):
                [*gauge((20, 100e9)), *(100e9 - i * 0.25e9 for i in range(160)), *gauge((80, 60e9))],
            _at("k2_disk_free_bytes", instance="b", service="store"): gauge((150, 50e9)),
        },
        19, 55, 120, {"instance": "a"},
    ),
    Example(
        "FeedHandlerDown",
        {
            _live("kraken"): counter((10, 60), (6, 0), (20, 60)), _live("binance"): FLOWING,
            **_of_venue("k2_venue_enabled", gauge, (150, 1), well=1),
        },
        11, 13, 20, KRAKEN,
    ),
    Example(
        "FeedSilent",
        {
            **_of_venue("k2_last_frame_timestamp_seconds", stamp, (10, 1), (4, 0), (10, 1), well=1),
            **_of_venue("k2_venue_enabled", gauge, (150, 1), well=1),
        },
        10.5, 12, 15, KRAKEN,
    ),
    Example(
        "FeedReconnectLoop",
        _of_venue("k2_reconnects_total", counter, (10, 0), (4, 2), (30, 0), reason="closed"),
        9, 14, 30, KRAKEN,
    ),
    Example(
        "FeedFaults", _of_venue("k2_faults_total", counter, (10, 0), (5, 6), (30, 0), reason="junk"),
        9, 15, 25, KRAKEN,
    ),
    Example(
        "BackfillRefused",
        {
            **_of_venue("k2_backfill_requests_total", counter, (10, 0), (5, 2), (30, 0), outcome="rate-limited"),
            _venue("k2_backfill_requests_total", "binance", outcome="ok"): counter((150, 30)),
        },
        9, 15, 30, KRAKEN,
    ),
    Example(
        "SymbolSilent",
        {
            _at("k2_last_trade_timestamp_seconds", exchange="kraken", symbol="ADA-USD"):
                stamp((10, 1), (40, 0), (10, 1)),
            _at("k2_last_trade_timestamp_seconds", exchange="kraken", symbol="BTC-USD"): stamp((60, 1)),
            _live("kraken"): FLOWING,
        },
        35, 45, 55, {**KRAKEN, "symbol": "ADA-USD"},
    ),
    Example(
        "ClockSkew", _of_venue("k2_exchange_clock_offset_seconds", gauge, (10, 0.1), (5, -3), (10, 0.1)),
        9, 13, 17, KRAKEN,
    ),
    Example("GapOpen", _of_venue("k2_gaps_open", gauge, (10, 0), (5, 2), (10, 0)), 9, 13, 17, KRAKEN),
    Example("GapUnhealable", _of_venue("k2_gaps_unhealable", gauge, (10, 0), (1, 1), (10, 0)), 9, 10.5, 12, KRAKEN),
    Example(
        "TradesLost",
        {
            **_of_venue("k2_trades_lost_total", counter, (10, 0), (1, 7), (90, 0)),
            **_of_venue("k2_verify_missing_trades", gauge, (150, 0)),
        },
        9, 15, 90, KRAKEN,
    ),
    Example(
        "ConsumerLagHigh",
        {
            _at("k2_consumer_lag_records", consumer="loader", stream="market.crypto.trades.kraken"):
                gauge((10, 5), (10, 5000), (10, 5)),
            _at("k2_consumer_lag_seconds", consumer="loader", stream="market.crypto.trades.kraken"):
                gauge((10, 0), (10, 20), (10, 0)),
            _at("k2_consumer_lag_records", consumer="loader", stream="market.crypto.trades.kraken.raw"):
                gauge((30, 9000)),
            _at("k2_consumer_lag_seconds", consumer="loader", stream="market.crypto.trades.kraken.raw"): gauge((30, 4)),
            _at("k2_consumer_lag_seconds", consumer="archiver", stream="market.crypto.trades.kraken"): gauge((30, 600)),
        },
        14, 16, 22, {"consumer": "loader", "stream": "market.crypto.trades.kraken"},
    ),
    Example("CandleDelay", _of_venue("k2_candle_delay_seconds", gauge, (10, 1), (5, 45), (10, 1)), 9, 12, 17, KRAKEN),
    Example(
        "StoreInsertFailure",
        {
            _at("k2_insert_failing_seconds", service="loader"): gauge((10, 0), (5, 60), (20, 0)),
            _at("k2_insert_failures_total", reason="refused"): counter((40, 0)),
        },
        9, 12, 17,
    ),
    Example(
        "OffloadLag",
        {
            _at("k2_consumer_lag_seconds", consumer="archiver", stream="market.crypto.trades.kraken"):
                gauge((10, 900), (10, 2400), (10, 60)),
            _at("k2_consumer_lag_seconds", consumer="loader", stream="market.crypto.trades.kraken"): gauge((30, 0)),
        },
        9, 16, 22,
    ),
    Example(
        "OffloadFailure",
        {
            _at("k2_archive_failures_in_a_row", job="offload"): gauge((10, 1), (5, 3), (10, 0)),
            _at("k2_archive_failures_in_a_row", job="maintenance"): gauge((30, 2)),
        },
        9, 12, 17, {"job": "offload"},
    ),
    Example(
        "AuditFailed",
        {_at("k2_audit_ok", scope="whole"): gauge((10, 1), (5, 0), (10, 1)), _at("k2_audit_ok", scope="part"): WELL},
        9, 12, 17,
    ),
    Example(
        "VerifyFailed",
        {_at("k2_verify_ok", scope="whole"): gauge((10, 1), (5, 0), (10, 1)), _at("k2_verify_ok", scope="part"): WELL},
        9, 12, 17,
    ),
)  # fmt: skip


def rule_tests(rule_file: str) -> dict[str, Any]:
    """The file that `promtool test rules` reads."""
    return {
        "rule_files": [rule_file],
        "evaluation_interval": f"{SCRAPE_S:.0f}s",
        "tests": [_test(example) for example in EXAMPLES],
    }


def _test(example: Example) -> dict[str, Any]:
    return {
        "name": example.alert,
        "interval": f"{SCRAPE_S:.0f}s",
        "input_series": [{"series": name, "values": _packed(values)} for name, values in example.series.items()],
        "promql_expr_test": list(_moments(example)),
    }


def _moments(example: Example) -> Iterator[dict[str, Any]]:
    alert = ALERTS[example.alert]
    expression = f'ALERTS{{alertname="{alert.name}",alertstate="firing"}}'
    labels = {
        "alertname": alert.name, "alertstate": "firing", "severity": alert.severity, "team": alert.team,
        "scope": alert.scope, **example.labels,
    }  # fmt: skip
    fires = [{"labels": _at("ALERTS", **labels), "value": 1}]
    for minute, expected in ((example.quiet, []), (example.firing, fires), (example.over, [])):
        if minute >= 0:
            yield {"expr": expression, "eval_time": f"{minute * 60:.0f}s", "exp_samples": expected}


def _packed(values: Values) -> str:
    """Values in promtool's shorthand: runs of one value, or of one step, are written short."""
    runs: list[str] = []
    at = 0
    while at < len(values):
        here = values[at]
        if here is None:
            runs.append("_")
            at += 1
            continue
        step, end = _run(values, at)
        runs.append(f"{here:g}{step:+g}x{end - at - 1}" if end - at > 1 else f"{here:g}")
        at = end
    return " ".join(runs)


def _run(values: Values, at: int) -> tuple[float, int]:
    """The step from here on, and where it ends."""
    here, following = values[at], values[at + 1] if at + 1 < len(values) else None
    if here is None or following is None:
        return 0.0, at + 1
    step = following - here
    end = at + 2
    while end < len(values) and values[end] is not None and values[end] - values[end - 1] == step:  # type: ignore[operator]
        end += 1
    return step, end
