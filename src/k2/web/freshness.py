"""Whether data flows, judged from the log and the store themselves: not from what processes say of their health.

A venue is fresh if its newest trade is, or, where nobody trades, a newer sign of life: a frame with a heartbeat.
The loader is close behind if the oldest trade that it has yet to commit to the store is young.
"""

import time
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from k2.ask.times import format_time
from k2.config import EXCHANGES, Config
from k2.core.codec import decode_frame, frames_stream, trades_stream
from k2.core.exchange import Exchange
from k2.core.types import Event, Fault, Heartbeat, Trade
from k2.exchanges import venue
from k2.log import Log
from k2.web.records import Wanted, backwards
from k2.web.streams import append_ts

AT_LEAST_S = 10.0  # a reconnect is no standstill
SILENCES = 2.0  # times the longest silence of a living connection of the venue
LAG_S = 30.0  # and at least so many flushes ...
LAG_FLUSHES = 6.0
FRAMES_READ = 500  # of the newest, for a sign of life
COMMITTED = "SELECT mapKeys(positions), mapValues(positions) FROM k2.commits ORDER BY generation DESC LIMIT 1"


class Check(msgspec.Struct):
    """One condition of readiness."""

    name: Annotated[str, Meta(description="What was looked at: `venue:<exchange>`, `loader`, `store`, `log`.")]
    ok: Annotated[bool, Meta(description="Whether it is as it must be.")]
    detail: Annotated[str, Meta(description="What was found.")]
    since: Annotated[str | None, Meta(description="Since when it is not (RFC 3339, UTC); null: it is, or never was.")]
    remedy: Annotated[str, Meta(description="What to do if it is not; else empty.")]


class SignOfLife(NamedTuple):
    """The newest of an exchange. Times in ns, 0 for never.

    `trade`: its newest trade was appended. `frame`: a frame with a heartbeat or a trade was received, looked for only
    where the trade is old. `limit_s`: seconds that it may be old.
    """

    exchange: str
    trade: int
    frame: int
    limit_s: float

    @property
    def newest(self) -> int:
        return max(self.trade, self.frame)

    def fresh(self, now_ns: int) -> bool:
        return now_ns - self.newest <= self.limit_s * 1e9


def enabled(config: Config) -> list[str]:
    """The exchanges that the platform captures."""
    return [name for name in EXCHANGES if config.exchange(name).enabled]


def loader_limit_s(config: Config) -> float:
    """Age from which on a trade that is not in the store says that the loader is behind."""
    return max(LAG_S, LAG_FLUSHES * config.loader.flush_s)


def sign_of_life(log: Log, config: Config, exchange: str, now_ns: int) -> SignOfLife:
    """Look for it. Blocks. Raises LogError."""
    known = venue(exchange)
    limit_s = max(AT_LEAST_S, SILENCES * (config.feed.silence or known.limits.silence))
    stream = trades_stream(exchange)
    start, end = log.bounds(stream)
    trade = (append_ts(log, stream, end - 1) or 0) if end > start else 0
    if now_ns - trade <= limit_s * 1e9:
        return SignOfLife(exchange, trade, 0, limit_s)
    return SignOfLife(exchange, trade, _newest_lively(log, known, now_ns - int(limit_s * 1e9)), limit_s)


def _newest_lively(log: Log, exchange: Exchange, since_ns: int) -> int:
    """Receive time of the newest frame with a trade or a heartbeat and nothing strange, 0 if none is among the newest.
    What we sent, and what REST answered, is no sign of the venue's life."""
    stream = frames_stream(exchange.name)
    before, left = log.bounds(stream)[1], FRAMES_READ
    while left > 0:
        found = backwards(log, stream, before, Wanted(limit=50, scan=left))
        for record in found.records:
            try:
                frame = decode_frame(record.value)
            except ValueError:
                continue
            if frame.kind == "ws" and _lives(exchange.decode(frame)):
                return frame.recv_ts
        if found.complete or not found.records or found.records[-1].append_ts < since_ns:
            break
        before, left = found.next, left - len(found.records)
    return 0


def _lives(events: Sequence[Event]) -> bool:
    """Confirmed subscriptions are no sign of life: a venue that confirms and then stays silent does so at each dial."""
    kinds = {type(event) for event in events}
    return Fault not in kinds and bool({Trade, Heartbeat} & kinds)


def venue_check(sign: SignOfLife, config: Config, now_ns: int) -> Check:
    """The condition that an exchange's data is fresh."""
    name = f"venue:{sign.exchange}"
    if sign.fresh(now_ns):
        what = "a trade" if sign.trade >= sign.frame else "no trade, but a heartbeat"
        return Check(name, True, f"{what} {_ago(now_ns, sign.newest)}", None, "")
    service = f"feed-handler-{sign.exchange}"
    remedy = (
        f"see in `k2 --data {config.data} status` whether {service} runs and is connected, and read"
        f" {config.run_dir / service}.log; `k2 up` starts what does not run, exchanges.{sign.exchange}.enabled = false"
        " takes the exchange out"
    )
    if not sign.newest:
        return Check(name, False, f"nothing was ever received from {sign.exchange}", None, remedy)
    detail = f"the newest trade of {sign.exchange} came {_ago(now_ns, sign.trade)}" if sign.trade else "no trade yet"
    if sign.frame:
        detail += f", the newest heartbeat {_ago(now_ns, sign.frame)}"
    return Check(name, False, f"{detail}; {sign.limit_s:.0f} s are allowed", format_time(sign.newest), remedy)


def loader_check(log: Log, config: Config, positions: dict[str, int], now_ns: int) -> Check:
    """The condition that the store has what the log has. `positions`: stream to the next offset that the store's last
    commit lacks. Blocks. Raises LogError."""
    oldest, records = 0, 0
    for exchange in enabled(config):
        stream = trades_stream(exchange)
        start, end = log.bounds(stream)
        at = max(start, positions.get(stream, start))
        if at < end:
            records += end - at
            waiting = append_ts(log, stream, at) or now_ns
            oldest = min(oldest or waiting, waiting)
        elif at > end:
            return Check(
                "loader", False, f"the store has {stream} up to offset {at}, the log ends at {end}", None,
                "log and store do not belong together: put the right log back",
            )  # fmt: skip
    limit_s = loader_limit_s(config)
    if not oldest or now_ns - oldest <= limit_s * 1e9:
        return Check("loader", True, f"{records:,} trades of the log are not committed to the store yet", None, "")
    return Check(
        "loader",
        False,
        f"{records:,} trades of the log are not committed to the store, the oldest came {_ago(now_ns, oldest)};"
        f" {limit_s:.0f} s are allowed",
        format_time(oldest),
        f"see in `k2 --data {config.data} status` whether the loader runs, and read {config.run_dir / 'loader.log'};"
        " after a long standstill it catches up by itself",
    )


def log_checks(log: Log, config: Config, positions: dict[str, int] | None) -> list[Check]:
    """All conditions that the log decides. `positions` None: the store did not tell. Blocks. Raises LogError."""
    signs = [sign_of_life(log, config, exchange, time.time_ns()) for exchange in enabled(config)]
    checks = [venue_check(sign, config, time.time_ns()) for sign in signs]
    if positions is not None:
        checks.append(loader_check(log, config, positions, time.time_ns()))
    return checks


def _ago(now_ns: int, at_ns: int) -> str:
    return f"{max(0, now_ns - at_ns) / 1e9:.1f} s ago" if at_ns else "never"
