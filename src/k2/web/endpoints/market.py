"""`/v1/trades`, `/v1/candles/{interval}` and what there is to know of them: symbols, gaps, completeness, proofs."""

import asyncio
import time
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from k2.ask import AskError, Query
from k2.ask.candles import Candles
from k2.ask.completeness import Completeness
from k2.ask.ledger import Gaps, Proofs
from k2.ask.question import AS_OF, Question
from k2.ask.symbols import Symbols, exchanges
from k2.ask.trades import Trades
from k2.config import EXCHANGES
from k2.store import StoreError, as_of
from k2.tier import TierError, heads
from k2.web import negotiate
from k2.web.answer import Answer, NextCursor, Plain, Raw, Table
from k2.web.candles import book, quick
from k2.web.parts import Parts
from k2.web.problems import Problem
from k2.web.route import Call, Nothing, Route
from k2.web.send import matches, next_link
from k2.web.validators import closed, validator

_DAY_MS = 86_400_000
_Decimal = Annotated[str, Meta(description="A decimal number, exact.", examples=["64250.11"])]
_Time = Annotated[str, Meta(description="RFC 3339, UTC.", examples=["2026-01-02T03:04:05.123456789Z"])]
_Minute = Annotated[str, Meta(description="RFC 3339, UTC.", examples=["2026-01-02T03:04:00Z"])]
_Range = Annotated[list[tuple[int, int]], Meta(description="Ranges of trade ids, both ends included.")]


class ExchangeRow(msgspec.Struct):
    """An exchange that there are trades of."""

    exchange: str
    symbols: Annotated[int, Meta(description="Symbols that there are trades of.")]
    first_trade_ts: _Time
    last_trade_ts: _Time
    trade_count: int


class SymbolRow(msgspec.Struct):
    """A symbol, as of the loader's last commit. Times are to the minute where the trades have left the hot store."""

    exchange: str
    symbol: str
    native_symbol: Annotated[str, Meta(description="The exchange's own name; empty if none of its trades is hot.")]
    first_trade_ts: _Time
    first_trade_id: int
    last_trade_ts: _Time
    last_trade_id: int
    last_price: Annotated[
        str | None, Meta(description="Price of the last trade, exact; null once it has left the hot store.")
    ]
    trade_count: int


class TradeRow(msgspec.Struct):
    """A trade. Its identity is (exchange, symbol, epoch, trade_id)."""

    exchange: str
    symbol: str
    native_symbol: str
    trade_id: int
    price: _Decimal
    quantity: _Decimal
    side: Annotated[str, Meta(description="The taker's: `buy` or `sell`.")]
    exchange_ts: _Time
    recv_ts: _Time
    source: Annotated[str, Meta(description="`live` or `backfill`.")]
    epoch: Annotated[int, Meta(description="0 until the exchange restarts the symbol's ids.")]


class CandleRow(msgspec.Struct):
    """A candle. `open` and `close` are by (epoch, trade_id). `volume` is in the base asset."""

    exchange: str
    symbol: str
    window_start: _Minute
    open: _Decimal
    high: _Decimal
    low: _Decimal
    close: _Decimal
    volume: _Decimal
    quote_volume: _Decimal
    buy_volume: Annotated[str, Meta(description="Volume that takers bought.")]
    vwap: Annotated[str, Meta(description="quote_volume / volume, cut to 18 decimals.")]
    trade_count: int
    first_trade_id: int
    last_trade_id: int
    complete: Annotated[bool, Meta(description="No id is missing from the trade before the window to its last one.")]


class GapRow(msgspec.Struct):
    """A gap in its latest state."""

    exchange: str
    symbol: str
    epoch: int
    first_id: int
    last_id: int
    state: str
    reason: str
    missing: _Range
    event_ts: _Time
    detected_ts: _Time


class CompletenessRow(msgspec.Struct):
    """One window of one symbol."""

    exchange: str
    symbol: str
    window_start: _Minute
    trades: int
    expected: Annotated[int, Meta(description="Trades and missing ids together.")]
    missing: int
    share: Annotated[float, Meta(description="trades / expected.")]
    first_trade_id: int
    last_trade_id: int


