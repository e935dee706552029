"""Kraken: WebSocket v2 `trade` and the REST API's `/0/public`.

    {"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":105944.2,"qty":0.00027625,
     "ord_type":"limit","trade_id":10218208,"timestamp":"2025-10-06T17:35:55.440295Z"}]}

Prices and quantities are JSON numbers with all their zeros; `side` is the taker's. The trades of one taker order come
in one frame and share one time, which REST pages may cut in two. REST says errors with HTTP 200 and still calls bitcoin
XBT and dogecoin XDG.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from k2.sim.generator import Instrument
from k2.sim.truth import Made
from k2.sim.venues import Answer, Book, Client, bounded, padded, printed
from k2.sim.venues.rfc3339 import stamp

REST_NAMES = {"BTC": "XBT", "DOGE": "XDG"}
LEGACY_BASES = {"BTC": "XXBT", "ETH": "XETH", "LTC": "XLTC", "XRP": "XXRP"}
LEGACY_QUOTES = {"USD": "ZUSD", "EUR": "ZEUR", "GBP": "ZGBP"}
PRICE_PLACES = {"BTC": 1, "ETH": 2, "SOL": 2, "XRP": 5, "ADA": 6, "DOT": 4, "LINK": 5, "DOGE": 7, "LTC": 2, "AVAX": 2}
QUANTITY_PLACES = 8
SNAPSHOT = 50
QUIET = 1.0
_STATUS = (
    b'{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"online","api_version":"v2",'
    b'"connection_id":%d}]}'
)
_TRADE = b'","side":"%b","price":%b,"qty":%b,"ord_type":"market","trade_id":%d,"timestamp":"%b"}'
_encode = msgspec.json.encode


class _Named(msgspec.Struct):
    symbol: str | None = None


class _Message(msgspec.Struct):
    channel: str = ""
    method: str = ""
    data: list[_Named] | msgspec.UnsetType = msgspec.UNSET


_decode_message = msgspec.json.Decoder(_Message).decode


class Kraken:
    name = "kraken"
    path = "/kraken/v2"
    refill, burst = 1.0, 15.0
    time_unit = 1_000

    def native(self, symbol: str) -> str:
        return symbol.replace("-", "/")

    def decimals(self, symbol: str, price: float) -> tuple[int, int, int]:
        general = 2 if price >= 18 else 4 if price >= 1 else 6 if price >= 0.01 else 10
        return PRICE_PLACES.get(symbol.split("-", maxsplit=1)[0], general), QUANTITY_PLACES, 0

    def prepare(self, instrument: Instrument) -> None:
        prices = printed(instrument.levels, instrument.price_decimals, 0)
        sizes = printed(instrument.sizes, instrument.quantity_decimals, QUANTITY_PLACES)
        template = b'{"symbol":"' + instrument.native.encode() + _TRADE

        def row(trade_id: int, level: int, size: int, head: bytes, tail: bytes) -> bytes:
            return template % (head, prices[level], sizes[size], trade_id, tail)

        instrument.row = row

    def moment(self, exchange_ts: int, buy: int) -> tuple[bytes, bytes]:
        return b"buy" if buy else b"sell", stamp(exchange_ts)

    def bundle(self, rows: list[bytes]) -> list[bytes]:
        return [b'{"channel":"trade","type":"update","data":[' + b",".join(rows) + b"]}"]

    def greet(self, client: Client, book: Book) -> None:
        client.send(_STATUS % (book.now() * 1_000 % (1 << 63)))

    def beat(self, client: Client, book: Book, now: float) -> None:
        if client.trades and now - client.last_sent >= QUIET:
            client.send(b'{"channel":"heartbeat"}')

    def receive(self, client: Client, message: bytes, book: Book) -> None:
        time = stamp(book.now()).decode()
        try:
            request = msgspec.json.decode(message)
            method = request["method"]
            head = {"method": method} | ({"req_id": request["req_id"]} if "req_id" in request else {})
        except (msgspec.DecodeError, KeyError, TypeError):
            client.send(_encode(_error("Malformed request", {}, time)))
            return
        if method == "ping":
            client.send(_encode({**head, "method": "pong", "time_in": time, "time_out": time}))
            return
        params = request.get("params")
        symbols = params.get("symbol") if isinstance(params, dict) else None
        if method not in ("subscribe", "unsubscribe"):
            client.send(_encode(_error("Unsupported method", head, time)))
        elif not isinstance(params, dict) or params.get("channel") != "trade":
            client.send(_encode(_error("Unsupported channel", head, time)))
        elif not isinstance(symbols, list) or not symbols:
            client.send(_encode(_error("Symbol(s) not found", head, time)))
        else:
            for native in symbols:
                self._change(client, str(native), head, params.get("snapshot", True) is not False, book)

    def _change(self, client: Client, native: str, head: dict[str, Any], snapshot: bool, book: Book) -> None:
        time = stamp(book.now()).decode()
        adding = head["method"] == "subscribe"
        if adding and (native not in book.by_native or book.refuses(native)):
            client.send(_encode(_error(f"Currency pair not supported {native}", head, time, native)))
        elif adding and native in client.trades:
            client.send(_encode(_error("Already subscribed", head, time, native)))
        elif not adding and native not in client.trades:
            client.send(_encode(_error("Subscription Not Found", head, time, native)))
        else:
            client.trades = client.trades | {native} if adding else client.trades - {native}
            result: dict[str, Any] = {"channel": "trade"} | ({"snapshot": snapshot} if adding else {})
            answer = {**head, "result": {**result, "symbol": native}, "success": True}
            client.send(_encode({**answer, "time_in": time, "time_out": time}))
            if adding and snapshot:
                self._snapshot(client, native, book)

    def _snapshot(self, client: Client, native: str, book: Book) -> None:
        template = b'{"symbol":"' + native.encode() + _TRADE
        rows = []
        for made in book.latest(book.by_native[native], SNAPSHOT):
            price, quantity = made.price_text.encode(), made.quantity_text.encode()
            rows.append(template % (made.side.encode(), price, quantity, made.trade_id, stamp(made.exchange_ts)))
        if rows:
            client.send(b'{"channel":"trade","type":"snapshot","data":[' + b",".join(rows) + b"]}")

    def channel(self, payload: bytes) -> tuple[str, str | None]:
        try:
            message = _decode_message(payload)
        except msgspec.DecodeError:
            return "unknown", None
        symbol = message.data[0].symbol if isinstance(message.data, list) and message.data else None
        return ("answer" if message.method or message.channel == "status" else message.channel), symbol

    def weight(self, path: str, query: Mapping[str, str]) -> float:
        return 1

    def refused(self, kind: str, retry_after: float, now: int) -> Answer:
        if kind == "503":
            return Answer(b"<html><body><h1>503 Service Temporarily Unavailable</h1></body></html>", 503)
        text = "EAPI:Rate limit exceeded" if kind == "429" else "EGeneral:Temporary lockout"
        return Answer(_encode({"error": [text]}))

    def subject(self, path: str, query: Mapping[str, str], book: Book) -> Instrument | None:
        wanted = query.get("pair", "").upper()
        return next((one for one in book.by_native.values() if wanted in _names(one.symbol)), None)

    def rest(self, path: str, query: Mapping[str, str], book: Book) -> Answer:
        if path == "/0/public/Time":
            return Answer(_encode({"error": [], "result": {"unixtime": book.now() // 1_000_000_000}}))
        if path == "/0/public/AssetPairs":
            pairs = {_pair(one.symbol): _asset_pair(one) for one in book.by_native.values()}
            return Answer(_encode({"error": [], "result": pairs}))
        if path == "/0/public/Trades":
            return self._trades(query, book)
        return Answer(b'{"error":["EGeneral:Unknown method"]}')

    def _trades(self, query: Mapping[str, str], book: Book) -> Answer:
        instrument = self.subject("", query, book)
        if instrument is None:
            return Answer(b'{"error":["EQuery:Unknown asset pair"]}')
        count, since = bounded(query.get("count"), 1000, 1000), query.get("since")
        if count is None or (since is not None and not since.isdigit()):
            return Answer(b'{"error":["EGeneral:Invalid arguments"]}')
        if since is None:
            rows = book.before_id(instrument, None, count)
        else:
            moment = int(since) * (1_000_000_000 if len(since) <= 10 else 1)  # seconds are understood as well
            rows = book.after_time(instrument, moment, count)
        last = str(rows[-1].exchange_ts) if rows else since or str(book.now())
        body = b",".join(_row(made) for made in rows)
        pair = _pair(instrument.symbol).encode()
        return Answer(b'{"error":[],"result":{"%b":[%b],"last":"%b"}}' % (pair, body, last.encode()))


def _row(made: Made) -> bytes:
    seconds, rest = divmod(made.exchange_ts, 1_000_000_000)
    return b'["%b","%b",%d.%06d,"%b","m","",%d]' % (
        padded(made.price, made.price_scale, 5).encode(),
        padded(made.quantity, made.quantity_scale, QUANTITY_PLACES).encode(),
        seconds,
        rest // 1_000,
        b"b" if made.buy else b"s",
        made.trade_id,
    )


def _error(text: str, head: dict[str, Any], time: str, native: str | None = None) -> dict[str, Any]:
    symbol = {} if native is None else {"symbol": native}
    return {"error": text, **head, "success": False, **symbol, "time_in": time, "time_out": time}


def _altname(symbol: str) -> str:
    base, quote = symbol.split("-")
    return REST_NAMES.get(base, base) + REST_NAMES.get(quote, quote)


def _pair(symbol: str) -> str:
    """The key of a pair in REST answers: the oldest pairs carry the four-letter asset codes."""
    base, quote = symbol.split("-")
    if base in LEGACY_BASES and quote in LEGACY_QUOTES:
        return LEGACY_BASES[base] + LEGACY_QUOTES[quote]
    return _altname(symbol)


def _names(symbol: str) -> set[str]:
    base, quote = symbol.split("-")
    wsname = f"{REST_NAMES.get(base, base)}/{REST_NAMES.get(quote, quote)}"
    return {_pair(symbol), _altname(symbol), wsname, f"{base}/{quote}", f"{base}{quote}"}


def _asset_pair(instrument: Instrument) -> dict[str, Any]:
    base, quote = instrument.symbol.split("-")
    return {
        "altname": _altname(instrument.symbol),
        "wsname": f"{REST_NAMES.get(base, base)}/{REST_NAMES.get(quote, quote)}",
        "aclass_base": "currency",
        "base": LEGACY_BASES.get(base, REST_NAMES.get(base, base)),
        "aclass_quote": "currency",
        "quote": LEGACY_QUOTES.get(quote, REST_NAMES.get(quote, quote)),
        "lot": "unit",
        "pair_decimals": instrument.price_decimals,
        "lot_decimals": instrument.quantity_decimals,
        "status": "online",
    }
