"""Recorded traffic through the whole pipeline, compared with truths that K2 did not compute.

usage: prove.py CAPTURES_DIR

Converts the recorded sets to K2's capture format, plays them through simulator, feed handlers, log, loader and store
as `k2 demo` runs them, then compares what the store answers (asked through clickhouse-connect) with the golden candles
that came with the recording, with an independent reading of the frames (json, Decimal), and with DuckDB's candles.
Prints each comparison; exit code 1 on any difference. `K2_DATA` names the data folder, else a temporary one is used.
"""

import csv
import gzip
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import clickhouse_connect
import duckdb

HERE = Path(__file__).parent
K2 = [sys.executable, "-m", "k2"]
GOLDEN_COLUMNS = (
    "open", "high", "low", "close", "volume", "quote_volume", "buy_volume",
    "trade_count", "first_trade_id", "last_trade_id",
)  # fmt: skip


class Recorded(NamedTuple):
    """A trade as this file reads it from the recording, without K2's decoders."""

    symbol: str
    trade_id: int
    price: str
    quantity: str
    side: str
    exchange_ts: int


def binance(folder: Path) -> Iterator[tuple[int, Recorded]]:
    """(receive time, trade) of every trade frame."""
    for file in sorted(folder.glob("*.gz")):
        for line in gzip.decompress(file.read_bytes()).decode().splitlines():
            received, _, text = line.partition(" ")
            frame = json.loads(text)
            if frame.get("stream", "").endswith("@trade"):
                d = frame["data"]
                side = "sell" if d["m"] else "buy"
                yield int(received), Recorded("BTC-USDT", d["t"], d["p"], d["q"], side, d["T"] * 1_000_000)


def coinbase(folder: Path) -> Iterator[Recorded]:
    """Every match and last_match, once."""
    seen = set()
    for line in (folder / "COINBASE.ws.28.0").read_text().splitlines():
        text = line.partition(": ")[2]
        if '"match"' not in text and '"last_match"' not in text:
            continue
        frame = json.loads(text)
        if frame["type"] in ("match", "last_match") and (frame["product_id"], frame["trade_id"]) not in seen:
            seen.add((frame["product_id"], frame["trade_id"]))
            moment = datetime.fromisoformat(frame["time"])
            micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
            side = "sell" if frame["side"] == "buy" else "buy"
            yield Recorded(frame["product_id"], frame["trade_id"], frame["price"], frame["size"], side, micros * 1000)


class Comparisons:
    """Collects what agreed and what did not."""

    def __init__(self) -> None:
        self.different = 0

    def say(self, what: str, expected: object, found: object) -> None:
        if expected == found:
            shown = str(expected)
            print(f"  equal      {what}" + (f": {shown}" if len(shown) < 60 else ""), flush=True)
            return
        self.different += 1
        print(f"  DIFFERENT  {what}\n    expected {str(expected)[:600]}\n    found    {str(found)[:600]}", flush=True)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def run_pipeline(captures: Path, environment: dict[str, str]) -> dict[str, Any]:
    command = [*K2, "demo", "--captures", str(captures), "--until-drained", "--json"]
    print(f"==> k2 {' '.join(command[3:])}", flush=True)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout.strip():
        sys.exit(f"k2 demo printed no summary and ended with {done.returncode}")
    summary: dict[str, Any] = json.loads(done.stdout)
    summary["exit"] = done.returncode
    return summary


def compare_store(sets: Path, environment: dict[str, str], comparisons: Comparisons) -> None:
    store = subprocess.Popen([*K2, "store"], env=environment, stdin=subprocess.DEVNULL)
    try:
        client = _connect(int(environment["K2_STORE_PORT"]))
        compare_binance(client, sets / "binance-spot-2024", comparisons)
        compare_coinbase(client, sets / "coinbase-exchange-2021", comparisons)
        client.close()
    finally:
        store.terminate()
        store.wait(10)


