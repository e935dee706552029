"""The REST side: the three venues' APIs under their prefixes, and the control endpoint.

GET    /control/status            what runs: rate, symbols with their ids, clients, faults, whether all was sent
POST   /control/pause|resume
POST   /control/rate              {"rate": 500}
POST   /control/emit              {"exchange": "binance", "symbol": "BTC-USDT", "count": 3}
GET    /control/faults            what stands, and what there is
POST   /control/faults            {"fault": "drop", "exchange": "binance", "probability": 0.01, ...}
DELETE /control/faults            all, or those of ?exchange=, ?fault=, ?id=
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
from aiohttp import web

from k2.sim.faults import FAULTS, FaultError, Faults, Order
from k2.sim.market import Market
from k2.sim.venues import Answer

LONGEST_WAIT = 300.0  # s; a request that is never answered ends here at the latest


class Controlled(Protocol):
    """What the control endpoint steers."""

    markets: Mapping[str, Market]
    faults: Faults

    def status(self) -> dict[str, Any]:
        """The answer to GET /control/status."""

    def pause(self, paused: bool) -> None:
        """Stop or go on making trades."""

    def set_rate(self, rate: float) -> None:
        """Trades a second over all instruments. Raises ValueError."""

    def emit(self, exchange: str, symbol: str, count: int, side: str) -> list[int]:
        """Make trades now; their ids. Raises ValueError."""

    def now_ns(self) -> int:
        """Our clock."""


class Bucket:
    """A venue's rate limit: weight that refills steadily."""

    def __init__(self, refill: float, burst: float) -> None:
        self.refill, self.burst, self.level, self._at = refill, burst, burst, time.monotonic()

    def take(self, weight: float) -> float:
        """0 if there was enough, else the seconds until there is."""
        now = time.monotonic()
        self.level, self._at = min(self.burst, self.level + (now - self._at) * self.refill), now
        if weight <= self.level:
            self.level -= weight
            return 0.0
        return (weight - self.level) / self.refill


class _Emit(msgspec.Struct, forbid_unknown_fields=True):
    exchange: str
    symbol: str
    count: int = 1
    side: str = "buy"


class _Rate(msgspec.Struct, forbid_unknown_fields=True):
    rate: float


def application(sim: Controlled, limits: bool) -> web.Application:
    """The aiohttp application. `limits`: hold clients to the venues' own rate limits."""
    app = web.Application()
    for name, market in sim.markets.items():
        bucket = Bucket(market.venue.refill, market.venue.burst) if limits else None
        app.router.add_get(f"/{name}/{{path:.*}}", _venue_handler(sim, market, bucket))
    app.router.add_get("/control/status", _status(sim))
    app.router.add_get("/control/faults", _list_faults(sim))
    app.router.add_post("/control/faults", _order_fault(sim))
    app.router.add_delete("/control/faults", _clear_faults(sim))
    app.router.add_post("/control/{verb:pause|resume}", _pause(sim))
    app.router.add_post("/control/rate", _rate(sim))
    app.router.add_post("/control/emit", _emit(sim))
    return app


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _response(answer: Answer) -> web.Response:
    kind = "text/html" if answer.body.startswith(b"<") else "application/json"
    return web.Response(body=answer.body, status=answer.status, headers=dict(answer.headers), content_type=kind)


def _venue_handler(sim: Controlled, market: Market, bucket: Bucket | None) -> Handler:
    venue, faults, name = market.venue, sim.faults, market.venue.name

    async def handle(request: web.Request) -> web.StreamResponse:
        path, query = "/" + request.match_info["path"], request.query
        market.now_ns = max(market.now_ns, sim.now_ns())
        subject = venue.subject(path, query, market)
        symbol = subject.symbol if subject else None
        if faults.strike(name, "rest-timeout", symbol):
            await asyncio.sleep(LONGEST_WAIT)
        if slow := faults.strike(name, "rest-slow", symbol):
            await asyncio.sleep(min(slow.amount, LONGEST_WAIT))
        for fault, kind in (("rest-429", "429"), ("rest-418", "418"), ("rest-5xx", "503")):
            if one := faults.strike(name, fault, symbol):
                return _response(venue.refused(kind, one.amount, market.now()))
        wait = bucket.take(venue.weight(path, query)) if bucket else 0.0
        if wait:
            return _response(venue.refused("429", wait, market.now()))
        return _response(venue.rest(path, query, market))

    return handle


def _status(sim: Controlled) -> Handler:
    async def handle(_: web.Request) -> web.StreamResponse:
        return _json(sim.status())

    return handle


def _described(faults: Faults) -> list[dict[str, Any]]:
    return [
        {"id": one.id, "played": one.played, **msgspec.to_builtins(one.order), "amount": one.amount}
        for one in faults.standing
        if not one.spent
    ]


def _list_faults(sim: Controlled) -> Handler:
    async def handle(_: web.Request) -> web.StreamResponse:
        return _json({"standing": _described(sim.faults), "played": sim.faults.played, "known": FAULTS})

    return handle


def _order_fault(sim: Controlled) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            made = sim.faults.order(msgspec.json.decode(await request.read(), type=Order))
        except (FaultError, msgspec.DecodeError) as error:
            return _json({"error": str(error)}, 400)
        return _json({"ids": [one.id for one in made]})

    return handle


def _clear_faults(sim: Controlled) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        query = request.query
        number = query.get("id")
        if number is not None and not number.isdigit():
            return _json({"error": f"id={number!r} is not a fault's number"}, 400)
        ended = sim.faults.clear(int(number) if number else None, query.get("exchange"), query.get("fault"))
        return _json({"cleared": ended})

    return handle


def _pause(sim: Controlled) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        sim.pause(request.match_info["verb"] == "pause")
        return _json(sim.status())

    return handle


def _rate(sim: Controlled) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            sim.set_rate(msgspec.json.decode(await request.read(), type=_Rate).rate)
        except (ValueError, msgspec.DecodeError) as error:
            return _json({"error": str(error)}, 400)
        return _json(sim.status())

    return handle


def _emit(sim: Controlled) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            wanted = msgspec.json.decode(await request.read(), type=_Emit)
            ids = sim.emit(wanted.exchange, wanted.symbol, wanted.count, wanted.side)
        except (ValueError, msgspec.DecodeError) as error:
            return _json({"error": str(error)}, 400)
        return _json({"ids": ids})

    return handle
