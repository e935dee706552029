"""Letting go of old records: only the writer of an exchange's streams drops them, and never what is yet to be read."""

import logging

from k2.config import LogConfig
from k2.core.codec import frames_stream, trades_stream
from k2.log import Log, LogError
from k2.metrics import DROPS

DAY = 86_400.0
GB = 1 << 30

_log = logging.getLogger("k2.feed")


def retain(log: Log, exchange: str, config: LogConfig, now_ns: int) -> None:
    """Apply `log.max_age_days`, `log.frames_max_age_days` and `log.max_gb` to an exchange's two streams.

    The gap ledger is kept whole. Blocks for the time of a transaction. What the log refuses is logged and tried again
    at the next call.
    """
    max_bytes = int(config.max_gb * GB) or None
    for stream, days in (
        (trades_stream(exchange), config.max_age_days),
        (frames_stream(exchange), config.frames_max_age_days),
    ):
        try:
            before = log.bounds(stream)[0]
            start = log.retain(stream, days * DAY or None, max_bytes, now_ns)
        except LogError as error:
            _log.error("old records of %s stay for now: %s", stream, error)
            continue
        if start > before:
            DROPS.labels(stream, "expired").inc(start - before)
            _log.info("let go of the oldest %d records of %s", start - before, stream)
