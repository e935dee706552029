"""Silence, by a hand-turned clock."""

from k2.exchanges import venue
from k2.feed.watchdog import TRADES_ROPE, TRADES_ROPE_CAP, Watchdog

BINANCE, COINBASE = venue("binance").limits, venue("coinbase").limits


def test_a_connection_that_never_speaks_is_silent_from_the_dial_on() -> None:
    dog = Watchdog(BINANCE, 0.0, 100.0)
    assert dog.silent(100.0 + BINANCE.silence) is None
    assert "the connection" in (dog.silent(100.1 + BINANCE.silence) or "")


def test_any_frame_counts_where_there_are_no_heartbeats() -> None:
    dog = Watchdog(BINANCE, 2.0, 0.0)
    dog.on_frame(5.0)
    assert dog.silent(6.9) is None
    assert dog.silent(7.1)


def test_frames_do_not_count_where_heartbeats_do() -> None:
    dog = Watchdog(COINBASE, 2.0, 0.0)
    dog.on_frame(5.0)
    assert "heartbeat" in (dog.silent(5.0) or "")
    dog.on_heartbeat("heartbeat", None, 5.0)
    assert dog.silent(6.9) is None


def test_one_symbol_whose_heartbeats_stop_is_noticed_while_the_others_beat() -> None:
    dog = Watchdog(COINBASE, 2.0, 0.0)
    dog.on_heartbeat("heartbeat", "BTC-USD", 1.0)
    for second in range(1, 5):
        dog.on_heartbeat("heartbeat", "ETH-USD", float(second))
    assert "BTC-USD" in (dog.silent(4.0) or "")
    dog.forget({"ETH-USD"})
    assert dog.silent(4.0) is None


def test_trades_have_a_longer_rope_that_grows_while_new_connections_bring_none() -> None:
    dog = Watchdog(COINBASE, 2.0, 0.0)
    dog.on_heartbeat("heartbeat", None, TRADES_ROPE + 1)
    assert dog.silent(TRADES_ROPE + 1) is None
    assert dog.tradeless(TRADES_ROPE + 1)
    ropes = []
    for _ in range(8):
        rope = dog.next_rope()
        ropes.append(rope)
        dog = Watchdog(COINBASE, 2.0, 0.0, rope)
    assert ropes[0] == 2 * TRADES_ROPE
    assert ropes[-1] == TRADES_ROPE_CAP
    dog.on_trade(1.0)
    assert dog.next_rope() == TRADES_ROPE