def _connect(port: int) -> Any:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return clickhouse_connect.get_client(host="127.0.0.1", port=port, username="reader")
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise SystemExit("the store did not start within 20 s")


def stored_trades(client: Any, exchange: str) -> list[Recorded]:
    rows = client.query(
        "SELECT symbol, trade_id, toString(price), toString(quantity), side, toUnixTimestamp64Nano(exchange_ts) "
        "FROM k2.silver_trades WHERE exchange = {exchange:String} ORDER BY symbol, trade_id",
        parameters={"exchange": exchange},
    ).result_rows
    return [Recorded(*row) for row in rows]


def plain(trades: list[Recorded]) -> list[tuple[object, ...]]:
    """Numbers by value, so that 61837.63000000 equals 61837.63."""
    return sorted((t.symbol, t.trade_id, Decimal(t.price), Decimal(t.quantity), t.side, t.exchange_ts) for t in trades)


def compare_binance(client: Any, folder: Path, comparisons: Comparisons) -> None:
    print("==> Binance BTC-USDT, over midnight, the recorder's clock behind the exchange's")
    recorded = list(binance(folder))
    trades = [trade for _, trade in recorded]
    comparisons.say("every recorded trade once, every field", plain(trades), plain(stored_trades(client, "binance")))
    comparisons.say(
        "number of trades", 19904, client.command("SELECT count() FROM k2.silver_trades WHERE exchange = 'binance'")
    )
    with (folder / "golden_ohlcv_1m.csv").open() as file:
        golden = list(csv.DictReader(file))
    stored = candles(client, "binance", "1m")
    comparisons.say("number of one-minute candles", len(golden), len(stored))
    for row in golden:
        found = stored.get(("BTC-USDT", int(row["window_start"])), {})
        minute = datetime.fromtimestamp(int(row["window_start"]), UTC)
        comparisons.say(f"candle {minute:%m-%d %H:%M} in every column", True, _same_row(row, found))
    compare_intervals(client, "binance", trades, comparisons)
    offsets = sorted((t.exchange_ts - received) / 1e9 for received, t in recorded)
    comparisons.say(
        "clock skew is kept as recorded (1.2 s < median < 1.3 s)", True, 1.2 < offsets[len(offsets) // 2] < 1.3
    )
    compare_recorded_clock(folder, trades, comparisons)


def _same_row(row: dict[str, str], found: dict[str, Any]) -> object:
    different = {c: (row[c], str(found.get(c))) for c in GOLDEN_COLUMNS if found.get(c) != Decimal(row[c])}
    return different or True


def compare_recorded_clock(folder: Path, trades: list[Recorded], comparisons: Comparisons) -> None:
    """The recorded frames with their own receive times (behind the exchange's) decode to the same trades."""
    from k2.core.types import Frame, Trade
    from k2.exchanges import venue

    decode = venue("binance").decode
    found, behind = [], 0
    for file in sorted(folder.glob("*.gz")):
        for line in gzip.decompress(file.read_bytes()).decode().splitlines():
            received, _, text = line.partition(" ")
            for event in decode(Frame(int(received), "ws", "c1", "", text.encode())):
                if isinstance(event, Trade):
                    behind += event.recv_ts < event.exchange_ts
                    found.append(
                        Recorded(
                            event.symbol, event.trade_id, event.price, event.quantity, event.side, event.exchange_ts
                        )
                    )
    comparisons.say(
        "the decoder alone, with recorded receive times: text of every number", sorted(trades), sorted(found)
    )
    comparisons.say("trades received before they happened, by the skewed clock", len(trades), behind)


def compare_coinbase(client: Any, folder: Path, comparisons: Comparisons) -> None:
    print("==> Coinbase, ten products")
    trades = list(coinbase(folder))
    comparisons.say("every match once, every field", plain(trades), plain(stored_trades(client, "coinbase")))
    compare_intervals(client, "coinbase", trades, comparisons)


def candles(client: Any, exchange: str, interval: str) -> dict[tuple[str, int], dict[str, Any]]:
    columns = ("symbol", "toUnixTimestamp(window_start)", *GOLDEN_COLUMNS, "vwap")
    rows = client.query(
        f"SELECT {', '.join(columns)} FROM k2.ohlcv_{interval} WHERE exchange = {{exchange:String}}",
        parameters={"exchange": exchange},
    ).result_rows
    return {(row[0], int(row[1])): {c: Decimal(v) for c, v in zip(columns[2:], row[2:], strict=True)} for row in rows}


def compare_intervals(client: Any, exchange: str, trades: list[Recorded], comparisons: Comparisons) -> None:
    """Candles of all intervals against DuckDB's."""
    con = duckdb.connect()
    con.execute("CREATE TABLE t (symbol VARCHAR, id BIGINT, p DECIMAL(18,8), q DECIMAL(18,8), side VARCHAR, ts BIGINT)")
    con.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", [tuple(t) for t in trades])
    for interval, seconds in {"1m": 60, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "1d": 86400}.items():
        rows = con.execute(
            f"""SELECT symbol, ts // 1000000000 // {seconds} * {seconds} AS w,
                arg_min(p, id), max(p), min(p), arg_max(p, id),
                sum(q),
                CAST(sum(CAST(p AS DECIMAL(19,8)) * CAST(q AS DECIMAL(19,8))) AS DECIMAL(38,16)),
                coalesce(sum(q) FILTER (side = 'buy'), 0), count(*), min(id), max(id) FROM t GROUP BY 1, 2"""
        ).fetchall()
        expected = {(r[0], r[1]): {c: Decimal(v) for c, v in zip(GOLDEN_COLUMNS, r[2:], strict=True)} for r in rows}
        stored = candles(client, exchange, interval)
        found = {key: {c: row[c] for c in GOLDEN_COLUMNS} for key, row in stored.items()}
        comparisons.say(f"{len(expected)} candles of {interval} against DuckDB's", expected, found)


def main() -> None:
    sets = Path(sys.argv[1]).resolve()
    comparisons = Comparisons()
    with tempfile.TemporaryDirectory(prefix="k2-proof-") as scratch:
        data = Path(os.environ.get("K2_DATA") or Path(scratch, "data"))
        if data.exists() and any(data.iterdir()):
            sys.exit(f"{data} is not empty: the proof wants a fresh folder")
        captures = Path(scratch, "captures")
        print("==> converting the recorded sets to K2's capture format", flush=True)
        subprocess.run([sys.executable, HERE / "convert.py", sets, captures], check=True)
        store_port, ws_port, rest_port = free_ports(3)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("K2_")} | {
            "K2_DATA": str(data), "K2_STORE_PORT": str(store_port), "K2_SIM_WS_PORT": str(ws_port),
            "K2_SIM_REST_PORT": str(rest_port), "K2_METRICS_PORT": "0", "K2_WEB_PORT": "0",
        }  # fmt: skip
        summary = run_pipeline(captures, environment)
        print("==> k2 verify's own verdict")
        comparisons.say("exit code of k2 demo", 0, summary["exit"])
        for check in summary["checks"]:
            comparisons.say(check["name"], True, check["ok"])
        compare_store(sets, environment, comparisons)
        print("==> live equals replay")
        for exchange in ("binance", "coinbase"):
            done = subprocess.run(
                [*K2, "replay", exchange], env=environment, capture_output=True, text=True, check=False
            )
            comparisons.say(f"{exchange} decoded again, byte by byte", 0, done.returncode)
    print(f"==> {'PROVEN: no difference' if not comparisons.different else f'{comparisons.different} DIFFERENCES'}")
    sys.exit(1 if comparisons.different else 0)


if __name__ == "__main__":
    main()
