"""The web application: from a request to a route's handler, and from whatever comes of it to an answer."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from k2 import metrics
from k2.log import LogError
from k2.store import StoreError
from k2.web import endpoints, negotiate, openapi, page
from k2.web.guard import Guard
from k2.web.keys import Key
from k2.web.limits import Limits
from k2.web.params import MAX_BODY, Reader, read_body, too_large
from k2.web.parts import Parts
from k2.web.problems import MEDIA_TYPE, Problem, of_store
from k2.web.route import Call, Route
from k2.web.send import Way, send
from k2.web.trace import TRACE, Trace

_log = logging.getLogger("k2.web")
_access = logging.getLogger("k2.web.access")
_WATCH_EVERY = 0.5  # s between two looks whether the keys of open requests still count
_GONE = 499  # status in metrics and logs of requests whose client went away


def routes() -> tuple[Route, ...]:
    """All routes: those of every module in `endpoints`."""
    modules = [import_module(f"{endpoints.__name__}.{found.name}") for found in iter_modules(endpoints.__path__)]
    return tuple(route for module in modules for route in getattr(module, "ROUTES", ()))


class Frame:
    """What stands around the handlers."""

    def __init__(self, parts: Parts, table: Sequence[Route]) -> None:
        self._parts = parts
        self._table = table
        self._guard = Guard(parts.config.web, parts.keys)
        self._limits = Limits()
        self._open: dict[asyncio.Task[Any], Key | None] = {}

    def application(self, *middlewares: Middleware) -> web.Application:
        """`middlewares` stand outside of everything here."""
        app = web.Application(middlewares=[*middlewares, self._outermost], client_max_size=MAX_BODY)
        for route in self._table:
            handle = self._answering(route)
            app.router.add_route(route.method, route.path, handle)
            if route.method == "GET" and not route.key_in_url:
                app.router.add_route("HEAD", route.path, handle)
        page.add_to(app, openapi.document(self._table))
        app.on_response_prepare.append(self._dress)
        app.cleanup_ctx.append(self._watching)
        return app

    def _answering(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """A route's handler with all that comes before and after it."""
        also = (*(("format",) if route.rows is not None else ()), *(("key",) if route.key_in_url else ()))
        reader = Reader(route.params, route.path, also)
        config = self._parts.config.web

        async def handle(request: web.Request) -> web.StreamResponse:
            request[TRACE].route = route.path
            key = None if route.open else self._identified(request, route)
            whom = key.id if key else f"{request.remote}"
            rate = key.rate if key and key.rate else config.rate_per_s
            request[TRACE].headers.update(self._limits.admit(whom, rate, config.burst))
            params = reader.read(request)
            body = await read_body(request, route.body) if route.body else None
            form = negotiate.JSON
            if route.rows is not None:
                form = negotiate.choose(request.headers.get("Accept", ""), request.query.get("format"))
            way = Way(
                request,
                form,
                negotiate.packing(request.headers.get("Accept-Encoding", "")),
                config.max_response_mb << 20,
            )
            task = asyncio.current_task()
            assert task is not None
            if not route.open:
                self._open[task] = key
            try:
                answer = await route.handler(Call(params, self._parts, request, key, body))
                return await send(answer, way, self._parts)
            finally:
                self._open.pop(task, None)

        return handle

    def _identified(self, request: web.Request, route: Route) -> Key | None:
        try:
            key = self._guard.identify(request, route.key_in_url)
        except Problem as problem:
            if problem.status == 401:  # guessing is no faster than asking
                config = self._parts.config.web
                self._limits.admit(f"refused {request.remote}", config.rate_per_s, config.burst)
            raise
        request[TRACE].key = key.id if key else ""
        return key

    @web.middleware
    async def _outermost(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        began = time.perf_counter()
        trace = request[TRACE] = Trace()
        status = _GONE
        try:
            response = await self._answered(request, handler)
            status = trace.broken.status if trace.broken else response.status
            return response
        finally:
            self._note(request, status, time.perf_counter() - began)

    async def _answered(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return self._guard.admit(request) or await handler(request)
        except Problem as caught:
            problem = caught
        except StoreError as error:
            problem = of_store(error)
        except LogError as error:
            remedy = "`k2 streams` and `k2 check` tell more"
            problem = Problem(503, "Log unavailable", str(error), remedy, "log", headers={"Retry-After": "5"})
        except web.HTTPRequestEntityTooLarge:
            problem = too_large()
        except web.HTTPException as error:
            if error.status < 400:
                raise
            problem = _of_http(error, request)
        except ConnectionError:
            raise asyncio.CancelledError from None  # the client went away
        except Exception:  # noqa: BLE001 - the outermost shell: nobody else would answer
            _log.exception("a request failed", extra={"path": request.path})
            remedy = "this is a fault of K2: its log (run/web.log) has the details"
            problem = Problem(500, "Internal error", "the request could not be answered", remedy, "internal")
        return _failed(request, problem)

    async def _dress(self, request: web.Request, response: web.StreamResponse) -> None:
        trace = request.get(TRACE) or Trace()  # none: the request could not even be read
        trace.prepared = True
        response.headers.update(trace.headers)
        self._guard.dress(request, response.headers)

    def _note(self, request: web.Request, status: int, seconds: float) -> None:
        trace = request[TRACE]
        route, sent = trace.route, trace.sent
        metrics.WEB_REQUESTS.labels(route, str(status)).inc()
        metrics.WEB_SECONDS.labels(route).observe(seconds)
        metrics.WEB_BYTES.labels(route).inc(sent)
        extra = {
            "method": request.method,
            "path": request.path[:500],  # never the query: a key may stand in it
            "status": status,
            "bytes": sent,
            "ms": round(seconds * 1000, 1),
            "remote": request.remote,
            "key": trace.key,
        }
        level = logging.INFO if status < 500 or status == 503 else logging.WARNING
        _access.log(level, "request", extra=extra)

    async def _watching(self, app: web.Application) -> Any:
        """While the application runs: end requests whose key no longer counts, note when keys were used."""
        task = asyncio.get_running_loop().create_task(self._watch())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        self._note_used()

    async def _watch(self) -> None:
        noted = time.monotonic()
        while True:
            await asyncio.sleep(_WATCH_EVERY)
            for request, key in list(self._open.items()):
                if not self._parts.keys.counts(key):
                    _log.warning("ending a request: its key no longer counts", extra={"key": key.id if key else ""})
                    request.cancel()
            if time.monotonic() - noted > 30.0:
                noted = time.monotonic()
                self._note_used()

    def _note_used(self) -> None:
        try:
            self._parts.keys.note_used(self._parts.config.run_dir / "keys-used.json")
        except OSError as error:
            _log.warning("cannot note when keys were used", extra={"error": str(error)})


def _failed(request: web.Request, problem: Problem) -> web.StreamResponse:
    """The problem as an answer; if one has begun already, an end that nobody takes for a whole answer."""
    trace = request[TRACE]
    if trace.prepared:
        trace.broken = problem
        if request.transport is not None:
            request.transport.close()
        raise asyncio.CancelledError
    body = problem.encoded(request.path)
    trace.sent = len(body)
    headers = {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store", **problem.headers}
    return web.Response(status=problem.status, body=body, headers=headers)


def _of_http(error: web.HTTPException, request: web.Request) -> Problem:
    """What the router refuses, as a problem."""
    if error.status == 404:
        remedy = "see /docs for all that can be asked"
        return Problem(404, "Not found", f"there is nothing at {request.path[:200]}", remedy, "not-found")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        detail = f"{request.method} is not possible at {request.path[:200]}"
        return Problem(405, "Method not allowed", detail, f"use {allowed}", "method", headers={"Allow": allowed})
    return Problem(error.status, error.reason or "Refused", error.text or error.reason or "", "see /docs")
