import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.store.seen import Seen


def records(*ids: int, symbol: str = "BTC-USDT", epoch: int = 0) -> list[bytes]:
    extra = {"epoch": epoch} if epoch else {}
    return [
        msgspec.json.encode(
            {"symbol": symbol, "trade_id": number, "exchange_ts": 1, "recv_ts": 2, "price": "1", **extra}
        )
        for number in ids
    ]


@pytest.mark.parametrize(
    ("before", "ids", "dropped", "apart", "joined"),
    [
        ((), (5, 6, 7), [], [], []),
        ((5, 6), (6, 7, 5), [0, 2], [], []),
        ((5, 6), (9,), [], [0], []),
        ((5, 6, 9), (7,), [], [], []),
        ((5, 6, 9), (8,), [], [0], [9]),
        ((5, 6, 9), (7, 8), [], [], [9]),
        ((5, 6), (3,), [], [], [5]),
        ((5, 6), (4,), [], [], [5, 5]),
    ],
)
def test_what_becomes_of_records(
    before: tuple[int, ...], ids: tuple[int, ...], dropped: list[int], apart: list[int], joined: list[int]
) -> None:
    seen = Seen()
    if before:
        seen.admit("kraken", records(*before))
    admission = seen.admit("kraken", records(*ids))
    assert admission.dropped == dropped
    assert admission.apart == apart
    assert [identity[3] for identity in admission.joined] == joined


def test_epochs_symbols_and_exchanges_have_ids_of_their_own() -> None:
    seen = Seen()
    for exchange, symbol, epoch in [
        ("kraken", "A-B", 0),
        ("kraken", "A-B", 1),
        ("kraken", "A-C", 0),
        ("binance", "A-B", 0),
    ]:
        assert seen.admit(exchange, records(1, 2, symbol=symbol, epoch=epoch)).dropped == []
        assert seen.admit(exchange, records(1, 2, symbol=symbol, epoch=epoch)).dropped == [0, 1]


@given(st.lists(st.lists(st.integers(1, 50), max_size=10)))
def test_an_identity_is_let_in_once_also_after_a_restart(batches: list[list[int]]) -> None:
    seen = Seen()
    let_in = set()
    for ids in batches:
        admission = seen.admit("binance", records(*ids))
        new = [number for i, number in enumerate(ids) if i not in admission.dropped]
        assert len(set(new)) == len(new)
        assert not let_in & set(new)
        let_in |= set(new)
        seen = Seen.from_json(seen.to_json())
    apart = {identity[3] for identity in seen.apart()}
    assert apart == {number for number in let_in if number - 1 not in let_in and number != min(let_in)}


def test_a_broken_record_raises() -> None:
    with pytest.raises(msgspec.DecodeError):
        Seen().admit("binance", [b'{"symbol":"A-B"'])
