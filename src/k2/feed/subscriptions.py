"""What one connection has asked for and been told: a state machine without a clock of its own.

Every symbol is asked for in chunks within the venue's limits, and every answer is checked. A symbol that the venue
refuses is reported, and asked for again after seconds, later after minutes, while the others go on. `now` is monotonic
seconds.
"""

from collections import deque
from collections.abc import Iterable

from k2.core.exchange import Exchange
from k2.core.types import Confirmed, Refused

ANSWER_WITHIN = 10.0
SETTLE = 1.0  # after a refusal that names one symbol: time for the answers of its neighbours, then they are asked again
RETRY_FIRST = 5.0  # until a refused symbol is asked for again: it may be about to be listed
RETRY_CAP = 300.0  # the same when it was refused again and again; doubled in between
ATTEMPTS = 2  # unanswered twice: the connection is not worth keeping
PACE = 1.25  # margin on the venue's message rate, which counts our pongs too


class _Request:
    __slots__ = ("active", "attempt", "deadline", "ids", "natives")

    def __init__(self, natives: tuple[str, ...], ids: set[int], active: bool, deadline: float, attempt: int) -> None:
        self.natives = set(natives)
        self.ids = ids
        self.active = active
        self.deadline = deadline
        self.attempt = attempt


class Subscriptions:
    """The subscriptions of one connection. `want` says what should be, `due` gives the messages that lead there."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.wanted: set[str] = set()
        self.confirmed: dict[str, set[str]] = {}  # native symbol -> channels
        self.refused: dict[str, float] = {}  # native symbol -> when to ask again
        self._pauses: dict[str, float] = {}  # native symbol -> how long its latest refusal was respected
        self._asked: set[str] = set()
        self._chunks: deque[tuple[tuple[str, ...], bool, int]] = deque()  # symbols, subscribe or unsubscribe, attempt
        self._requests: list[_Request] = []
        self._outbox: deque[bytes] = deque()
        self._next_id = 1
        self._next_send = 0.0

    def want(self, natives: Iterable[str]) -> None:
        """The complete set of native symbols that this connection should carry."""
        wanted = set(natives)
        gone = sorted(self._asked - wanted)
        self.wanted = wanted
        self.refused = {native: at for native, at in self.refused.items() if native in wanted}
        if gone:
            self._asked.difference_update(gone)
            for request in self._requests:
                if request.active:
                    request.natives.difference_update(gone)
            self._ask(gone, active=False, attempt=1)

    @property
    def settled(self) -> bool:
        """Every wanted symbol has been confirmed or refused."""
        return all(native in self.refused or self.is_active(native) for native in self.wanted)

    @property
    def active(self) -> int:
        """How many symbols the venue has confirmed on every channel."""
        return sum(map(self.is_active, self.wanted))

    def is_active(self, native: str) -> bool:
        return len(self.confirmed.get(native, ())) == len(self.exchange.channels)

    def due(self, now: float) -> list[bytes]:
        """The messages to send now. Call often: pacing and repetition happen here."""
        for native, at in list(self.refused.items()):
            if now >= at:
                del self.refused[native]
        fresh = sorted(self.wanted - self._asked - self.refused.keys())
        if fresh:
            self._ask(fresh, active=True, attempt=1)
        out: list[bytes] = []
        while now >= self._next_send and (self._outbox or self._chunks):
            if not self._outbox:
                self._open_request(*self._chunks.popleft(), now)
            if self._outbox:
                out.append(self._outbox.popleft())
                self._next_send = now + PACE / self.exchange.limits.messages_per_second
        return out

    def _ask(self, natives: list[str], active: bool, attempt: int) -> None:
        if active:
            self._asked.update(natives)
        size = self.exchange.limits.symbols_per_message
        for i in range(0, len(natives), size):
            self._chunks.append((tuple(natives[i : i + size]), active, attempt))

    def _open_request(self, natives: tuple[str, ...], active: bool, attempt: int, now: float) -> None:
        natives = tuple(native for native in natives if (native in self.wanted) == active)
        if not natives:
            return
        build = self.exchange.subscribe if active else self.exchange.unsubscribe
        messages = build(natives, self._next_id)
        ids = set(range(self._next_id, self._next_id + len(messages)))
        self._next_id += len(messages)
        sending = len(messages) * PACE / self.exchange.limits.messages_per_second
        self._requests.append(_Request(natives, ids, active, now + sending + ANSWER_WITHIN, attempt))
        self._outbox.extend(messages)

    def on_confirmed(self, answer: Confirmed) -> None:
        """An answer of the venue that says yes."""
        channels = (answer.channel,) if answer.native_symbols is not None else self.exchange.channels
        named = answer.native_symbols
        if named is None:
            named = self._answered(answer.request_id)
        if answer.whole:
            for native, confirmed in self.confirmed.items():
                if native not in named:
                    confirmed.discard(answer.channel)
                    if not self._is_pending(native):
                        self._asked.discard(native)  # lost: `due` asks again if it is wanted
        for native in named:
            for channel in channels:
                if channel not in self.exchange.channels:
                    continue
                if answer.active:
                    self.confirmed.setdefault(native, set()).add(channel)
                    self.refused.pop(native, None)
                    self._pauses.pop(native, None)
                else:
                    self.confirmed.get(native, set()).discard(channel)
        self._settle_requests()

    def _answered(self, request_id: int | None) -> tuple[str, ...]:
        for request in self._requests:
            if request_id in request.ids:
                request.ids.discard(request_id)
                return () if request.ids else tuple(request.natives)
        return ()

    def _is_pending(self, native: str) -> bool:
        return any(native in request.natives for request in self._requests) or any(
            native in natives for natives, _, _ in self._chunks
        )

    def _settle_requests(self) -> None:
        for request in self._requests:
            if request.active:
                request.natives = {n for n in request.natives if not self.is_active(n) and n not in self.refused}
            else:
                request.natives = {n for n in request.natives if self.confirmed.get(n)}
        self._requests = [request for request in self._requests if request.natives]

    def on_refused(self, answer: Refused, now: float) -> list[tuple[str, str]]:
        """An answer that says no. Returns the (native symbol, reason) that are hereby refused, perhaps none yet."""
        request = self._request_of(answer)
        native = answer.native_symbol
        if native is None:
            if request is None:
                return []
            if len(request.natives) > 1 and request.active:
                self._split(request)
                return []
            self._requests.remove(request)
            natives = sorted(request.natives) if request.active else []
        elif self.is_active(native) or native not in self.wanted:
            return []
        else:
            natives = [native]
            if request is not None:
                request.deadline = min(request.deadline, now + SETTLE)
                request.attempt = 0  # its neighbours are not at fault: asking them again is a first attempt
        for native in natives:
            self._pauses[native] = min(self._pauses.get(native, RETRY_FIRST / 2) * 2, RETRY_CAP)
            self.refused[native] = now + self._pauses[native]
            self._asked.discard(native)
        self._settle_requests()
        return [(native, answer.reason) for native in natives]

    def _request_of(self, answer: Refused) -> _Request | None:
        for request in self._requests:
            if answer.request_id in request.ids or (answer.native_symbol in request.natives and request.active):
                return request
        nameless = answer.native_symbol is None and answer.request_id is None
        return self._requests[0] if nameless and self._requests else None

    def _split(self, request: _Request) -> None:
        self._requests.remove(request)
        natives = sorted(request.natives)
        half = len(natives) // 2
        for part in (natives[:half], natives[half:]):
            self._ask(part, active=True, attempt=1)

    def overdue(self, now: float) -> bool:
        """Ask again for what was not answered in time. True: it was asked often enough, give the connection up."""
        late = [request for request in self._requests if now >= request.deadline]
        for request in late:
            if request.attempt >= ATTEMPTS:
                return True
            self._requests.remove(request)
            self._ask(sorted(request.natives), request.active, request.attempt + 1)
        return False
