"""Nothing that may arrive makes a decoder raise, and nothing unsound comes out of one."""

import importlib
import json
import pkgutil
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import k2.exchanges
from k2.core.codec import decode_trade, encode_trade
from k2.core.exchange import Exchange
from k2.core.types import Fault, Frame, Heartbeat, Trade

FIXTURES = Path(__file__).parents[1] / "fixtures"
VENUES = sorted(module.name for module in pkgutil.iter_modules(k2.exchanges.__path__))
SLUG = re.compile(r"[a-z]+(-[a-z0-9]+)*").fullmatch
SYMBOL = re.compile(r"[^\W_a-z]+-[A-Z0-9.]+").fullmatch
PLAIN = re.compile(r"[0-9]{1,20}(\.[0-9]{1,18})?").fullmatch


def venue(name: str) -> Exchange:
    exchange: Exchange = importlib.import_module(f"k2.exchanges.{name}").EXCHANGE
    return exchange


def recorded(name: str) -> list[tuple[str, bytes]]:
    """Request and bytes of every frame in the venue's transcript."""
    lines = [json.loads(line) for line in (FIXTURES / f"{name}.jsonl").read_text().splitlines()]
    return [(line.get("request", ""), line["in"].encode()) for line in lines if "in" in line]


RECORDED = {name: recorded(name) for name in VENUES}


def check(name: str, request: str, payload: bytes) -> None:
    frame = Frame(1_763_880_000_000_000_000, "rest" if request else "ws", "c1", request, payload)
    events = venue(name).decode(frame)
    assert events == venue(name).decode(frame)
    for event in events:
        if isinstance(event, Fault):
            assert SLUG(event.reason)
            assert event.detail
            assert len(event.detail) < 500
            assert event.payload in payload
        elif isinstance(event, Trade):
            sound(event, name, "backfill" if request else "live")
        elif isinstance(event, Heartbeat) and event.last_trade_id is not None:
            assert 0 < event.last_trade_id < 2**63


def sound(trade: Trade, name: str, source: str) -> None:
    assert (trade.exchange, trade.source, trade.epoch) == (name, source, 0)
    assert SYMBOL(trade.symbol)
    assert 0 < trade.trade_id < 2**63
    assert trade.side in ("buy", "sell")
    assert 946_684_800_000_000_000 <= trade.exchange_ts < 7_258_118_400_000_000_000
    for text in (trade.price, trade.quantity):
        assert PLAIN(text)
        assert Decimal(text) > 0
    assert decode_trade(encode_trade(trade)) == trade


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.sampled_from(["trade", "match", "heartbeat", "subscriptions", "error", "1e-8", "-0", "0.1", 2**64, -1, 1e300]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def mangled(draw: st.DrawFn, name: str) -> tuple[str, bytes]:
    """A real frame with some bytes changed, dropped, put in, or cut off."""
    request, payload = draw(st.sampled_from(RECORDED[name]))
    data = bytearray(payload)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 4)):
            case 0:
                data[at : at + 1] = draw(st.binary(max_size=3))
            case 1:
                del data[at:]
            case 2:
                del data[at : at + draw(st.integers(1, 20))]
            case 3:
                data[at:at] = data[: draw(st.integers(0, 40))]
            case 4:
                data[at : at + 1] = b"\xff"
    return request, bytes(data)


@st.composite
def retyped(draw: st.DrawFn, name: str) -> tuple[str, bytes]:
    """A real frame with one value replaced by another, or a key left out."""
    request, payload = draw(st.sampled_from([f for f in RECORDED[name] if f[1].startswith((b"{", b"["))]))
    try:
        tree = json.loads(payload)
    except ValueError:
        return request, payload
    places: list[tuple[Any, Any]] = []
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        inner = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
        places += [(node, key) for key, _ in inner]
        nodes += [child for _, child in inner if isinstance(child, dict | list)]
    if places:
        node, key = draw(st.sampled_from(places))
        if draw(st.booleans()):
            node[key] = draw(values)
        else:
            del node[key]
    return request, json.dumps(tree, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")


@pytest.mark.parametrize("name", VENUES)
@given(data=st.data())
def test_mangled_frames(name: str, data: st.DataObject) -> None:
    check(name, *data.draw(mangled(name)))


@pytest.mark.parametrize("name", VENUES)
@given(data=st.data())
def test_frames_of_other_types(name: str, data: st.DataObject) -> None:
    check(name, *data.draw(retyped(name)))


@pytest.mark.parametrize("name", VENUES)
@given(payload=st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_and_any_json(name: str, payload: bytes) -> None:
    check(name, "", payload)


@pytest.mark.parametrize("name", VENUES)
@given(request=st.text(min_size=1, max_size=40), data=st.data())
def test_any_request(name: str, request: str, data: st.DataObject) -> None:
    _, payload = data.draw(st.sampled_from(RECORDED[name]))
    check(name, request, payload)
    check(name, f"200 /{request}", payload)


@pytest.mark.parametrize("name", VENUES)
@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"channel":"trade","data":' + b"[" * 200_000,
        b'{"stream":"x","data":' + b'{"e":' * 200_000,
        b'{"type":"match","price":"' + b"9" * 1_000_000 + b'"}',
        b'{"channel":"trade","data":[' + b"1," * 50_000 + b"1]}",
        b"9" * 100_000,
        b'"' + b"\\ud800" * 10 + b'"',
    ],
    ids=["lists", "objects", "deep rows", "deep data", "long text", "many rows", "long number", "half a character"],
)
def test_monsters(name: str, payload: bytes) -> None:
    check(name, "", payload)
    check(name, RECORDED[name][-1][0], payload)


@pytest.mark.parametrize("name", VENUES)
def test_what_we_sent_says_nothing(name: str) -> None:
    for _, payload in RECORDED[name]:
        assert venue(name).decode(Frame(1, "sent", "c1", "", payload)) == []
