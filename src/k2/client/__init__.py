"""The Python client: `k2.connect()` gives trades, candles, gaps and SQL as Arrow, and the live stream."""
