"""Microsecond RFC 3339 times, as Coinbase and Kraken print them; the part down to the second is made once a second."""

import calendar
import time

_cache: list[tuple[int, bytes]] = [(-1, b"")]


def stamp(ns: int) -> bytes:
    """`2026-11-23T06:47:08.123456Z`."""
    second, rest = divmod(ns, 1_000_000_000)
    if _cache[0][0] != second:
        _cache[0] = (second, time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode())
    return b"%s%06dZ" % (_cache[0][1], rest // 1000)


def parse(text: str) -> int:
    """The reverse of `stamp`, for any number of fractional digits up to 9."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0") or 0)
