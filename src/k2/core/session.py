"""From frames, in order, to what is written: the trade records, the gap events, and what the venue said besides.

Live recording and replay run the same `Decoder`, so that decoding the raw stream again gives the same bytes. It looks
at nothing but the frames and its own `Sequences`.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from k2.core.codec import encode_trade
from k2.core.exchange import Exchange
from k2.core.sequence import Sequences, Verdict
from k2.core.types import Confirmed, Event, Fault, Frame, Gap, Heartbeat, Refused, Trade


class Decoded:
    """What a run of frames came to. `keys` and `values` are the trade records, parallel; `fresh` the trades in them.

    `gaps` are the events to write to the ledger, after the trades. `signals` are the answers and heartbeats with the
    connection they came on; `pages` are the REST answers' events; `traded` names the connections that carried a live
    trade, new or not.
    """

    __slots__ = ("duplicates", "faults", "fresh", "gaps", "keys", "pages", "signals", "stale", "traded", "values")

    def __init__(self) -> None:
        self.fresh: list[Trade] = []
        self.keys: list[str] = []
        self.values: list[bytes] = []
        self.duplicates = 0
        self.stale = 0
        self.gaps: list[Gap] = []
        self.faults: list[Fault] = []
        self.signals: list[tuple[str, Heartbeat | Confirmed | Refused]] = []
        self.pages: list[tuple[Frame, list[Event]]] = []
        self.traded: set[str] = set()


class Decoder:
    """One exchange's frames become records; `sequences` remembers what was seen."""

    def __init__(self, exchange: Exchange, sequences: Sequences) -> None:
        self.exchange = exchange
        self.sequences = sequences

    def run(self, frames: Iterable[Frame]) -> Decoded:
        """Decode these frames, which follow the ones before. Frames that we sent say nothing. Never raises."""
        out = Decoded()
        keep, decode, counter_of = out.fresh.append, self.exchange.decode, self.sequences.by_symbol.get
        carrier = ""
        for frame in frames:
            kind = frame.kind
            if kind == "sent":
                continue
            events = decode(frame)
            for event in events:
                if type(event) is not Trade:
                    self._other(event, frame, out)
                    continue
                counter = counter_of(event.symbol)
                if counter is not None and not counter.epoch and counter.follows(event.trade_id, event.exchange_ts):
                    keep(event)
                else:
                    self._judge(event, out)
            if kind == "rest":
                out.pages.append((frame, events))
            elif frame.connection is not carrier and events and type(events[-1]) is Trade:
                carrier = frame.connection
                out.traded.add(carrier)
        out.keys = [trade.symbol for trade in out.fresh]
        out.values = [encode_trade(trade) for trade in out.fresh]
        return out

    def _judge(self, trade: Trade, out: Decoded) -> None:
        verdict, epoch, gaps = self.sequences.observe(trade)
        if verdict is Verdict.NEW:
            out.fresh.append(replace(trade, epoch=epoch) if epoch else trade)
            out.gaps.extend(gaps)
        elif verdict is Verdict.DUPLICATE:
            out.duplicates += 1
        else:
            out.stale += 1

    def _other(self, event: Event, frame: Frame, out: Decoded) -> None:
        if isinstance(event, Fault):
            out.faults.append(event)
        elif isinstance(event, Heartbeat | Confirmed | Refused):
            out.signals.append((frame.connection, event))
            if isinstance(event, Heartbeat) and event.native_symbol is not None and event.last_trade_id is not None:
                out.gaps.extend(self._announced(event.native_symbol, event.last_trade_id, frame.recv_ts))

    def _announced(self, native_symbol: str, last_id: int, recv_ts: int) -> Iterable[Gap]:
        try:
            symbol = self.exchange.canonical(native_symbol)
        except ValueError:
            return ()
        return self.sequences.observe_last(symbol, last_id, recv_ts)
