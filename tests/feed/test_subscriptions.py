"""Subscribing: chunks, pacing, answers, refusals and silence, by a hand-turned clock."""

import json
from collections.abc import Sequence

from k2.core.exchange import Exchange
from k2.core.types import Confirmed, Refused
from k2.exchanges import venue
from k2.feed.subscriptions import ANSWER_WITHIN, RETRY_CAP, RETRY_FIRST, SETTLE, Subscriptions

BINANCE, COINBASE, KRAKEN = venue("binance"), venue("coinbase"), venue("kraken")


class SmallMessages:
    """Binance with two symbols a message and one message a second."""

    def __init__(self) -> None:
        self.limits = BINANCE.limits._replace(symbols_per_message=2, messages_per_second=1.0)
        self.channels = BINANCE.channels

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return BINANCE.subscribe(natives, request_id)


def subscribed(exchange: Exchange, *natives: str) -> tuple[Subscriptions, list[bytes]]:
    machine = Subscriptions(exchange)
    machine.want(natives)
    return machine, machine.due(0.0)


def test_everything_is_asked_for_and_settled_by_the_answer() -> None:
    machine, sent = subscribed(BINANCE, "BTCUSDT", "ETHUSDT")
    assert [json.loads(message)["method"] for message in sent] == ["SUBSCRIBE"]
    assert not machine.settled
    machine.on_confirmed(Confirmed("trade", None, request_id=1))
    assert machine.settled
    assert machine.active == 2
    assert machine.due(100.0) == []
    assert not machine.overdue(100.0)


def test_messages_keep_to_the_venues_limits() -> None:
    exchange = SmallMessages()
    machine, sent = subscribed(exchange, *(f"A{i}USDT" for i in range(5)))  # type: ignore[arg-type]
    times = [0.0]
    while len(sent) < 3:
        times.append(times[-1] + 0.25)
        sent += machine.due(times[-1])
    assert times[-1] >= 2.0
    assert [len(json.loads(message)["params"]) for message in sent] == [2, 2, 1]
    assert len({json.loads(message)["id"] for message in sent}) == 3


def test_a_channel_is_not_enough_where_there_are_two() -> None:
    machine, _ = subscribed(COINBASE, "BTC-USD")
    machine.on_confirmed(Confirmed("matches", ("BTC-USD",), whole=True))
    assert not machine.settled
    machine.on_confirmed(Confirmed("heartbeat", ("BTC-USD",), whole=True))
    assert machine.settled


def test_a_refused_symbol_is_named_once_and_the_others_go_on() -> None:
    machine, _ = subscribed(KRAKEN, "BTC/USD", "NO/USD")
    assert machine.on_refused(Refused("trade", "NO/USD", "not supported"), 1.0) == [("NO/USD", "not supported")]
    machine.on_confirmed(Confirmed("trade", ("BTC/USD",)))
    assert machine.settled
    assert machine.active == 1
    assert machine.due(1.0 + RETRY_FIRST - 0.1) == []
    (again,) = machine.due(1.0 + RETRY_FIRST)
    assert json.loads(again)["params"]["symbol"] == ["NO/USD"]


def test_a_symbol_that_stays_refused_is_asked_for_ever_more_rarely() -> None:
    machine, _ = subscribed(KRAKEN, "NO/USD")
    now, pauses = 1.0, []
    for _ in range(10):
        machine.on_refused(Refused("trade", "NO/USD", "not supported"), now)
        began = now
        while not machine.due(now):
            now += 0.5
        pauses.append(now - began)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (RETRY_FIRST, RETRY_CAP)


def test_where_one_refusal_voids_the_whole_message_the_neighbours_are_asked_for_again() -> None:
    machine, _ = subscribed(COINBASE, "BTC-USD", "NO-USD", "ETH-USD")
    machine.on_refused(Refused(None, "NO-USD", "not a valid product"), 1.0)
    assert not machine.settled
    assert not machine.overdue(1.0 + SETTLE)
    (again,) = machine.due(1.0 + SETTLE)
    assert json.loads(again)["product_ids"] == ["BTC-USD", "ETH-USD"]


def test_a_refusal_without_a_name_is_narrowed_down_to_the_symbol() -> None:
    machine, sent = subscribed(BINANCE, "AUSDT", "BUSDT", "NOUSDT", "CUSDT")
    named: list[str] = []
    now = 0.0
    while not machine.settled and now < 60:
        for message in sent:
            request = json.loads(message)
            if any(stream.startswith("no") for stream in request["params"]):
                named += [n for n, _ in machine.on_refused(Refused(None, None, "invalid", request["id"]), now)]
            else:
                machine.on_confirmed(Confirmed("trade", None, request_id=request["id"]))
        now += 1.0
        sent = machine.due(now)
        machine.overdue(now)
    assert named == ["NOUSDT"]
    assert machine.settled
    assert machine.active == 3


def test_silence_is_answered_by_asking_again_and_then_by_giving_up() -> None:
    machine, _ = subscribed(BINANCE, "BTCUSDT")
    assert not machine.overdue(ANSWER_WITHIN - 0.1)
    assert machine.due(ANSWER_WITHIN - 0.1) == []
    assert not machine.overdue(ANSWER_WITHIN + 1)
    assert len(machine.due(ANSWER_WITHIN + 1)) == 1
    assert machine.overdue(2 * ANSWER_WITHIN + 3)


def test_a_changed_list_subscribes_and_unsubscribes_on_the_open_connection() -> None:
    machine, _ = subscribed(BINANCE, "BTCUSDT", "ETHUSDT")
    machine.on_confirmed(Confirmed("trade", None, request_id=1))
    machine.want(["ETHUSDT", "SOLUSDT"])
    messages = [json.loads(message) for t in (1.0, 2.0, 3.0) for message in machine.due(t)]
    assert [(m["method"], m["params"]) for m in messages] == [
        ("UNSUBSCRIBE", ["btcusdt@trade"]),
        ("SUBSCRIBE", ["solusdt@trade"]),
    ]
    for message in messages:
        machine.on_confirmed(Confirmed("trade", None, request_id=message["id"], active=message["id"] == 3))
    assert machine.settled
    assert machine.active == 2
    assert not machine.overdue(100.0)


def test_a_symbol_that_falls_out_of_the_venues_list_is_asked_for_again() -> None:
    machine, _ = subscribed(COINBASE, "BTC-USD", "ETH-USD")
    for channel in COINBASE.channels:
        machine.on_confirmed(Confirmed(channel, ("BTC-USD", "ETH-USD"), whole=True))
    machine.on_confirmed(Confirmed("matches", ("BTC-USD",), whole=True))
    (again,) = machine.due(5.0)
    assert json.loads(again)["product_ids"] == ["ETH-USD"]


def test_an_answer_to_nothing_is_ignored() -> None:
    machine, _ = subscribed(BINANCE, "BTCUSDT")
    machine.on_confirmed(Confirmed("trade", None, request_id=99))
    machine.on_confirmed(Confirmed("depth", ("BTCUSDT",)))
    assert machine.on_refused(Refused(None, None, "what", 99), 1.0) == []
    assert machine.on_refused(Refused("trade", "XUSDT", "what"), 1.0) == []
    assert not machine.settled
