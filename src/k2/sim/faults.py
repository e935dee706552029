"""Faults on demand: what they are called, when they strike, and what they do to the frames on their way out.

A fault strikes at random with its probability (seeded, so that a run can be repeated), at most `count` times, for
`seconds` from when it was ordered. Frames are hurt only on the way to the clients: the truth file and REST know every
trade, as at a real venue. A hurt frame never looks whole: `corrupt` writes control characters, which JSON forbids, so
what arrives is either right or recognisably wrong.
"""

import heapq
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from k2.config import EXCHANGES
from k2.metrics import SIM_FAULTS
from k2.sim.framing import BINARY, frame, payload_of

FAULTS = {
    "drop": "a frame is never sent",
    "duplicate": "a frame is sent twice",
    "reorder": "a frame is sent after the symbol's next one (or after 0.5 s)",
    "delay": "a frame is sent `amount` seconds late (default 0.5); others overtake it",
    "truncate": "a frame ends early",
    "corrupt": "some bytes of a frame are overwritten",
    "junk": "a frame of garbage is sent before a frame",
    "close": "the connections are closed; once, unless `count` or a probability is given",
    "close-loop": "every connection is closed `amount` seconds after it opened (default 0.2)",
    "silent": "sockets stay open and nothing at all is sent",
    "silent-channel": "no trades are sent; heartbeats and answers are",
    "no-handshake": "TCP is accepted and the WebSocket handshake never answered",
    "refuse": "subscriptions to `symbol` (all if not given) are refused",
    "rest-429": "REST says: too many requests, with Retry-After `amount` (default 1)",
    "rest-418": "REST says: banned, with Retry-After `amount` (default 2)",
    "rest-5xx": "REST answers 503",
    "rest-slow": "REST answers after `amount` seconds (default 3)",
    "rest-timeout": "REST never answers",
    "rest-empty": "REST has no trades, or none with ids `first_id` to `last_id` where given",
    "overlap": "REST pages begin `amount` trades earlier than asked (default 5)",
    "clock-skew": "the venue's clock is `amount` seconds ahead (negative: behind)",
    "epoch": "the venue restarts the symbol's ids at 1; once, unless `count` is given",
}
FRAME_FAULTS = {"drop", "duplicate", "reorder", "delay", "truncate", "corrupt", "junk", "close", "silent-channel"}
DEFAULT_AMOUNT = {
    "delay": 0.5,
    "close-loop": 0.2,
    "rest-429": 1,
    "rest-418": 2,
    "rest-slow": 3,
    "overlap": 5,
    "clock-skew": 2,
}
HELD_AT_MOST = 100_000  # delayed frames a venue; beyond it the oldest are sent early
JUNK = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"true",
    b"-0",
    b"Gateway Timeout",
    b'{"stream":',
    b'{"type":"match"}',
    b'{"channel":"trade","type":"update","data":{}}',
    b'{"channel":"trade","type":"update","data":[{"symbol":1,"trade_id":"x"}]}',
    b'{"stream":"btcusdt@trade","data":[1,2,3]}',
    b"[" * 600,
    b"\xff\xfe\x00\x80",
)


class FaultError(ValueError):
    """An order that names no fault, or one that makes no sense; the text says what to write."""


