"""How often something may be tried: back-off after failures, and rate limits. Time and chance come in as arguments."""


class Backoff:
    """Delays that double from `first` to `cap` seconds, each shortened at random by up to a half."""

    def __init__(self, first: float, cap: float) -> None:
        self._first = first
        self._cap = cap
        self._full = first

    def next(self, random_unit: float) -> float:
        """Seconds to wait before the next try. `random_unit` is uniform in [0, 1): many clients do not come at once."""
        full = min(self._full, self._cap)
        self._full = min(full * 2, self._cap)
        return full * (0.5 + random_unit / 2)

    def reset(self) -> None:
        """It worked: the next delay is the first again."""
        self._full = self._first


class TokenBucket:
    """A rate limit of `rate` units a second with bursts of `burst`. `now` is any monotonic clock's time in seconds."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at: float | None = None
        self._shut_until: float | None = None

    def wait(self, now: float, weight: float = 1) -> float:
        """Take `weight` units. Returns how many seconds to wait before using them (0: go on).

        Weights above the burst are allowed, and paid for by waiting. Callers queue up: each call waits behind the last.
        """
        if self._at is None:
            self._at = now
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = max(self._at, now)
        self._tokens -= weight
        shut = max(0.0, self._shut_until - now) if self._shut_until is not None else 0.0
        return max(shut, -self._tokens / self._rate if self._tokens < 0 else 0.0)

    def penalise(self, now: float, seconds: float) -> None:
        """The venue told us to stay away for so long (`Retry-After`): nobody goes before, and no burst follows."""
        until = now + seconds
        self._shut_until = until if self._shut_until is None else max(until, self._shut_until)
        self._tokens = min(self._tokens, 0.0)
