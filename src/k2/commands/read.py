"""`k2 trades`, `k2 candles`, `k2 gaps`: what the store holds, at a glance."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from k2.config import EXCHANGES, Config
from k2.core.candle import INTERVALS
from k2.store import Store, StoreError, StoreUnavailable
from k2.terminal import emit
from k2.wire import open_store

TRADES = ("exchange_ts", "exchange", "symbol", "trade_id", "side", "price", "quantity", "source", "recv_ts")
CANDLES = (
    *("window_start", "exchange", "symbol", "open", "high", "low", "close", "volume", "quote_volume", "buy_volume"),
    *("vwap", "trade_count", "first_trade_id", "last_trade_id", "complete"),
)
GAPS = ("exchange", "symbol", "epoch", "first_id", "last_id", "state", "reason", "missing", "event_ts", "detected_ts")
SPARE_TRADES = ("recv_ts", "source")
SPARE_CANDLES = ("buy_volume", "quote_volume", "last_trade_id", "first_trade_id", "vwap", "complete", "trade_count")
SPARE_GAPS = ("detected_ts", "missing", "event_ts", "epoch", "reason")
POLL = 0.2  # seconds between two looks while following
LATE = 10_000_000_000  # ns that a trade may be stored after a younger one and still be seen while following


@contextmanager
def _store(config: Config) -> Iterator[Store]:
    store = open_store(config)
    try:
        yield store
    except StoreUnavailable as error:
        raise click.ClickException(f"{error}; start it with `k2 up` or `k2 demo`") from None
    except StoreError as error:
        raise click.ClickException(str(error)) from None
    finally:
        store.close()


def _which(text: str) -> tuple[str, dict[str, str]]:
    """SYMBOL or EXCHANGE:SYMBOL as a condition and its parameters."""
    exchange, _, symbol = text.rpartition(":")
    if not exchange:
        return "symbol = {symbol:String}", {"symbol": symbol.upper()}
    if exchange.lower() not in EXCHANGES:
        raise click.UsageError(f"{exchange!r} is none of the exchanges {', '.join(EXCHANGES)}")
    return "exchange = {exchange:String} AND symbol = {symbol:String}", {
        "exchange": exchange.lower(),
        "symbol": symbol.upper(),
    }


def _none(symbol: str, what: str) -> click.ClickException:
    return click.ClickException(
        f"no {what} of {symbol} yet: `k2 sql 'SELECT DISTINCT symbol FROM k2.silver_trades'` lists"
    )


@click.command()
@click.argument("symbol")
@click.option("-n", "count", default=20, show_default=True, type=click.IntRange(1, 100_000), help="The newest so many.")
@click.option("-f", "--follow", is_flag=True, help="Go on with every new trade, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def trades(config: Config, symbol: str, count: int, follow: bool, as_json: bool) -> None:
    """Show the newest trades of SYMBOL, or of EXCHANGE:SYMBOL.

    \b
    Examples:
      k2 trades BTC-USDT
      k2 trades kraken:BTC-USD -n 5 -f
    """
    where, params = _which(symbol)
    columns = ", ".join(TRADES)
    with _store(config) as store:
        rows = store.rows(
            f"SELECT {columns} FROM k2.silver_trades WHERE {where}"
            f" ORDER BY exchange_ts DESC, epoch DESC, trade_id DESC LIMIT {count}",
            params,
        )[::-1]
        if not rows and not follow:
            raise _none(symbol, "trades")
        emit(TRADES, rows, as_json, spare=SPARE_TRADES)
        if follow:
            _follow(store, where, params, {_identity(row): 0.0 for row in rows}, as_json)


def _identity(row: Sequence[Any]) -> tuple[Any, ...]:
    return row[1], row[2], row[3], row[0]


def _follow(
    store: Store, where: str, params: dict[str, str], seen: dict[tuple[Any, ...], float], as_json: bool
) -> None:
    """Trades received in the last seconds are asked for again and again, and shown when they are new."""
    began = time.time_ns()
    while True:
        time.sleep(POLL)
        since = max(began, time.time_ns() - LATE)
        rows = store.rows(
            f"SELECT {', '.join(TRADES)} FROM k2.silver_trades WHERE {where}"
            f" AND exchange_ts >= fromUnixTimestamp64Nano(toInt64({since - 6 * LATE}), 'UTC')"
            f" AND recv_ts >= fromUnixTimestamp64Nano(toInt64({since}), 'UTC') ORDER BY recv_ts, trade_id",
            params,
        )
        new = [row for row in rows if _identity(row) not in seen]
        now = time.monotonic()
        seen.update({_identity(row): now for row in new})
        for old in [identity for identity, at in seen.items() if now - at > 2 * LATE / 1e9]:
            del seen[old]
        for row in new:
            if as_json:
                emit(TRADES, [row], True)
            else:
                click.echo("\t".join(map(str, row)))


@click.command()
@click.argument("symbol")
@click.option("--interval", type=click.Choice(tuple(INTERVALS)), default="1m", show_default=True)
@click.option("-n", "count", default=20, show_default=True, type=click.IntRange(1, 100_000), help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def candles(config: Config, symbol: str, interval: str, count: int, as_json: bool) -> None:
    """Show the newest candles of SYMBOL, or of EXCHANGE:SYMBOL.

    \b
    Examples:
      k2 candles BTC-USDT
      k2 candles coinbase:ETH-USD --interval 1h -n 24
    """
    where, params = _which(symbol)
    with _store(config) as store:
        rows = store.rows(
            f"SELECT {', '.join(CANDLES)} FROM k2.ohlcv_{interval} WHERE {where}"
            f" ORDER BY window_start DESC, exchange LIMIT {count}",
            params,
        )[::-1]
    if not rows:
        raise _none(symbol, "candles")
    emit(CANDLES, [(*row[:-1], bool(row[-1])) for row in rows], as_json, spare=SPARE_CANDLES)


@click.command()
@click.option("--open", "only_open", is_flag=True, help="Only those that are not closed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def gaps(config: Config, only_open: bool, as_json: bool) -> None:
    """Show the gap ledger: where capture began, what was missing, what became of it.

    \b
    Examples:
      k2 gaps
      k2 gaps --open --json
    """
    where = "WHERE state = 'open'" if only_open else ""
    with _store(config) as store:
        rows = store.rows(
            f"SELECT {', '.join(GAPS)} FROM k2.gaps {where} ORDER BY event_ts, exchange, symbol, first_id"
        )
    emit(GAPS, rows, as_json, spare=SPARE_GAPS)