class ProofRow(msgspec.Struct):
    """What the cold tier proved when it sealed a day of a symbol."""

    exchange: str
    symbol: str
    epoch: int
    day: Annotated[str, Meta(description="The UTC day.", examples=["2026-01-02"])]
    revision: Annotated[int, Meta(description="Counts the times that late trades made it anew.")]
    trade_count: int
    first_id: int
    last_id: int
    missing: _Range
    preceded: Annotated[bool, Meta(description="The trade before the day's first one is there, too.")]
    content_hash: str
    sealed_at: _Time
    snapshot_id: Annotated[int, Meta(description="The snapshot of `cold.trades` that it was proved of.")]


async def _exchanges(call: Call[Nothing]) -> Table:
    return _table(exchanges())


async def _symbols(call: Call[Symbols]) -> Table:
    return _asked(call, call.params)


async def _trades(call: Call[Trades]) -> Table:
    return await _of_time(call, call.params, call.params.as_of)


async def _candles(call: Call[Candles]) -> Answer:
    question, form = call.params, _format(call)
    if question.as_of or not quick(form.name, question.limit):
        return await _of_time(call, question, question.as_of)
    now = time.time_ns()
    _query(call, question, now)
    page = await book(call.parts.store).page(question, now)
    headers = {"Content-Type": form.media}
    if page.next and form is not negotiate.JSON:
        headers["Link"] = next_link(call.request, page.next)
    if closed(page.query, now):
        digest = page.digest if form is negotiate.JSON else f"{page.digest}-{form.name}"
        headers |= {"ETag": f'W/"{digest}"', "Cache-Control": "private, no-cache"}
        if matches(call.request.headers.get("If-None-Match", ""), digest):
            return Raw(web.Response(status=304, headers=headers))
    return Plain(msgspec.Raw(page.form(form.name)), headers)


async def _gaps(call: Call[Gaps]) -> Table:
    return _asked(call, call.params)


async def _completeness(call: Call[Completeness]) -> Table:
    return _asked(call, call.params)


async def _proofs(call: Call[Proofs]) -> Table:
    return _asked(call, call.params)


async def _of_time(call: Call[Any], question: Trades | Candles, moment: str) -> Table:
    """A question that may be about the past, and whose answer may never change any more."""
    now = time.time_ns()
    as_of_ms = await _moment(call.parts, moment, now) if moment and not question.cursor else None
    if as_of_ms is not None and isinstance(question, Candles):
        _require_closed(question, now, as_of_ms)
    query = _query(call, question, now, as_of_ms)
    if AS_OF in query.settings:
        return _table(query, f"{query.settings[AS_OF]} {query.sql} {query.params}")
    if not closed(query, now):
        return _table(query)
    known = await validator(call.parts.store, query)
    if known.settled and isinstance(question, Candles):
        query = question.settled(now)
    return _table(query, known.etag)


def _require_closed(question: Candles, now_ns: int, as_of_ms: int) -> None:
    """The cold tier has candles of closed days alone: the day of the moment itself was not. Raises Problem."""
    try:
        low, _ = question.scope(now_ns)
    except AskError as error:
        raise refused(error) from None
    if low is not None and low * 1000 >= as_of_ms // _DAY_MS * _DAY_MS:
        raise Problem(
            400,
            "Invalid parameter",
            "as_of: the range lies in a day that was not over then, and the cold tier has candles of closed days",
            "leave as_of out, ask for an earlier range, or ask /v1/trades with the same as_of",
            "invalid-parameter",
            parameter="as_of",
        )


def _asked(call: Call[Any], question: Question) -> Table:
    return _table(_query(call, question, time.time_ns()))


def _query(call: Call[Any], question: Question, now_ns: int, as_of_ms: int | None = None) -> Query:
    unknown = sorted(set(question.exchange) - set(EXCHANGES))
    try:
        if unknown:
            raise AskError("exchange", unknown[0], "K2 knows no such exchange", f"write one of {', '.join(EXCHANGES)}")
        if not question.limit and _json(call):
            raise AskError(
                "limit", 0, "a JSON answer has pages", "take format=ndjson, csv, parquet or arrow for all rows at once"
            )
        return question.query(now_ns, as_of_ms)
    except AskError as error:
        raise refused(error) from None


