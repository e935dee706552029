"""Who may come in: hosts, origins, keys; and what every answer tells browsers to do with it."""

import re
from collections.abc import Mapping

from aiohttp import web
from multidict import CIMultiDict

from k2.config import WebConfig
from k2.door import is_loopback
from k2.web.keys import Key, KeyRefused, Keys, KeysError
from k2.web.problems import Problem

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
    " font-src 'self'; connect-src 'self'; worker-src 'self' blob:; manifest-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
_EXPOSED = "Link, ETag, RateLimit, RateLimit-Policy, Retry-After, Content-Disposition"
_ALLOWED_HEADERS = "Authorization, X-API-Key, Content-Type, If-None-Match, Last-Event-ID"


class Guard:
    """The door. `config` says on which host it stands, and which origins' pages may call."""

    def __init__(self, config: WebConfig, keys: Keys) -> None:
        self._loopback = is_loopback(config.host)
        self._origins = frozenset(config.cors_origins.split())
        self._keys = keys

    def admit(self, request: web.Request) -> web.Response | None:
        """Let a request in; or give the answer to a preflight. Raises Problem 403, 421.

        A web page that somebody has open must not speak to K2 behind their back, nor by a name that it rebound.
        """
        host = request.headers.get("Host", "")
        if self._loopback and not is_loopback(re.sub(r":\d*$", "", host).lower()):
            raise Problem(
                421,
                "Misdirected request",
                f"this K2 answers on loopback only, not as {host[:80]!r}",
                "use http://127.0.0.1; a proxy shall send that Host; for a network, set web.host (and make a key)",
                "foreign-host",
            )
        origin = request.headers.get("Origin")
        if origin is None:
            if _from_another_site(request.headers):
                raise _cross_origin("a page of another site")
            return None
        if origin.partition("://")[2].lower() == host.lower():
            return None
        if origin not in self._origins:
            raise _cross_origin(f"a page of {origin[:80]}")
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            headers = {"Access-Control-Allow-Methods": "GET, HEAD, POST", "Access-Control-Max-Age": "600"}
            return web.Response(status=204, headers={**headers, "Access-Control-Allow-Headers": _ALLOWED_HEADERS})
        return None

    def dress(self, request: web.Request, headers: "CIMultiDict[str]") -> None:
        """Put on the headers that every answer has."""
        html = headers.get("Content-Type", "").startswith("text/html")
        for name, value in _ALWAYS.items():
            headers.setdefault(name, value)
        headers["Server"] = "k2"
        headers.setdefault("Content-Security-Policy", PAGE_POLICY if html else _DATA_POLICY)
        if self._origins:
            headers["Vary"] = f"{headers['Vary']}, Origin" if "Vary" in headers else "Origin"
        origin = request.headers.get("Origin")
        if origin is not None and origin in self._origins:
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = _EXPOSED
        else:
            headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")

    def identify(self, request: web.Request, in_url: bool) -> Key | None:
        """The key that came with a request; None where none is needed. Raises Problem 401, 503."""
        try:
            self._keys.refresh()
            if not self._keys.required:
                return None
            given = _given(request, in_url)
            if not given:
                raise _refused("no key came with the request", "")
            return self._keys.check(given)
        except KeysError as error:
            remedy = "nobody is let in before the file can be read again"
            raise Problem(503, "Keys unreadable", str(error), remedy, "keys", headers={"Retry-After": "10"}) from None
        except KeyRefused as error:
            raise _refused(f"the key is {error.reason}", "invalid_token") from None


def _given(request: web.Request, in_url: bool) -> str:
    """The text of the key. Raises Problem where it stands in a place that is written down, or in two."""
    found = set()
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme:
        if scheme.lower() != "bearer":
            raise _refused("Authorization is not of the scheme Bearer", "invalid_request")
        found.add(token.strip())
    if "X-API-Key" in request.headers:
        found.add(request.headers["X-API-Key"].strip())
    for text in request.query.getall("key", ()):
        if not in_url and not text.startswith("k2_"):
            continue  # a parameter of the route itself
        if not in_url:
            raise Problem(
                400,
                "Key in the URL",
                "a key stands in the URL, where browsers, proxies and logs keep it",
                "send it as `Authorization: Bearer` or `X-API-Key`; revoke this one if others could see the URL",
                "key-in-url",
            )
        found.add(text)
    if len(found) > 1:
        raise _refused("two different keys came with the request", "invalid_request")
    return found.pop() if found else ""


def _refused(detail: str, error: str) -> Problem:
    challenge = 'Bearer realm="k2"' + (f', error="{error}"' if error else "")
    remedy = (
        "send `Authorization: Bearer k2_...` (or X-API-Key); `k2 keys create NAME` on the machine of K2 makes a key"
    )
    return Problem(401, "Key required", detail, remedy, "key", headers={"WWW-Authenticate": challenge})


def _from_another_site(headers: Mapping[str, str]) -> bool:
    """A browser's request that another site made, other than by a link that somebody followed."""
    return headers.get("Sec-Fetch-Site") in ("cross-site", "same-site") and headers.get("Sec-Fetch-Mode") != "navigate"


def _cross_origin(whose: str) -> Problem:
    remedy = "name its origin in web.cors_origins if it shall call this API"
    return Problem(403, "Cross-origin request", f"{whose} made this request", remedy, "cross-origin")
