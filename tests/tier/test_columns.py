"""The quick ways from records to columns give what the decoders give, or leave it to them."""

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.tier.conftest import trade

from k2.core.codec import decode_frame, decode_trade, encode_frame, encode_frames, encode_trade
from k2.core.types import Frame, Trade
from k2.log import Batch
from k2.tier import BrokenRecord
from k2.tier.offload import columns
from k2.tier.offload.lines import read_lines
from k2.tier.offload.rowbinary import read_frames

_names = st.sampled_from(["BTC-USD", "ETH-USD", "Ä-USD", "", "a:b{}[]"])
_odd = st.text(max_size=6)
_exact = st.decimals(0, 10**12, places=8, allow_nan=False).map(lambda number: f"{number:f}")
_usual = st.builds(
    trade,
    st.integers(1, 2**63 - 1),
    symbol=_names,
    native_symbol=_names,
    price=_exact,
    quantity=_exact,
    side=st.sampled_from(["buy", "sell"]),
    exchange_ts=st.integers(1, 4 * 10**18),
    recv_ts=st.integers(1, 4 * 10**18),
    source=st.sampled_from(["live", "backfill"]),
    epoch=st.sampled_from([0, 0, 0, 1, 2**31 - 1]),
)
_unusual = st.builds(
    trade,
    st.integers(-(2**63), 2**63 - 1),
    symbol=_names | _odd,
    native_symbol=_names | _odd,
    price=_exact | st.sampled_from(["1e5", "-0.5", "+1", ".5", "007", "0"]),
    exchange_ts=st.integers(-(10**18), 10**18),
    epoch=st.integers(-(2**31), 2**31 - 1),
)


def _rows(trades: list[Trade]) -> dict[str, list[Any]]:
    rows = {name: [getattr(one, name) for one in trades] for name in Trade.__struct_fields__}
    return rows | {name: [Decimal(text) for text in rows[name]] for name in ("price", "quantity")}


def _read(values: list[bytes]) -> dict[str, list[Any]] | None:
    found = read_lines("kraken", values)
    return found and {name: column.to_pylist() for name, column in found.items()}


@given(trades=st.lists(_usual, min_size=1, max_size=20))
def test_usual_trades_are_read_as_lines(trades: list[Trade]) -> None:
    assert _read([encode_trade(one) for one in trades]) == _rows(trades)


@given(trades=st.lists(_usual | _unusual, min_size=1, max_size=6))
def test_other_trades_are_read_alike_or_left_to_the_decoder(trades: list[Trade]) -> None:
    values = [encode_trade(one) for one in trades]
    assert _read(values) in (None, _rows(trades))


@settings(max_examples=100)
@given(trades=st.lists(_usual, min_size=1, max_size=6))
def test_both_ways_make_the_same_columns(trades: list[Trade]) -> None:
    batch = Batch("market.crypto.trades.kraken", 0, 0, (), [encode_trade(one) for one in trades])
    spaced = batch._replace(values=[value.replace(b'"side":', b'"side": ') for value in batch.values])
    assert read_lines("kraken", spaced.values) is None
    quick, slow = columns.trades("kraken", batch), columns.trades("kraken", spaced)
    assert quick.schema == slow.schema
    assert quick.to_pylist() == slow.to_pylist()


_LINE = encode_trade(trade(7, epoch=0)).decode()
_LATER = encode_trade(trade(7, epoch=3)).decode()


