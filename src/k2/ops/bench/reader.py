"""A reader who asks the store all the time: `python -m k2.ops.bench.reader PAUSE_MS`.

By turns it asks which trade of each symbol is the newest in `silver_trades` and in the candles of the last minutes. A
candle's last trade counts only if the candle counts every trade from its first to it. When it hears a line it says
`{"answers": [{"kind", "start", "end", "last": {"exchange:symbol": id}}]}`, times in ns, and ends.
"""

import json
import select
import sys
import time
from typing import Any

from k2.config import load
from k2.store import Store
from k2.wire import open_store

QUESTIONS = {
    "candle": (
        "SELECT exchange, symbol, maxIf(last_trade_id, trade_count = last_trade_id - first_trade_id + 1) "
        "FROM k2.ohlcv_1m WHERE window_start >= toStartOfMinute(now() - 60) GROUP BY exchange, symbol"
    ),
    "silver": (
        "SELECT exchange, symbol, max(trade_id) FROM k2.silver_trades "
        "WHERE exchange_ts >= now64(9) - INTERVAL 2 SECOND GROUP BY exchange, symbol"
    ),
}


def ask(store: Store, kind: str) -> dict[str, Any]:
    """One question and its answer."""
    start = time.time_ns()
    rows = store.rows(QUESTIONS[kind])
    end = time.time_ns()
    return {"kind": kind, "start": start, "end": end, "last": {f"{row[0]}:{row[1]}": int(row[2]) for row in rows}}


def main() -> None:
    pause = float(sys.argv[1]) / 1e3
    store = open_store(load())
    answers: list[dict[str, Any]] = []
    sys.stdout.write('{"ready": 1}\n')
    sys.stdout.flush()
    while not select.select([sys.stdin], [], [], pause)[0]:
        answers.append(ask(store, ("candle", "silver")[len(answers) % 2]))
    store.close()
    sys.stdout.write(json.dumps({"answers": answers}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