class Order(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A fault as ordered through the control endpoint or `--fault`. `exchange` `all` means every venue."""

    fault: str
    exchange: str
    probability: float = 1.0
    count: int | None = None
    seconds: float | None = None
    symbol: str | None = None
    amount: float | None = None
    first_id: int | None = None
    last_id: int | None = None


class Fault(msgspec.Struct, kw_only=True):
    """A fault that stands: `until` is in seconds of the faults' clock, `played` how often it struck."""

    id: int
    order: Order
    until: float | None
    played: int = 0

    @property
    def spent(self) -> bool:
        return self.order.count is not None and self.played >= self.order.count

    @property
    def amount(self) -> float:
        given = self.order.amount
        return DEFAULT_AMOUNT.get(self.order.fault, 0) if given is None else given


def parse_order(text: str) -> Order:
    """`fault:exchange[:key=value,...]`, as in `drop:binance:p=0.01,seconds=10`. Raises FaultError."""
    fault, _, rest = text.partition(":")
    exchange, _, settings = rest.partition(":")
    fields: dict[str, str] = {"fault": fault, "exchange": exchange or "all"}
    for setting in filter(None, settings.split(",")):
        key, equals, value = setting.partition("=")
        if not equals:
            raise FaultError(f"{text!r}: {setting!r} is not key=value")
        fields["probability" if key == "p" else key] = value
    try:
        order = msgspec.convert(fields, Order, strict=False)
    except msgspec.ValidationError as error:
        raise FaultError(f"{text!r}: {error}; write for example drop:binance:p=0.01,seconds=10") from None
    return check(order)


def check(order: Order) -> Order:
    """The order itself, if it makes sense. Raises FaultError."""
    if order.fault not in FAULTS:
        raise FaultError(f"no fault is called {order.fault!r}; there are: {', '.join(FAULTS)}")
    if order.exchange not in (*EXCHANGES, "all"):
        raise FaultError(f"no exchange is called {order.exchange!r}; there are: {', '.join(EXCHANGES)}, all")
    if not 0 < order.probability <= 1:
        raise FaultError(f"a probability of {order.probability} is not possible: write more than 0, at most 1")
    if order.count is None and order.fault in ("close", "epoch") and order.probability == 1 and order.seconds is None:
        order.count = 1
    return order


class Faults:
    """All faults that stand. `now` is what the owner last set: the clock is not read here."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"{seed}:faults")
        self.now = 0.0
        self.standing: list[Fault] = []
        self.played: dict[str, int] = {}
        self._next = 1

    def order(self, order: Order) -> list[Fault]:
        """Put a fault into force, one for each exchange that is meant."""
        check(order)
        names = EXCHANGES if order.exchange == "all" else (order.exchange,)
        made = []
        for name in names:
            own = msgspec.structs.replace(order, exchange=name)
            until = None if own.seconds is None else self.now + own.seconds
            made.append(Fault(id=self._next, order=own, until=until))
            self._next += 1
        self.standing += made
        return made

    def clear(self, fault_id: int | None = None, exchange: str | None = None, fault: str | None = None) -> int:
        """End the faults that match all that is given. Returns how many."""
        before = len(self.standing)
        self.standing = [
            one
            for one in self.standing
            if (fault_id is not None and one.id != fault_id)
            or (exchange is not None and one.order.exchange != exchange)
            or (fault is not None and one.order.fault != fault)
        ]
        return before - len(self.standing)

    def expire(self, now: float) -> None:
        """Set the clock and end what is over."""
        self.now = now
        if self.standing:
            self.standing = [one for one in self.standing if (one.until is None or now < one.until) and not one.spent]

    def standing_for(self, exchange: str, names: Iterable[str]) -> list[Fault]:
        return [one for one in self.standing if one.order.exchange == exchange and one.order.fault in names]

    def find(self, exchange: str, fault: str, symbol: str | None = None) -> Fault | None:
        """A standing fault of this name, without playing it. Faults ordered for another symbol do not count."""
        return next(self._matching(exchange, fault, symbol), None)

    def _matching(self, exchange: str, fault: str, symbol: str | None) -> Iterator[Fault]:
        for one in self.standing:
            order = one.order
            if order.fault == fault and order.exchange == exchange and order.symbol in (None, symbol) and not one.spent:
                yield one

    def strike(self, exchange: str, fault: str, symbol: str | None = None) -> Fault | None:
        """The fault if it strikes now; counted."""
        return next((one for one in self._matching(exchange, fault, symbol) if self.hit(one, symbol)), None)

    def hit(self, one: Fault, symbol: str | None) -> bool:
        """Whether this standing fault strikes something of `symbol` now; counted if it does."""
        order = one.order
        if order.symbol is not None and order.symbol != symbol:
            return False
        if one.spent:
            return False
        if order.probability < 1 and self.rng.random() >= order.probability:
            return False
        self.count(one)
        return True

    def count(self, one: Fault) -> None:
        one.played += 1
        key = f"{one.order.exchange}/{one.order.fault}"
        self.played[key] = self.played.get(key, 0) + 1
        SIM_FAULTS.labels(one.order.exchange, one.order.fault).inc()


class Shaper:
    """One venue's frames on their way out, as the faults leave them. A frame comes with the venue's own name of the
    symbol that it is about; `canonical` gives the BASE-QUOTE that faults are ordered for."""

    def __init__(self, exchange: str, faults: Faults, canonical: Callable[[str], str]) -> None:
        self.exchange, self.faults, self._canonical = exchange, faults, canonical
        self._late: list[tuple[float, int, str, bytes]] = []
        self._behind: dict[str, list[tuple[float, bytes]]] = {}
        self._counter = 0

    def pending(self) -> bool:
        """Whether frames are being held back."""
        return bool(self._late or self._behind)

    def shape(self, symbols: Sequence[str], frames: Sequence[bytes]) -> tuple[list[str], list[bytes], bool]:
        """(symbols, frames, close): what to send now, and whether then to close the connections."""
        out: list[tuple[str, bytes]] = self._due()
        standing = self.faults.standing_for(self.exchange, FRAME_FAULTS)
        close = False
        for symbol, data in zip(symbols, frames, strict=True):
            named = self._canonical(symbol)
            kept: list[bytes] = [data]
            held = False
            for one in standing:
                if kept and one.order.fault != "close" and self.faults.hit(one, named):
                    kept, held = self._hurt(one, symbol, kept)
                    if held:
                        break
            if not held and kept:
                out += [(symbol, piece) for piece in kept]
                out += [(symbol, piece) for _, piece in self._behind.pop(symbol, ())]
            if any(one.order.fault == "close" and self.faults.hit(one, named) for one in standing):
                close = True
                break  # what follows was on the wire when the line went dead
        return [symbol for symbol, _ in out], [data for _, data in out], close

    def _hurt(self, one: Fault, symbol: str, kept: list[bytes]) -> tuple[list[bytes], bool]:
        fault, data, rng = one.order.fault, kept[-1], self.faults.rng
        if fault in ("drop", "silent-channel"):
            return [], False
        if fault == "duplicate":
            return [*kept, data], False
        if fault == "junk":
            junk = rng.choice(JUNK)
            return [frame(junk, BINARY if b"\xff" in junk else 0x81), *kept], False
        if fault == "truncate":
            payload = payload_of(data)
            return [*kept[:-1], frame(payload[: rng.randrange(len(payload))])], False
        if fault == "corrupt":
            return [*kept[:-1], frame(_corrupted(payload_of(data), rng))], False
        if fault == "delay":
            self._counter += 1
            for piece in kept:
                heapq.heappush(self._late, (self.faults.now + one.amount, self._counter, symbol, piece))
            return [], True
        self._behind.setdefault(symbol, []).extend((self.faults.now + 0.5, piece) for piece in kept)
        return [], True

    def _due(self) -> list[tuple[str, bytes]]:
        now = self.faults.now
        out = []
        while self._late and (self._late[0][0] <= now or len(self._late) > HELD_AT_MOST):
            _, _, symbol, data = heapq.heappop(self._late)
            out.append((symbol, data))
        for symbol in [symbol for symbol, held in self._behind.items() if held[0][0] <= now]:
            out += [(symbol, piece) for _, piece in self._behind.pop(symbol)]
        return out


def _corrupted(payload: bytes, rng: random.Random) -> bytes:
    hurt = bytearray(payload)
    for _ in range(rng.randint(1, 4)):
        hurt[rng.randrange(len(hurt))] = rng.choice(b"\x00\x01\x02\x07\x08\x0b\x0e\x1b\x1f")
    return bytes(hurt)