def _changed(old: str, new: str) -> bytes:
    assert old in _LATER
    return _LATER.replace(old, new, 1).encode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    "value",
    [
        _changed('"trade_id":7', '"trade_id":07'),
        _changed('"trade_id":7', '"trade_id":0x7'),
        _changed('"trade_id":7', '"trade_id":+7'),
        _changed('"trade_id":7', '"trade_id":7.5'),
        _changed('"trade_id":7', '"trade_id":"7"'),
        _changed('"trade_id":7', '"trade_id":' + "9" * 30),
        _changed('"trade_id":7', '"trade_id":'),
        _changed('"trade_id":7', '"trade_id":null'),
        _changed('"epoch":3', '"epoch":03'),
        _changed('"epoch":3', '"epoch":3}'),
        _changed('"epoch":3', '"other":3'),
        _changed('"epoch":3', '"epoch":3,"more":4'),
        _changed('"price":"61000.10"', '"price":"61000".10"'),
        _changed('"price":"61000.10"', '"price":"'),
        _changed('"price":"61000.10"', '"price":61000.10'),
        _changed('"price":"61000.10"', '"price":"61000,10"'),
        _changed('"price":', '"Price":'),
        _changed('"BTC-USD"', '"BTC"-"USD"'),
        _changed('"BTC-USD"', '"BTC\\u002dUSD"'),
        _changed('"BTC-USD"', '"BTC\tUSD"'),
        _changed('"BTC-USD"', '"BTC\udcff"'),
        _changed('"symbol":"BTC-USD"', '"symbol":"'),
        _changed('"exchange":"kraken"', '"exchange":"binance"'),
        _changed('"side":"buy"', '"side":"bid"'),
        _changed('"source":"live"', '"source":"dead"'),
        _changed("{", "\ufeff{"),
        _changed("{", "\n{"),
        _changed("}", "}\n{}"),
        _changed("}", "]"),
        _changed("}", ""),
        b"",
        b"{}",
        b'{"exchange":"kraken"}',
        f"{_LINE}\n{_LINE}".encode(),
        _LINE.replace(',"quantity"', '\n"quantity"').encode(),
    ],
)
@pytest.mark.parametrize("place", [lambda value: [value], lambda value: [_LINE.encode(), value, _LATER.encode()]])
def test_what_is_not_the_usual_shape_is_left_to_the_decoder(
    value: bytes, place: Callable[[bytes], list[bytes]]
) -> None:
    values = place(value)
    try:
        wanted = _rows([decode_trade(one) for one in values])
    except (msgspec.DecodeError, UnicodeDecodeError, InvalidOperation):
        wanted = None
    assert _read(values) in (None, wanted)


@given(data=st.data())
def test_no_damage_of_a_line_goes_unnoticed(data: Any) -> None:
    value = bytearray(data.draw(st.sampled_from([_LINE, _LATER])).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(value) - 1))
        value[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2) | st.sampled_from([b'"', b","]))
    try:
        wanted = _rows([decode_trade(bytes(value))])
    except (msgspec.DecodeError, UnicodeDecodeError, InvalidOperation):
        wanted = None
    found = _read([bytes(value)])
    assert found in (None, wanted)


_frames = st.builds(
    Frame,
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from(["ws", "rest", "sent"]),
    st.sampled_from(["c1", "c2", "rest", "ü"]),
    st.sampled_from(["", "200 /api?x=1", "404 " + "/long" * 40]),
    st.binary(max_size=5) | st.sampled_from([n * b"\x00\xff" for n in (63, 64, 65, 8191, 8192, 8193)] + [b"x" * 127]),
)


@given(frames=st.lists(_frames, min_size=1, max_size=12))
@example([Frame(1, "ws", "", "", b""), Frame(2, "ws", "c1", "", b"\x00"), Frame(3, "ws", "", "", b"c1")])
def test_frames_are_read_as_the_decoder_reads_them(frames: list[Frame]) -> None:
    found = {name: column.to_pylist() for name, column in read_frames(encode_frames(frames)).items()}
    assert found == {name: [getattr(frame, name) for frame in frames] for name in Frame.__struct_fields__}


@given(data=st.data())
def test_damaged_frames_are_refused_as_the_decoder_refuses_them(data: Any) -> None:
    whole = encode_frame(Frame(5, "ws", "c1", "", b"p" * data.draw(st.sampled_from([0, 1, 127, 128, 300]))))
    damaged = bytearray(whole)
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    try:
        frame: Frame | None = decode_frame(bytes(damaged))
    except ValueError:
        frame = None
    if frame is None:
        with pytest.raises(ValueError):
            read_frames([whole, bytes(damaged)])
    else:
        rows = read_frames([whole, bytes(damaged)])
        assert {name: column[1].as_py() for name, column in rows.items()} == {
            name: getattr(frame, name) for name in Frame.__struct_fields__
        }


def test_a_length_written_longer_than_need_be_is_understood() -> None:
    whole = encode_frame(Frame(5, "ws", "c1", "", b"payload"))
    longer = whole[:8] + b"\x82\x00" + whole[9:]
    assert decode_frame(longer) == decode_frame(whole)
    assert read_frames([longer, whole, longer])["payload"].to_pylist() == [b"payload"] * 3
    assert read_frames([whole, longer])["connection"].to_pylist() == ["c1"] * 2


def test_a_broken_frame_is_named() -> None:
    batch = Batch("s", 10, 0, (), [encode_frame(Frame(5, "ws", "c1", "", b"x")), b"short"])
    with pytest.raises(BrokenRecord, match="record 11 of s"):
        columns.frames("kraken", batch)
