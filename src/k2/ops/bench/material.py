"""Ready-made records for benches: trades as they stand in the log, over many symbols, ids dense, prices walking."""

from k2.core.codec import encode_trade
from k2.core.types import Trade

SYMBOLS = tuple(f"{base}-USDT" for base in ("BTC", "ETH", "BNB", "SOL", "XRP", "ADA", "DOT", "LINK", "DOGE", "LTC"))
FIRST_ID = 4_000_000_000
FIRST_TS = 1_767_225_600_000_000_000  # 2026-01-01, ns


def trades(count: int, spacing_ns: int = 1_000_000, start: int = 0) -> list[Trade]:
    """Trades number `start` and on, one every `spacing_ns`, the symbols in turn."""
    found = []
    for number in range(start, start + count):
        symbol = SYMBOLS[number % len(SYMBOLS)]
        ts = FIRST_TS + number * spacing_ns
        found.append(
            Trade(
                exchange="binance",
                symbol=symbol,
                native_symbol=symbol.replace("-", ""),
                trade_id=FIRST_ID + number // len(SYMBOLS),
                price=f"{61_000 + number * 7919 % 997}.{number % 100:02d}000000",
                quantity=f"0.{number * 31 % 99_991 + 1:05d}000",
                side="buy" if number & 1 else "sell",
                exchange_ts=ts,
                recv_ts=ts + 800_000,
                source="live",
            )
        )
    return found


def records(count: int, spacing_ns: int = 1_000_000, start: int = 0) -> tuple[list[str], list[bytes]]:
    """The same as keys and values for the log."""
    made = trades(count, spacing_ns, start)
    return [trade.symbol for trade in made], [encode_trade(trade) for trade in made]


def body(count: int, start: int = 0, spacing_ns: int = 1_000_000) -> bytes:
    """The same as one JSONEachRow body."""
    return b"\n".join(records(count, spacing_ns, start)[1]) + b"\n"


def columns(table: str) -> str:
    """DDL of a table, without its engine, that takes such a body."""
    return (
        f"CREATE TABLE {table} (exchange String, symbol String, native_symbol String, trade_id Int64, "
        "price Decimal(38, 18), quantity Decimal(38, 18), side String, exchange_ts Int64, recv_ts Int64, "
        "source String, epoch UInt32)"
    )
