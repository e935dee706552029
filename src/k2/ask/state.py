"""Of a range of times: the SQL that tells whether an answer about its trades or candles may have changed.

A trade comes into the live tail, and with its commit the candle of its minute gets the commit's generation, which is
larger than any before (or is put down as due with it). So: what the tail has in the range, then the largest
generations. Read before the answer is, it may be older than that, which costs a needless new answer, but never newer.
"""

MINUTE = 60_000_000_000


def state(named: str, first: int | None, end: int) -> str:
    """Rows of (where, count, generation); the first two are the tail's. `named` are conditions on exchange and symbol;
    times in ns."""
    trades = f"{named} AND exchange_ts < {end}" + (f" AND exchange_ts >= {first}" if first else "")
    minutes = f"{named} AND window_start < toDateTime({min(-(-end // MINUTE) * 60, (1 << 32) - 1)}, 'UTC')"
    if first:
        minutes += f" AND window_start >= toDateTime({first // MINUTE * 60}, 'UTC')"
    return (
        f"SELECT * FROM (SELECT 1 AS part, count() AS rows, max(generation) FROM k2.silver_fresh WHERE {trades}"
        f" UNION ALL SELECT 2, count(), max(generation) FROM k2.silver_recent WHERE {trades}"
        f" UNION ALL SELECT 3, 0, max(generation) FROM k2.ohlcv_1m_base WHERE {minutes}"
        f" UNION ALL SELECT 4, 0, max(generation) FROM k2.candles_due WHERE {minutes}) ORDER BY part"
    )
