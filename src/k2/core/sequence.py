"""What the dense trade ids of one exchange prove: which trade is new, which ids are missing, which counter restarted.

The feed puts every decoded trade through `Sequences.observe` in the order of its frames, and again, after a crash, the
trades that its log holds past the last checkpoint. Verdict and epoch of a trade depend on the trades observed before it
and on nothing else (no clock, no heartbeat), so the state rebuilt from the trade stream judges as the lost one would
have, and a replay of the frames gives the same trades. Gap events depend on heartbeats too; `adopt` brings those back.
"""

import msgspec

from k2.core.counter import Counter, CounterState, Observation, Verdict, first_state
from k2.core.types import Gap, GapState, Hole, Trade

__all__ = ["Observation", "Sequences", "Verdict"]

_encode = msgspec.json.Encoder().encode
_decode_states = msgspec.json.Decoder(list[CounterState]).decode


class Sequences:
    """Every symbol's sequence at one exchange. `by_symbol` is for looking one up; `observe` alone adds to it."""

    def __init__(self, exchange: str) -> None:
        self.exchange = exchange
        self.by_symbol: dict[str, Counter] = {}

    @classmethod
    def load(cls, exchange: str, checkpoint: bytes) -> "Sequences":
        """From what `dump` gave (empty: nothing seen yet). Raises ValueError if it is something else."""
        sequences = cls(exchange)
        try:
            states = _decode_states(checkpoint) if checkpoint else []
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a checkpoint of {exchange}'s trade ids: {error}") from error
        for state in states:
            sequences.by_symbol[state.symbol] = Counter(exchange, state)
        return sequences

    def dump(self) -> bytes:
        """The whole state as JSON, a few hundred bytes a symbol."""
        return _encode([sequence.state() for sequence in self.by_symbol.values()])

    def observe(self, trade: Trade) -> Observation:
        """Judge one trade (fresh from the decoder, or read back from the trade stream).

        A symbol's first trade starts it (a `start` event). A live trade that fills no gap, whose id is more than a
        thousand below the newest one and whose time is more than a second after the youngest one, begins a new epoch:
        what was missing in the old one becomes `unavailable`, and an `epoch` event is given.
        """
        sequence = self.by_symbol.get(trade.symbol)
        if sequence is not None:
            return sequence.observe(trade)
        sequence = Counter(self.exchange, first_state(trade, trade.epoch))
        self.by_symbol[trade.symbol] = sequence
        return Observation(Verdict.NEW, sequence.epoch, (sequence.start_event(),))

    def observe_last(self, symbol: str, last_id: int, recv_ts: int) -> tuple[Gap, ...]:
        """A heartbeat says that trade `last_id` exists: if it was not seen, a gap opens at the end of the sequence.

        Says nothing for a symbol of which no trade was seen yet: its capture has not started.
        """
        sequence = self.by_symbol.get(symbol)
        return sequence.observe_last(last_id, recv_ts) if sequence is not None else ()

    def unavailable(self, hole: Hole, reason: str, now_ns: int) -> Gap | None:
        """Give a hole (of `holes`) up: the event to write. None: it healed meanwhile, or its epoch is over.

        Trades that arrive later are still taken, and the last of them makes the gap `healed`.
        """
        sequence = self.by_symbol.get(hole.symbol)
        return sequence.unavailable(hole, reason, now_ns) if sequence is not None else None

    def holes(self, *, given_up: bool = False) -> list[Hole]:
        """What is missing, one hole a gap, longest known first. `given_up` True: the `unavailable` ones instead."""
        state: GapState = "unavailable" if given_up else "open"
        found = [
            (gap.detected_ts, sequence.hole(gap))
            for sequence in self.by_symbol.values()
            for gap in sequence.missing
            if gap.state == state
        ]
        return [hole for _, hole in sorted(found)]

    def following(self, symbol: str) -> Hole | None:
        """The id after the newest one known: nothing says that it exists, but REST may be asked. None: nothing seen."""
        sequence = self.by_symbol.get(symbol)
        return sequence.following() if sequence is not None else None

    def missing(self, hole: Hole) -> list[tuple[int, int]]:
        """The ranges of a hole that are still missing. Empty: healed, or its epoch is over."""
        sequence = self.by_symbol.get(hole.symbol)
        if sequence is None or sequence.epoch != hole.epoch:
            return []
        return sequence.holes(hole.first_id, hole.last_id)

    def adopt(self, gap: Gap) -> tuple[Gap, ...]:
        """On start, after the trade stream was observed: take over a gap whose latest ledger event is `open` or
        `unavailable`. Returns the events that bring the ledger up to date with what the trades prove.

        A crash may lose what a heartbeat announced (heartbeats are not trades), and a `healed` event.
        """
        sequence = self.by_symbol.get(gap.symbol)
        return sequence.adopt(gap) if sequence is not None else ()

    def ledger(self) -> list[Gap]:
        """Every start, epoch and unhealed gap as its last event said it: writing them again changes nothing."""
        events = []
        for sequence in self.by_symbol.values():
            events.append(sequence.start_event())
            events += [sequence.event(gap) for gap in sequence.missing]
        return events

    def last_id(self, symbol: str) -> int | None:
        """The highest trade id seen of a symbol, in its current epoch."""
        sequence = self.by_symbol.get(symbol)
        return sequence.last_id if sequence is not None else None

    def epoch(self, symbol: str) -> int:
        """The epoch that a symbol's trades are in."""
        sequence = self.by_symbol.get(symbol)
        return sequence.epoch if sequence is not None else 0
