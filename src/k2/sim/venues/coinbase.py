"""Coinbase Exchange: `matches`, `heartbeat` and `/products`.

    {"type":"match","trade_id":1568268,"maker_order_id":"cac01d6d-8009-4c33-8e0d-f7f853d7c1bc","taker_order_id":
     "3dec64e4-f6ad-4ca8-ad3f-e5b1a0eb0d06","side":"sell","size":"450","price":"0.791","product_id":"SKL-USD",
     "sequence":201390075,"time":"2021-04-17T16:43:37.121358Z"}

`side` is the maker's, on REST as well. The socket prints numbers without trailing zeros, REST with eight places.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from k2.sim.generator import Instrument
from k2.sim.truth import Made
from k2.sim.venues import Answer, Book, Client, bounded, padded, printed
from k2.sim.venues.rfc3339 import stamp

CHANNELS = ("matches", "heartbeat")
SUBSCRIBE_WITHIN = 5.0
REST_PLACES = 8
SEQUENCE = b"7%d"  # ascends with the trade ids, as it counts more than trades
_encode = msgspec.json.encode


class _Message(msgspec.Struct):
    type: str = ""
    product_id: str | None = None


_decode_message = msgspec.json.Decoder(_Message).decode


class Coinbase:
    name = "coinbase"
    path = "/coinbase"
    refill, burst = 10.0, 15.0
    time_unit = 1_000

    def native(self, symbol: str) -> str:
        return symbol

    def decimals(self, symbol: str, price: float) -> tuple[int, int, int]:
        places = 2 if price >= 18 else 3 if price >= 3 else 4 if price >= 0.5 else 5
        return (places if price >= 0.01 else 8), (8 if price >= 10 else 6 if price >= 1 else 1), 0

    def prepare(self, instrument: Instrument) -> None:
        prices = [_trimmed(text) for text in printed(instrument.levels, instrument.price_decimals, 0)]
        sizes = [_trimmed(text) for text in printed(instrument.sizes, instrument.quantity_decimals, 0)]
        template = _template("match", instrument.native)

        def row(trade_id: int, level: int, size: int, head: bytes, tail: bytes) -> bytes:
            return template % (trade_id, head, sizes[size], prices[level], trade_id, tail)

        instrument.row = row

    def moment(self, exchange_ts: int, buy: int) -> tuple[bytes, bytes]:
        return _orders(exchange_ts, buy), stamp(exchange_ts)

    def bundle(self, rows: list[bytes]) -> list[bytes]:
        return rows

    def greet(self, client: Client, book: Book) -> None:
        client.memory["opened"] = client.now()

    def beat(self, client: Client, book: Book, now: float) -> None:
        if not client.trades and not client.heartbeats and now - client.memory["opened"] > SUBSCRIBE_WITHIN:
            client.close(1008, "Subscribe within 5 seconds")
            return
        time = stamp(book.now())
        for native in sorted(client.heartbeats):
            instrument = book.by_native.get(native)
            if instrument is not None:
                newest = book.latest(instrument, 1)
                last = newest[0].trade_id if newest else 0
                client.send(
                    b'{"type":"heartbeat","last_trade_id":%d,"product_id":"%b","sequence":%b,"time":"%b"}'
                    % (last, native.encode(), SEQUENCE % last, time)
                )

    def receive(self, client: Client, message: bytes, book: Book) -> None:
        try:
            request = msgspec.json.decode(message)
            kind, wanted = request["type"], _wanted(request)
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
            client.send(b'{"type":"error","message":"Malformed JSON"}')
            return
        if kind not in ("subscribe", "unsubscribe"):
            client.send(_encode({"type": "error", "message": f"Type {kind} is not supported"}))
            return
        if kind == "subscribe":
            reason = self._reason(wanted, book)
            if reason:
                client.send(_encode({"type": "error", "message": "Failed to subscribe", "reason": reason}))
                return
        before = client.trades
        for channel, products in wanted.items():
            self._change(client, channel, products, kind == "subscribe")
        for native in sorted(client.trades - before):
            self._last_match(client, native, book)  # comes before the answer, as recorded traffic shows
        client.send(_subscriptions(client))

    def _reason(self, wanted: Mapping[str, set[str]], book: Book) -> str:
        for channel, products in wanted.items():
            if channel not in CHANNELS:
                return f"{channel} is not a valid channel"
            if not products:
                return "product_ids must be specified"
            for native in sorted(products):
                if native not in book.by_native or book.refuses(native):
                    return f"{native} is not a valid product"
        return "" if wanted else "channels must be specified"

    def _change(self, client: Client, channel: str, products: set[str], add: bool) -> None:
        if channel == "matches":
            client.trades = client.trades | products if add else client.trades - (products or client.trades)
        elif channel == "heartbeat":
            client.heartbeats = (
                client.heartbeats | products if add else client.heartbeats - (products or client.heartbeats)
            )

    def _last_match(self, client: Client, native: str, book: Book) -> None:
        for made in book.latest(book.by_native[native], 1):
            size, price = (_trimmed(text.encode()) for text in (made.quantity_text, made.price_text))
            number, ts = made.trade_id, made.exchange_ts
            fields = (number, _orders(ts, made.buy), size, price, number, stamp(ts))
            client.send(_template("last_match", native) % fields)

    def channel(self, payload: bytes) -> tuple[str, str | None]:
        try:
            message = _decode_message(payload)
        except msgspec.DecodeError:
            return "unknown", None
        if message.type in ("match", "last_match"):
            return "trade", message.product_id
        return ("answer" if message.type in ("subscriptions", "error") else message.type), message.product_id

    def weight(self, path: str, query: Mapping[str, str]) -> float:
        return 1

    def refused(self, kind: str, retry_after: float, now: int) -> Answer:
        if kind == "503":
            return Answer(b'{"message":"ServiceUnavailable"}', 503)
        retry = {"Retry-After": f"{max(1, round(retry_after))}"}
        return Answer(b'{"message":"Public rate limit exceeded"}', int(kind), retry)

    def subject(self, path: str, query: Mapping[str, str], book: Book) -> Instrument | None:
        parts = path.split("/")
        return book.by_native.get(parts[2]) if len(parts) == 4 and parts[1] == "products" else None

    def rest(self, path: str, query: Mapping[str, str], book: Book) -> Answer:
        if path == "/time":
            now = book.now()
            return Answer(_encode({"iso": stamp(now).decode(), "epoch": now / 1e9}))
        if path == "/products":
            return Answer(_encode([_product(instrument) for instrument in book.by_native.values()]))
        instrument = self.subject(path, query, book)
        if instrument is not None and path.endswith("/trades"):
            return _trades(instrument, query, book)
        return Answer(b'{"message":"NotFound"}', 404)


def _trades(instrument: Instrument, query: Mapping[str, str], book: Book) -> Answer:
    limit, after, before = bounded(query.get("limit"), 1000, 1000), query.get("after"), query.get("before")
    if limit is None or not (after or "0").isdigit() or not (before or "0").isdigit():
        return Answer(b'{"message":"invalid limit, after or before"}', 400)
    rows = book.before_id(instrument, None if after is None else int(after), limit)
    if before is not None:
        rows = [made for made in rows if made.trade_id > int(before)]
    rows.reverse()  # newest first
    cursors = {"CB-BEFORE": str(rows[0].trade_id), "CB-AFTER": str(rows[-1].trade_id)} if rows else {}
    return Answer(b"[" + b",".join(_row(made) for made in rows) + b"]", 200, cursors)


def _row(made: Made) -> bytes:
    return b'{"trade_id":%d,"side":"%b","size":"%b","price":"%b","time":"%b"}' % (
        made.trade_id,
        b"sell" if made.buy else b"buy",
        padded(made.quantity, made.quantity_scale, REST_PLACES).encode(),
        padded(made.price, made.price_scale, REST_PLACES).encode(),
        stamp(made.exchange_ts),
    )


def _template(kind: str, native: str) -> bytes:
    return (
        b'{"type":"' + kind.encode() + b'","trade_id":%d,%b,"size":"%b","price":"%b","product_id":"'
        + native.encode() + b'","sequence":' + SEQUENCE + b',"time":"%b"}'
    )  # fmt: skip


def _orders(exchange_ts: int, buy: int) -> bytes:
    """The two orders that met, and the maker's side."""
    return (
        b'"maker_order_id":"27fff20b-af29-4f45-8744-%012x","taker_order_id":"1da6ce16-c8da-4732-9f71-%012x","side":"%b"'
        % (
            exchange_ts >> 12,
            exchange_ts >> 11 & 0xFFFFFFFFFFFF,
            b"sell" if buy else b"buy",
        )
    )


