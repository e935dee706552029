"""Binance spot: the combined stream and `/api/v3`.

    {"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000",
     "q":"0.02000000","T":1723161255342,"m":true,"M":true}}

`m` true: the buyer is the maker, so the taker sold. A stream name that does not exist is accepted and stays silent, as
it does there; only a malformed request is refused.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from k2.sim.generator import Instrument
from k2.sim.truth import Made, decimal_text
from k2.sim.venues import Answer, Book, Client, bounded, printed

PLACES = 8
PING_EVERY, PONG_WITHIN = 20.0, 60.0
MESSAGES_PER_SECOND = 5
STREAMS = 1024
_encode = msgspec.json.encode


class _Stream(msgspec.Struct):
    stream: str = ""


_decode_stream = msgspec.json.Decoder(_Stream).decode


class Binance:
    name = "binance"
    path = "/binance/stream"
    refill, burst = 100.0, 6000.0  # 6,000 weight a minute
    time_unit = 1_000_000

    def native(self, symbol: str) -> str:
        return symbol.replace("-", "")

    def decimals(self, symbol: str, price: float) -> tuple[int, int, int]:
        places = 2 if price >= 10 else 3 if price >= 3 else 4 if price >= 0.5 else 5
        size = 5 if price >= 10_000 else 4 if price >= 1_000 else 3 if price >= 50 else 2 if price >= 10 else 1
        return (places if price >= 0.01 else PLACES), size, PLACES

    def prepare(self, instrument: Instrument) -> None:
        prices = printed(instrument.levels, instrument.price_decimals, PLACES)
        sizes = printed(instrument.sizes, instrument.quantity_decimals, PLACES)
        native = instrument.native.encode()
        template = (
            b'{"stream":"' + native.lower() + b'@trade","data":{"e":"trade","E":%b,"s":"' + native
            + b'","t":%d,"p":"%b","q":"%b","T":%b'
        )  # fmt: skip

        def row(trade_id: int, level: int, size: int, head: bytes, tail: bytes) -> bytes:
            return template % (head, trade_id, prices[level], sizes[size], tail)

        instrument.row = row

    def moment(self, exchange_ts: int, buy: int) -> tuple[bytes, bytes]:
        ms = exchange_ts // 1_000_000
        tail = b'%d,"m":false,"M":true}}' if buy else b'%d,"m":true,"M":true}}'
        return b"%d" % (ms + 1), tail % ms  # the message leaves after the trade

    def bundle(self, rows: list[bytes]) -> list[bytes]:
        return rows

    def greet(self, client: Client, book: Book) -> None:
        client.memory["ping"] = client.now()

    def beat(self, client: Client, book: Book, now: float) -> None:
        if now - client.memory["ping"] >= PING_EVERY:
            client.memory["ping"] = now
            client.ping(b"%d" % (book.now() // 1_000_000))
        if now - client.last_pong > PING_EVERY + PONG_WITHIN:
            client.close(1008, "Pong timeout")

    def receive(self, client: Client, message: bytes, book: Book) -> None:
        if self._too_many(client):
            client.close(1008, "Too many requests")
            return
        try:
            request = msgspec.json.decode(message)
            method, number, params = request["method"], request.get("id"), request.get("params", [])
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
            client.send(b'{"error":{"code":3,"msg":"Invalid JSON: expected value at line 1 column 1"}}')
            return
        if method == "LIST_SUBSCRIPTIONS":
            streams = sorted(f"{native.lower()}@trade" for native in client.trades)
            client.send(_encode({"result": streams, "id": number}))
            return
        fault = self._fault(method, number, params, client, book)
        if fault:
            client.send(_encode({"error": {"code": 2, "msg": f"Invalid request: {fault}"}, "id": number}))
            return
        names = {stream.split("@")[0].upper() for stream in params if stream.endswith("@trade")}
        client.trades = client.trades | names if method == "SUBSCRIBE" else client.trades - names
        client.send(_encode({"result": None, "id": number}))

    def _too_many(self, client: Client) -> bool:
        second = float(int(client.now()))
        memory = client.memory
        memory["messages"] = memory.get("messages", 0) + 1 if memory.get("second") == second else 1
        memory["second"] = second
        return memory["messages"] > MESSAGES_PER_SECOND

    def _fault(self, method: Any, number: Any, params: Any, client: Client, book: Book) -> str:
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            return "unknown variant " + str(method)
        if not isinstance(number, (int, str)) and number is not None:
            return "request ID must be an unsigned integer"
        if not isinstance(params, list) or not params or not all(isinstance(p, str) for p in params):
            return "params must be a list of stream names"
        for stream in params:
            if "@" not in stream or (method == "SUBSCRIBE" and book.refuses(stream.split("@")[0].upper())):
                return f"invalid stream {stream}"
        if method == "SUBSCRIBE" and len(client.trades) + len(params) > STREAMS:
            return f"more than {STREAMS} streams"
        return ""

    def channel(self, payload: bytes) -> tuple[str, str | None]:
        try:
            name, _, channel = _decode_stream(payload).stream.partition("@")
        except msgspec.DecodeError:
            return "unknown", None
        return (channel, name.upper()) if name else ("answer", None)

    def weight(self, path: str, query: Mapping[str, str]) -> float:
        return 25 if path.endswith("historicalTrades") else 20 if path.endswith("exchangeInfo") else 1

    def refused(self, kind: str, retry_after: float, now: int) -> Answer:
        retry = {"Retry-After": f"{max(1, round(retry_after))}"}
        if kind == "429":
            text = "Too much request weight used; current limit is 6000 request weight per 1 MINUTE."
            return Answer(_encode({"code": -1003, "msg": text}), 429, retry)
        if kind == "418":
            until = now // 1_000_000 + round(retry_after * 1000)
            text = f"Way too much request weight used; IP banned until {until}."
            return Answer(_encode({"code": -1003, "msg": text}), 418, retry)
        return Answer(b'{"code":-1000,"msg":"An unknown error occurred while processing the request."}', 503)

    def subject(self, path: str, query: Mapping[str, str], book: Book) -> Instrument | None:
        return book.by_native.get(query.get("symbol", ""))

    def rest(self, path: str, query: Mapping[str, str], book: Book) -> Answer:
        if path == "/api/v3/time":
            return Answer(_encode({"serverTime": book.now() // 1_000_000}))
        if path == "/api/v3/ping":
            return Answer(b"{}")
        if path == "/api/v3/exchangeInfo":
            return Answer(self._exchange_info(book))
        if path == "/api/v3/historicalTrades":
            return self._historical_trades(query, book)
        return Answer(b"", 404)

    def _historical_trades(self, query: Mapping[str, str], book: Book) -> Answer:
        if "symbol" not in query:
            text = "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."
            return Answer(_encode({"code": -1102, "msg": text}), 400)
        instrument = book.by_native.get(query["symbol"])
        if instrument is None:
            return Answer(b'{"code":-1121,"msg":"Invalid symbol."}', 400)
        limit, from_id = bounded(query.get("limit"), 500, 1000), query.get("fromId")
        if limit is None or (from_id is not None and not from_id.isdigit()):
            return Answer(_encode({"code": -1100, "msg": "Illegal characters found in a parameter."}), 400)
        rows = (
            book.before_id(instrument, None, limit)
            if from_id is None
            else book.from_id(instrument, int(from_id), limit)
        )
        return Answer(b"[" + b",".join(_row(made) for made in rows) + b"]")

    def _exchange_info(self, book: Book) -> bytes:
        symbols = []
        for instrument in book.by_native.values():
            base, quote = instrument.symbol.split("-")
            symbols.append(
                {
                    "symbol": instrument.native,
                    "status": "TRADING",
                    "baseAsset": base,
                    "baseAssetPrecision": PLACES,
                    "quoteAsset": quote,
                    "quotePrecision": PLACES,
                    "quoteAssetPrecision": PLACES,
                    "isSpotTradingAllowed": True,
                    "isMarginTradingAllowed": False,
                    "filters": [
                        {"filterType": "PRICE_FILTER", "tickSize": decimal_text(10**(8 - instrument.price_decimals), 8)}
                    ],
                    "permissionSets": [["SPOT"]],
                }
            )  # fmt: skip
        limits = [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000}]
        return _encode(
            {
                "timezone": "UTC",
                "serverTime": book.now() // 1_000_000,
                "rateLimits": limits,
                "exchangeFilters": [],
                "symbols": symbols,
            }
        )


def _row(made: Made) -> bytes:
    scale = made.price_scale + made.quantity_scale
    product = made.price * made.quantity
    quote = product // 10 ** (scale - PLACES) if scale >= PLACES else product * 10 ** (PLACES - scale)
    return b'{"id":%d,"price":"%b","qty":"%b","quoteQty":"%b","time":%d,"isBuyerMaker":%b,"isBestMatch":true}' % (
        made.trade_id,
        made.price_text.encode(),
        made.quantity_text.encode(),
        decimal_text(quote, PLACES).encode(),
        made.exchange_ts // 1_000_000,
        b"false" if made.buy else b"true",
    )
