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

_NEW, _DUPLICATE = Verdict.NEW, Verdict.DUPLICATE


class Decoded:
    """What a run of frames came to. `keys` and `values` are the trade records, parallel.

    `received` and `behind` belong to the new live trades, in order: receive time, and receive time less exchange time,
    ns; `newest` has each symbol's latest receive time.
    `signals` are the answers and heartbeats with the connection they came on; `pages` are the REST answers' events;
    `traded` names the connections that carried a live trade, new or not.
    """

    __slots__ = (
        "backfilled",
        "behind",
        "duplicates",
        "faults",
        "gaps",
        "keys",
        "newest",
        "pages",
        "received",
        "signals",
        "stale",
        "traded",
        "values",
    )

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.values: list[bytes] = []
        self.received: list[int] = []
        self.behind: list[int] = []
        self.newest: dict[str, int] = {}
        self.backfilled = 0
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
        keys, values, received, behind, newest = out.keys, out.values, out.received, out.behind, out.newest
        decode, observe, encode = self.exchange.decode, self.sequences.observe, encode_trade
        for frame in frames:
            if frame.kind == "sent":
                continue
            events = decode(frame)
            for event in events:
                if type(event) is not Trade:
                    self._other(event, frame, out)
                    continue
                verdict, epoch, gaps = observe(event)
                if verdict is not _NEW:
                    out.duplicates += verdict is _DUPLICATE
                    out.stale += verdict is not _DUPLICATE
                    continue
                keys.append(event.symbol)
                values.append(encode(event if epoch == event.epoch else replace(event, epoch=epoch)))
                if event.source == "live":
                    at = event.recv_ts
                    received.append(at)
                    behind.append(at - event.exchange_ts)
                    newest[event.symbol] = at
                else:
                    out.backfilled += 1
                if gaps:
                    out.gaps.extend(gaps)
            if frame.kind == "rest":
                out.pages.append((frame, events))
            elif events and type(events[-1]) is Trade:
                out.traded.add(frame.connection)
        return out

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
