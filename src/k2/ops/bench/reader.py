"""A reader who asks the store all the time: `python -m k2.ops.bench.reader PAUSE_MS`.

It says `{"ready": 1}`. For each `{"seconds": s, "since": ns}` that it hears it asks for so long, by turns, which trade
of each symbol is the newest in `silver_trades` and in its candles, as far as they have exchange times from `since` on.
A candle's last trade counts only if the candle counts every trade from its first to it. Then it says `{"answers":
[{"kind", "start", "end", "last": {"exchange:symbol": id}}]}`, times in ns. It ends with its standard input.
"""

import json
import sys
import time
from typing import Any

from k2.config import load
from k2.store import Store
from k2.wire import open_store

QUESTIONS = {
    "candle": (
        "SELECT exchange, symbol, maxIf(last_trade_id, trade_count = last_trade_id - first_trade_id + 1) "
        "FROM k2.ohlcv_1m WHERE window_start >= toStartOfMinute(fromUnixTimestamp64Nano({since})) "
        "GROUP BY exchange, symbol"
    ),
    "silver": (
        "SELECT exchange, symbol, max(trade_id) FROM k2.silver_trades "
        "WHERE exchange_ts >= fromUnixTimestamp64Nano({since}) GROUP BY exchange, symbol"
    ),
}
KINDS = ("silver", "candle")


def ask(store: Store, kind: str, since: int) -> dict[str, Any]:
    """One question and its answer."""
    question = QUESTIONS[kind].format(since=since)
    start = time.time_ns()
    rows = store.rows(question)
    end = time.time_ns()
    return {"kind": kind, "start": start, "end": end, "last": {f"{row[0]}:{row[1]}": int(row[2]) for row in rows}}


def say(words: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def main() -> None:
    pause = float(sys.argv[1]) / 1e3
    store = open_store(load())
    say({"ready": 1})
    for line in sys.stdin:
        command = json.loads(line)
        until = time.monotonic() + command["seconds"]
        answers: list[dict[str, Any]] = []
        while time.monotonic() < until or len(answers) < len(KINDS):  # one of each, however slow
            answers.append(ask(store, KINDS[len(answers) % 2], command["since"]))
            time.sleep(pause)
        say({"answers": answers})
    store.close()


if __name__ == "__main__":
    main()
