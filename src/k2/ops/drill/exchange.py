"""Exchanges that fall silent, talk nonsense, hang up, or refuse what is asked of them."""

from collections.abc import Callable
from typing import Any

from k2.config import EXCHANGES
from k2.ops.drill import Drill
from k2.ops.drill.stage import Stage

VICTIM, *SPARED = EXCHANGES
SILENT_S = 8.0
LOST_FRAMES = {"probability": 0.02}

Orders = tuple[tuple[str, dict[str, Any]], ...]


def ordered(
    *orders: tuple[str, dict[str, Any]], exchange: str = "all", seconds: float = SILENT_S
) -> Callable[[Stage], None]:
    """An act: these faults of the simulator stand for a while."""

    def act(stage: Stage) -> None:
        with stage.failing():
            for fault, fields in orders:
                stage.platform.order(fault, exchange, **fields)
            try:
                stage.hold(seconds)
            finally:
                stage.platform.clear()

    return act


def _refusing(*orders: tuple[str, dict[str, Any]]) -> Callable[[Stage], None]:
    """An act: frames are lost, and REST does not give back what they held while its fault stands."""
    return ordered(("drop", LOST_FRAMES), *orders)


DRILLS = (
    Drill(
        name="exchange-silent",
        summary=f"every exchange sends nothing for {SILENT_S:.0f} s, on sockets that stay open",
        expectation="the newest trades age, which shows; when the exchanges speak again the ids show what is missing,"
        " and REST gives it back",
        act=ordered(("silent", {})),
        seen_by=("metric:*", "readyz:*"),
    ),
    Drill(
        name="silent-channel",
        summary=f"{VICTIM} sends no trades for {SILENT_S:.0f} s; heartbeats go on",
        expectation=f"{VICTIM}'s newest trades age, which shows; afterwards what is missing is healed; the others flow",
        act=ordered(("silent-channel", {}), exchange=VICTIM),
        seen_by=(f"metric:*{{{VICTIM}}}", f"ledger:{VICTIM}", f"readyz:venue:{VICTIM}"),
        spares=tuple(SPARED),
    ),
    Drill(
        name="exchange-junk",
        summary=f"every exchange mixes garbage and damaged frames into its stream for {SILENT_S:.0f} s",
        expectation="what cannot be understood is counted and kept in the raw stream, a damaged frame is a hole that is"
        " healed, and nothing else suffers",
        act=ordered(
            ("junk", {"probability": 0.05}), ("corrupt", {"probability": 0.02}), ("truncate", {"probability": 0.02})
        ),
        seen_by=("metric:k2_faults_total*", "ledger:*"),
    ),
    Drill(
        name="exchange-closing",
        summary=f"every exchange closes each connection a fifth of a second after it opened, for {SILENT_S:.0f} s",
        expectation="it is dialled again at growing intervals; once a connection holds, what was missed is healed",
        act=ordered(("close-loop", {}), ("close", {})),
        seen_by=("metric:k2_reconnects_total*", "metric:k2_connected*", "metric:k2_last_*"),
    ),
    Drill(
        name="exchange-unreachable",
        summary=f"every exchange accepts connections and never answers the handshake, for {SILENT_S:.0f} s",
        expectation="dialling is given up and tried again; once it is answered, what was missed is healed",
        act=ordered(("no-handshake", {}), ("close", {})),
        seen_by=("metric:k2_reconnects_total*", "metric:k2_connected*", "metric:k2_last_*"),
    ),
    Drill(
        name="rest-rate-limited",
        summary=f"frames are lost while REST answers 429, Retry-After 1 s, for {SILENT_S:.0f} s",
        expectation="the holes are in the ledger at once and stay open while REST refuses; nobody asks before the time"
        " that it names; afterwards all are healed",
        act=_refusing(("rest-429", {"amount": 1})),
        seen_by=("ledger:*", "metric:k2_backfill_requests_total*"),
    ),
    Drill(
        name="rest-banned",
        summary=f"frames are lost while REST answers 418, Retry-After 2 s, for {SILENT_S:.0f} s",
        expectation="as when it is rate-limited, and nothing is asked while the ban stands",
        act=_refusing(("rest-418", {"amount": 2})),
        seen_by=("ledger:*", "metric:k2_backfill_requests_total*"),
    ),
    Drill(
        name="rest-down",
        summary=f"frames are lost while REST answers 503, for {SILENT_S:.0f} s",
        expectation="the holes are in the ledger at once and stay open while REST is down; afterwards all are healed",
        act=_refusing(("rest-5xx", {})),
        seen_by=("ledger:*", "metric:k2_backfill_requests_total*"),
    ),
)
