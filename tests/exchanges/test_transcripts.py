"""Every venue's conversation, written down: what we say, what it sends, and the events that this is.

A line of `tests/fixtures/<exchange>.jsonl` is one of
  {"subscribe": [symbols], "id": n} or {"unsubscribe": ...}   what K2 is asked for; "out" are the messages it sends
  {"in": text, "at": ns}                                      a frame from the socket; "out" are its events
  {"in": text, "at": ns, "request": "200 /path?query"}        a REST answer; "out" are its events
  {"hex": bytes, "at": ns}                                    a frame that is not UTF-8
Trades stand in "out" as they stand in the log. A Fault's bytes are those of the frame unless "payload" says otherwise.
"""

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

import pytest

import k2.exchanges
from k2 import config
from k2.core.codec import encode_trade
from k2.core.exchange import Exchange
from k2.core.types import Event, Fault, Frame, Trade

FIXTURES = Path(__file__).parents[1] / "fixtures"
VENUES = sorted(module.name for module in pkgutil.iter_modules(k2.exchanges.__path__))


def venue(name: str) -> Exchange:
    exchange: Exchange = importlib.import_module(f"k2.exchanges.{name}").EXCHANGE
    return exchange


def frame_of(line: dict[str, Any]) -> Frame:
    payload = bytes.fromhex(line["hex"]) if "hex" in line else line["in"].encode()
    request = line.get("request", "")
    return Frame(line["at"], "rest" if request else "ws", "rest" if request else "c1", request, payload)


def told(event: Event, frame: Frame) -> dict[str, Any]:
    if isinstance(event, Trade):
        return {"trade": json.loads(encode_trade(event))}
    fields = event._asdict()
    if isinstance(event, Fault):
        assert fields.pop("detail")
        fields["payload"] = event.payload.decode(errors="backslashreplace") if event.payload != frame.payload else None
    return {type(event).__name__.lower(): {key: value for key, value in fields.items() if value not in (None, False)}}


def said(exchange: Exchange, line: dict[str, Any]) -> list[Any]:
    verb = "subscribe" if "subscribe" in line else "unsubscribe"
    symbols = [exchange.native(symbol) for symbol in line[verb]]
    return [json.loads(message) for message in getattr(exchange, verb)(symbols, line["id"])]


@pytest.mark.parametrize("name", VENUES)
def test_the_transcript_holds(name: str) -> None:
    exchange = venue(name)
    lines = [json.loads(line) for line in (FIXTURES / f"{name}.jsonl").read_text().splitlines()]
    kinds = set[str]()
    for number, line in enumerate(lines, 1):
        if "in" in line or "hex" in line:
            frame = frame_of(line)
            got = [told(event, frame) for event in exchange.decode(frame)]
            kinds |= {kind for event in got for kind in event}
        else:
            got = said(exchange, line)
        assert json.loads(json.dumps(got)) == line["out"], f"{name}.jsonl:{number}"
    assert {"trade", "confirmed", "refused", "fault"} <= kinds


@pytest.mark.parametrize("name", VENUES)
def test_a_venue_knows_the_names_and_bounds_that_the_feed_needs(name: str) -> None:
    exchange = venue(name)
    assert exchange.name == name
    assert exchange.channels
    assert exchange.ws_url.startswith("wss://")
    assert exchange.rest_url.startswith("https://")
    limits = exchange.limits
    assert min(limits.messages_per_second, limits.symbols_per_message, limits.silence) > 0
    assert limits.rest_per_second > 0
    assert limits.rest_burst > 0


@pytest.mark.parametrize("name", VENUES)
def test_many_symbols_are_split_into_messages_that_count_up(name: str) -> None:
    exchange = venue(name)
    symbols = [exchange.native(f"A{number}-USD") for number in range(2 * exchange.limits.symbols_per_message + 1)]
    messages = [message.decode() for message in exchange.subscribe(symbols, 7)]
    assert len(messages) == 3
    assert all(sum(symbol.lower() in message.lower() for message in messages) >= 1 for symbol in symbols)
    assert exchange.subscribe([], 7) == []


@pytest.mark.parametrize(
    ("name", "native", "symbol"),
    [
        ("binance", "BTCUSDT", "BTC-USDT"),
        ("binance", "USDCUSDT", "USDC-USDT"),
        ("binance", "ETHBTC", "ETH-BTC"),
        ("binance", "BTCFDUSD", "BTC-FDUSD"),
        ("binance", "1000SATSUSDT", "1000SATS-USDT"),
        ("coinbase", "BTC-USD", "BTC-USD"),
        ("coinbase", "00-USD", "00-USD"),
        ("kraken", "BTC/USD", "BTC-USD"),
        ("kraken", "XBT/USD", "BTC-USD"),
        ("kraken", "DOGE/USD", "DOGE-USD"),
        ("kraken", "XXBTZUSD", "BTC-USD"),
        ("kraken", "XETHXXBT", "ETH-BTC"),
        ("kraken", "XBTUSD", "BTC-USD"),
        ("kraken", "XDGUSD", "DOGE-USD"),
        ("kraken", "XTZUSD", "XTZ-USD"),
        ("kraken", "LINKUSD", "LINK-USD"),
    ],
)
def test_names_become_canonical(name: str, native: str, symbol: str) -> None:
    assert venue(name).canonical(native) == symbol


@pytest.mark.parametrize("name", VENUES)
def test_what_names_no_instrument_is_refused(name: str) -> None:
    for native in ("", "USD", "-", "/", "BTC_USD", "btc-usd", "BTC-USD-PERP", "A" * 1_000, "BTC USD", "\ud800"):
        with pytest.raises(ValueError, match=name):
            venue(name).canonical(native)


@pytest.mark.parametrize("name", VENUES)
def test_default_instruments_keep_their_name_there_and_back(name: str) -> None:
    exchange = venue(name)
    quote = "USDT" if name == "binance" else "USD"
    for base in "BTC ETH BNB SOL XRP ADA DOT LINK DOGE LTC AVAX ATOM".split():  # noqa: SIM905
        assert exchange.canonical(exchange.native(f"{base}-{quote}")) == f"{base}-{quote}"


@pytest.mark.parametrize("name", VENUES)
def test_a_module_is_all_that_makes_a_venue_known(name: str) -> None:
    assert name in config.EXCHANGES
    assert config.load(environ={f"K2_EXCHANGES_{name.upper()}_ENABLED": "false"}).exchange(name).enabled is False
    assert k2.exchanges.venue(name) is venue(name)