def refused(error: AskError) -> Problem:
    """A question that cannot be asked, as a problem document."""
    detail = f"{error.parameter}={error.value}: {error.problem}"
    return Problem(400, "Invalid parameter", detail, error.remedy, "invalid-parameter", parameter=error.parameter)


def _format(call: Call[Any]) -> negotiate.Format:
    return negotiate.choose(call.request.headers.get("Accept", ""), call.request.query.get("format"))


def _json(call: Call[Any]) -> bool:
    return _format(call) is negotiate.JSON


def _table(query: Query, etag: str = "") -> Table:
    following = NextCursor(query.limit, query.key, query.cursor) if query.limit else None
    return Table(query.sql, query.params, query.columns, etag, following, query.settings)


async def _moment(parts: Parts, text: str, now_ns: int) -> int:
    """The moment (ms) that `as_of` means. Raises Problem 400 for one that no snapshot is left of, 503 for one whose
    snapshot the store does not show yet."""
    shown = await parts.store.rows(as_of.SHOWN)
    try:
        moment = as_of.pick(shown, text, now_ns)
    except StoreError as error:
        detail, remedy = f"as_of={text}: {error}", "see /v1/snapshots"
        raise Problem(400, "Invalid parameter", detail, remedy, "invalid-parameter", parameter="as_of") from None
    tier = parts.config.tier
    if not (tier.catalog or tier.warehouse):
        await _shown_to(parts, text, moment)
    return moment


async def _shown_to(parts: Parts, text: str, moment: int) -> None:
    pinned = await parts.store.rows(
        "SELECT name, metadata, committed_ms FROM k2.pins ORDER BY number DESC LIMIT 1 BY name"
    )
    try:
        newest = await asyncio.to_thread(heads.read_heads, parts.config.cold_dir)
    except TierError as error:
        raise Problem(503, "Cold tier unreadable", str(error), "see `k2 archive status`") from None
    for name, metadata, committed_ms in pinned:
        if name in newest and newest[name].metadata_location != metadata and moment > int(committed_ms):
            detail = f"the store does not show the newest snapshot of cold.{name} yet, and as_of={text} may mean that"
            remedy = "ask again after the next offload, or run `k2 archive`"
            raise Problem(503, "Snapshot not shown yet", detail, remedy, headers={"Retry-After": "30"})


def _route(path: str, handler: Any, params: type, rows: type, summary: str, description: str = "") -> Route:
    return Route("GET", path, handler, params, None, summary, description, rows=rows)


ROUTES = (
    _route("/v1/exchanges", _exchanges, Nothing, ExchangeRow, "Exchanges that there are trades of"),
    _route("/v1/symbols", _symbols, Symbols, SymbolRow, "Symbols that there are trades of, and from when to when"),
    _route(
        "/v1/trades",
        _trades,
        Trades,
        TradeRow,
        "Trades, hot and cold as one",
        "In the order of (exchange_ts, exchange, symbol, epoch, trade_id). A walk by cursor gives every trade that was"
        " there when it began exactly once, whatever arrives meanwhile. Ranges that lie in the past have an ETag.",
    ),
    _route(
        "/v1/candles/{interval}",
        _candles,
        Candles,
        CandleRow,
        "Candles",
        "Whole windows that begin in the range, by (window_start, exchange, symbol). The newest one is under way. With"
        " `as_of`, only those of days that were over, and sealed, at that time; a range without any is refused.",
    ),
    _route("/v1/gaps", _gaps, Gaps, GapRow, "The gap ledger", Gaps.__doc__ or ""),
    _route(
        "/v1/completeness",
        _completeness,
        Completeness,
        CompletenessRow,
        "Trades there are, and trades there should be",
        Completeness.__doc__ or "",
    ),
    _route("/v1/proofs", _proofs, Proofs, ProofRow, "What was proved of closed days", Proofs.__doc__ or ""),
)
