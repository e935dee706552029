"""The Python client: `k2.connect()` gives trades, candles, gaps and SQL as Arrow, and the live stream.

    import k2

    with k2.connect() as platform:
        platform.candles("BTC-USDT", "1h", start="-7d").to_pandas()

What answers stands behind `Source`: the HTTP API (`api.py`) or a store (`direct.py`). This room writes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from k2.client.errors import (
    AccessDenied,
    InvalidQuestion,
    K2Error,
    TooManyRequests,
    TooSlow,
    Unavailable,
)
from k2.client.result import Result
from k2.client.source import Source

if TYPE_CHECKING:
    from k2.client.stream import Slow, Stream

__all__ = [
    "AccessDenied",
    "Client",
    "InvalidQuestion",
    "K2Error",
    "Result",
    "TooManyRequests",
    "TooSlow",
    "Unavailable",
]

Interval = Literal["1m", "5m", "15m", "30m", "1h", "1d"]
Channel = Literal["trades", "candles", "gaps"]
Names: TypeAlias = str | Iterable[str] | None
Time: TypeAlias = datetime | str | int | None
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Client:
    """A platform that is asked. Thread-safe. Every method raises K2Error.

    `symbol` and `exchange` take a name or several; none means all. A time is a datetime (UTC where it does not say),
    RFC 3339 text, int ns since 1970 UTC, or how long ago (`"-15m"`, `"-7d"`); `end` is exclusive.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def __repr__(self) -> str:
        return f"k2.Client({self._source.name})"

    def trades(
        self,
        symbol: Names = None,
        exchange: Names = None,
        *,
        start: Time = None,
        end: Time = None,
        first_id: int | None = None,
        last_id: int | None = None,
        limit: int | None = None,
        as_of: Time = None,
    ) -> Result:
        """Trades, hot and cold as one, each once, by (exchange_ts, exchange, symbol, epoch, trade_id).

        `start` and `end` are about the exchange's own time. `first_id` and `last_id` (inclusive) are trade ids.
        `limit` None: all. `as_of`: as the cold tier was then (a time, or a snapshot's id).
        """
        bounds = {"from": moment(start), "to": moment(end), "first_id": first_id, "last_id": last_id}
        return self._ask("trades", "/v1/trades", {**_who(symbol, exchange), **bounds, **_how(limit, as_of)})

    def candles(
        self,
        symbol: Names = None,
        interval: Interval = "1m",
        *,
        exchange: Names = None,
        start: Time = None,
        end: Time = None,
        limit: int | None = None,
        as_of: Time = None,
    ) -> Result:
        """Candles. `volume` and `buy_volume` are in the base asset, `quote_volume` in the quote asset; `complete` says
        that no trade is missing. `start` and `end` are about the windows' beginnings."""
        if interval not in get_args(Interval):
            raise InvalidQuestion(
                "Interval not understood", f"{interval!r} is none", f"write one of {', '.join(get_args(Interval))}"
            )
        bounds = {"from": moment(start), "to": moment(end)}
        path = f"/v1/candles/{interval}"
        return self._ask("candles", path, {**_who(symbol, exchange), **bounds, **_how(limit, as_of)})

    def gaps(
        self,
        symbol: Names = None,
        exchange: Names = None,
        *,
        state: Names = None,
        start: Time = None,
        end: Time = None,
        limit: int | None = None,
    ) -> Result:
        """The gap ledger: where capture began (`start`), what was missing and what became of it (`open`, `healed`,
        `unavailable`, `epoch`), each in its latest state. `start` and `end` are about when it was detected."""
        bounds = {"from": moment(start), "to": moment(end), "state": None if state is None else _listed(state)}
        return self._ask("gaps", "/v1/gaps", {**_who(symbol, exchange), **bounds, **_how(limit, None)})

    def completeness(
        self,
        symbol: Names = None,
        exchange: Names = None,
        *,
        by: Literal["hour", "day"] = "hour",
        start: Time = None,
        end: Time = None,
    ) -> Result:
        """For each symbol and hour (or day): trades there are, ids there should be (`expected`), `missing`, and the
        `share` that is there. Without `start`: the last 24 hours, or 30 days."""
        bounds = {"from": moment(start), "to": moment(end), "by": by, "limit": 0}
        return self._ask("completeness", "/v1/completeness", {**_who(symbol, exchange), **bounds})

    def symbols(self, exchange: Names = None) -> Result:
        """What is captured: exchange, symbol, the exchange's own name, and the range of what is stored."""
        return self._ask("symbols", "/v1/symbols", {**_who(None, exchange), "limit": 0})

    def sql(self, text: str, params: Mapping[str, Any] | None = None) -> Result:
        """A SELECT in ClickHouse SQL over the databases `k2` (the default) and `cold`. `params` fill `{name:Type}`."""
        return Result("sql", lambda: self._source.sql(text, params or {}))

    def stream(
        self,
        channels: Channel | Sequence[Channel] = "trades",
        symbols: str | Sequence[str] = "*",
        start: "str | int | datetime | Mapping[str, int]" = "now",
        *,
        intervals: Interval | Sequence[Interval] = "1m",
        slow: "Slow" = "resume",
        patience: float = 300.0,
    ) -> "Stream":
        """The live stream, for `for` and `async for`; `.rows()` gives single trades, candles and gaps.

        `symbols`: `BTC-USDT`, `kraken:BTC-USD`, `kraken:*`, `*`. `start`: `now`, `earliest`, a time (history comes
        first, then live, without a hole or a repeat), or the `positions` of an earlier stream. `slow` says what
        happens when the reader cannot keep up: `resume` (the server lets go, the client goes on where it was, behind
        but complete), `disconnect` (TooSlow is raised), `conflate` (only the newest trade of each symbol is sent).
        A lost connection is made again for `patience` seconds.
        """
        from k2.client.stream import Stream

        self._source.live()  # so that a source without a stream says so now
        asked = {
            "channels": _listed(channels),
            "symbols": _listed(symbols),
            "intervals": _listed(intervals),
            "start": dict(start) if isinstance(start, Mapping) else moment(start),
        }
        return Stream(self._source.live, asked, slow, patience)

    def close(self) -> None:
        """Release connections, and the folder if it was opened. Idempotent."""
        self._source.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, name: str, path: str, params: Mapping[str, Any]) -> Result:
        given = {key: value for key, value in params.items() if value is not None}
        return Result(name, lambda: self._source.table(path, given))


def moment(time: Any) -> str | int | None:
    """A time as the API takes it: int ns, or the text as it is."""
    if isinstance(time, datetime):
        if hasattr(time, "nanosecond"):  # pandas.Timestamp
            return moment(time.to_datetime64())  # type: ignore[attr-defined]
        aware = time if time.tzinfo else time.replace(tzinfo=UTC)
        return (aware - _EPOCH) // timedelta(microseconds=1) * 1000
    if hasattr(time, "dtype"):  # numpy.datetime64
        return int(time.astype("datetime64[ns]").astype("int64"))
    if time is None or (isinstance(time, str | int) and not isinstance(time, bool)):
        return time
    raise InvalidQuestion(
        "Time not understood", f"{time!r} is no time", "give a datetime, RFC 3339 text, ns since 1970, or text as -15m"
    )


def _listed(names: str | Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _who(symbol: Names, exchange: Names) -> dict[str, Any]:
    found = {"symbol": symbol, "exchange": exchange}
    return {name: _listed(value) for name, value in found.items() if value is not None}


def _how(limit: int | None, as_of: Time) -> dict[str, Any]:
    return {"limit": 0 if limit is None else limit, "as_of": moment(as_of)}