def _trimmed(text: bytes) -> bytes:
    return text.rstrip(b"0").rstrip(b".") if b"." in text else text


def _wanted(request: Any) -> dict[str, set[str]]:
    """Channel to products of a request: a channel is a name, or an object with products of its own."""
    shared = set(request.get("product_ids", []))
    wanted: dict[str, set[str]] = {}
    for channel in request.get("channels", []):
        if isinstance(channel, str):
            wanted.setdefault(channel, set()).update(shared)
        else:
            wanted.setdefault(channel["name"], set()).update(channel.get("product_ids", shared))
    return wanted


def _subscriptions(client: Client) -> bytes:
    channels = [
        {"name": name, "product_ids": sorted(products), "account_ids": None}
        for name, products in (("matches", client.trades), ("heartbeat", client.heartbeats))
        if products
    ]
    return _encode({"type": "subscriptions", "channels": channels})


def _product(instrument: Instrument) -> dict[str, Any]:
    base, quote = instrument.symbol.split("-")
    return {
        "id": instrument.native,
        "base_currency": base,
        "quote_currency": quote,
        "quote_increment": padded(1, instrument.price_decimals, 0),
        "base_increment": padded(1, instrument.quantity_decimals, 0),
        "display_name": f"{base}-{quote}",
        "min_market_funds": "1",
        "margin_enabled": False,
        "post_only": False,
        "limit_only": False,
        "cancel_only": False,
        "status": "online",
        "status_message": "",
        "trading_disabled": False,
        "fx_stablecoin": False,
        "auction_mode": False,
    }
