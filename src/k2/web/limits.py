"""How often one may ask: a token bucket for each key, or for each address where there are no keys."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from k2.web.problems import Problem

_KNOWN = 4096  # buckets; the one that was used longest ago is forgotten first, and would be full again soon
_NAME = '"requests"'


class Taken(NamedTuple):
    """A bucket after a request: `left` whole tokens, `full_in` and `next_in` seconds until it is full, or gives one."""

    allowed: bool
    left: int
    full_in: float
    next_in: float


class Limits:
    """Buckets by whom they are for. Used in the event loop only. A rate of 0 is no limit."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # whom for -> tokens, when

    def take(self, whom: str, rate: float, burst: int) -> Taken:
        """Take a token of a bucket that gets `rate` tokens a second and holds `burst` of them."""
        now = self._clock()
        tokens, since = self._buckets.pop(whom, (float(burst), now))
        tokens = min(float(burst), tokens + max(0.0, now - since) * rate)
        allowed = tokens >= 1.0
        tokens -= 1.0 if allowed else 0.0
        self._buckets[whom] = tokens, now
        if len(self._buckets) > _KNOWN:
            self._buckets.popitem(last=False)
        return Taken(allowed, int(tokens), (burst - tokens) / rate, max(0.0, 1.0 - tokens) / rate)

    def admit(self, whom: str, rate: float, burst: int) -> dict[str, str]:
        """The headers of an answer that may be given (draft-ietf-httpapi-ratelimit-headers). Raises Problem 429."""
        if rate <= 0:
            return {}
        burst = max(1, burst)
        taken = self.take(whom, rate, burst)
        headers = {
            "RateLimit-Policy": f"{_NAME};q={burst};w={math.ceil(burst / rate)}",
            "RateLimit": f"{_NAME};r={taken.left};t={math.ceil(taken.full_in)}",
        }
        if taken.allowed:
            return headers
        wait = max(1, math.ceil(taken.next_in))
        raise Problem(
            429,
            "Too many requests",
            f"more than {burst} requests at once, or {rate:g} a second for long",
            f"wait {wait} s, then ask less often; the settings web.rate_per_s and web.burst, or the key's rate, say how"
            " often",
            "rate",
            headers={**headers, "Retry-After": str(wait)},
        )
