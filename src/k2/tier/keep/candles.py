"""One-minute candles of archived trades: computed a piece at a time, exactly, in the columns of `cold.ohlcv_1m`."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal

import pyarrow as pa
import pyarrow.compute as pc

from k2.core.islands import Islands
from k2.tier import TierError

_WIDE = pa.decimal256(38, 18)
_FACTOR = pa.decimal256(37, 18)  # times _WIDE that gives 76 digits, the most there are
_HIGHEST_PRICE = 10**19
_exact = Context(prec=120)
_1970 = datetime(1970, 1, 1, tzinfo=UTC)


class _Minute:
    """What is known of one symbol's minute. `first` and `last` are (epoch, trade id)."""

    __slots__ = ("buy_volume", "close", "count", "first", "high", "last", "low", "open", "quote_volume", "volume")

    def __init__(
        self,
        first: tuple[int, int],
        last: tuple[int, int],
        prices: tuple[Decimal, ...],
        sums: tuple[Decimal, Decimal, Decimal],
        count: int,
    ) -> None:
        self.first, self.last = first, last
        self.open, self.high, self.low, self.close = prices
        self.volume, self.quote_volume, self.buy_volume = sums
        self.count = count

    def join(self, other: "_Minute") -> None:
        if other.first < self.first:
            self.first, self.open = other.first, other.open
        if other.last > self.last:
            self.last, self.close = other.last, other.close
        self.high, self.low = max(self.high, other.high), min(self.low, other.low)
        self.volume = _exact.add(self.volume, other.volume)
        self.quote_volume = _exact.add(self.quote_volume, other.quote_volume)
        self.buy_volume = _exact.add(self.buy_volume, other.buy_volume)
        self.count += other.count


class MinuteCandles:
    """Gathers one exchange's trades into candles. Memory: about a kilobyte a candle, whatever the number of trades."""

    def __init__(self) -> None:
        self._minutes: dict[tuple[str, int], _Minute] = {}  # symbol, start in us since 1970

    def add(self, symbol: str, epoch: int, rows: pa.Table) -> None:
        """Put in trades of one symbol and epoch, in order of trade_id, none twice. Raises TierError."""
        if (highest := pc.max(rows["price"]).as_py()) >= _HIGHEST_PRICE:
            raise TierError(f"a price of {symbol}, {highest}, has more than 19 digits before the point")
        for start, minute in _minutes(epoch, rows):
            known = self._minutes.setdefault((symbol, start), minute)
            if known is not minute:
                known.join(minute)

    def rows(self, exchange: str, present: Mapping[tuple[str, int], Islands]) -> list[dict[str, object]]:
        """The candles by symbol and time. `present`: all ids that cold has, by symbol and epoch. Raises TierError."""
        return [
            {"exchange": exchange, "symbol": symbol, **_row(symbol, start, minute, present[symbol, minute.first[0]])}
            for (symbol, start), minute in sorted(self._minutes.items())
        ]


def _minutes(epoch: int, rows: pa.Table) -> list[tuple[int, _Minute]]:
    quantity = rows["quantity"].cast(_WIDE)
    nothing = pa.scalar(Decimal(0), _WIDE)
    by_minute = pa.table(
        {
            "minute": pc.floor_temporal(rows["exchange_ts"], unit="minute").cast(pa.int64()),
            "row": pa.array(range(rows.num_rows), pa.int64()),
            "price": rows["price"],
            "quantity": quantity,
            "quote": pc.multiply(rows["price"].cast(_FACTOR), quantity),
            "bought": pc.if_else(pc.equal(rows["side"].cast(pa.string()), "buy"), quantity, nothing),
        }
    )
    found = by_minute.group_by("minute", use_threads=False).aggregate(
        [
            ("row", "first"),
            ("row", "last"),
            ("row", "count"),
            ("price", "max"),
            ("price", "min"),
            ("quantity", "sum"),
            ("quote", "sum"),
            ("bought", "sum"),
        ]
    )
    ids, price = rows["trade_id"], rows["price"]
    first, last = found["row_first"], found["row_last"]
    columns = (
        found["minute"],
        ids.take(first),
        ids.take(last),
        price.take(first),
        found["price_max"],
        found["price_min"],
        price.take(last),
        found["quantity_sum"],
        found["quote_sum"],
        found["bought_sum"],
        found["row_count"],
    )
    return [
        (start, _Minute((epoch, first_id), (epoch, last_id), tuple(prices), (volume, quote, bought), count))
        for start, first_id, last_id, *prices, volume, quote, bought, count in zip(
            *(column.to_pylist() for column in columns), strict=True
        )
    ]


def _row(symbol: str, start: int, minute: _Minute, present: Islands) -> dict[str, object]:
    (first_epoch, first), (last_epoch, last) = minute.first, minute.last
    volume, quote = int(minute.volume.scaleb(18, _exact)), int(minute.quote_volume.scaleb(36, _exact))
    if max(volume, quote // 10**18) >= 10**38:
        raise TierError(f"a volume of {symbol} at {_1970 + timedelta(microseconds=start)} has more than 20 digits")
    whole = _decimal(quote // 10**18, 18)
    apart = first != present.first and first - 1 not in present
    return {
        "window_start": _1970 + timedelta(microseconds=start),
        "open": minute.open,
        "high": minute.high,
        "low": minute.low,
        "close": minute.close,
        "volume": minute.volume,
        "quote_volume": whole,
        "quote_volume_rest": _decimal(quote % 10**18, 36),
        "buy_volume": minute.buy_volume,
        "vwap": _decimal(quote // volume if volume else 0, 18),
        "trade_count": minute.count,
        "first_epoch": first_epoch,
        "first_trade_id": first,
        "last_epoch": last_epoch,
        "last_trade_id": last,
        "apart": apart,
        "complete": not apart and first_epoch == last_epoch and minute.count == last - first + 1,
    }


def _decimal(units: int, scale: int) -> Decimal:
    return Decimal(units).scaleb(-scale, _exact)
