"""One venue as it stands: its instruments, their truth on disk, its clock, and who is listening.

`order` makes trades, `flush` writes them down and only then sends them: a trade that was sent is in the truth.
"""

import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from k2 import trace
from k2.metrics import SIM_TRADES
from k2.sim.faults import FRAME_FAULTS, Faults, Shaper
from k2.sim.framing import HEADS, SHORT, frame
from k2.sim.generator import Instrument, VenueClock, reference_price
from k2.sim.truth import Made, Tape, epochs, packed, tape_file
from k2.sim.venues import Client, Venue


class Subscriber(Client, Protocol):
    """A connection as the market sends to it."""

    def deliver(
        self, symbols: list[str], frames: list[bytes], whole: bytes | None, every: frozenset[str]
    ) -> bytes | None:
        """Send the frames of subscribed symbols. `whole` is all of them joined, once some connection has needed it."""

    def beat(self, now: float) -> None:
        """About once a second."""

    def waiting(self) -> int:
        """Bytes that are held for a client that reads too slowly."""


class Market:
    """The book of one venue. `now_ns` is our clock's latest reading, set by the owner before each call."""

    def __init__(self, venue: Venue, faults: Faults, folder: Path, seed: int) -> None:
        self.venue, self.faults, self.folder, self._seed = venue, faults, folder, seed
        self.instruments: list[Instrument] = []
        self.by_native: Mapping[str, Instrument] = {}
        self.clock = VenueClock()
        self.clients: dict[Subscriber, None] = {}
        self.shaper = Shaper(venue.name, faults, self._canonical)
        self.made = 0
        self.sent_frames = 0
        self._counted = 0
        self._time_unit = venue.time_unit
        self.now_ns = 0
        self.every: frozenset[str] = frozenset()
        self._tapes: dict[str, Tape] = {}
        self._symbols: list[str] = []
        self._frames: list[bytes] = []
        self._dirty: list[Instrument] = []

    def add(self, symbol: str) -> Instrument:
        """List a symbol, going on where its newest truth file ends."""
        native = self.venue.native(symbol)
        if native in self.by_native:
            return self.by_native[native]
        rng = random.Random(f"{self._seed}:{self.venue.name}:{symbol}")
        instrument = Instrument(symbol, native, *self.venue.decimals(symbol, reference_price(symbol)), rng)
        known = epochs(self.folder, self.venue.name, symbol)
        instrument.epoch = known[-1] if known else 0
        tape = self._tapes[native] = Tape(self._file(instrument))
        if tape.count:
            newest = tape.row(-1)
            instrument.resume(newest)
        self.venue.prepare(instrument)
        self.instruments.append(instrument)
        self.by_native = {**self.by_native, native: instrument}
        self.every = frozenset(self.by_native)
        return instrument

    def _canonical(self, native: str) -> str:
        instrument = self.by_native.get(native)
        return instrument.symbol if instrument else native

    def _file(self, instrument: Instrument) -> Path:
        return tape_file(self.folder, self.venue.name, instrument.symbol, instrument.epoch)

    def start(self, now_ns: int) -> None:
        """Set the venue's clock going, behind nothing that was traded before."""
        self.now_ns = now_ns
        skew = self.faults.find(self.venue.name, "clock-skew")
        self.clock.skew = int(skew.amount * 1e9) if skew else 0
        self.clock.start(now_ns, max((one.last_ts for one in self.instruments), default=0))

    def order(self, instrument: Instrument, now_ns: int, count: int, word: int) -> None:
        """A taker order at our time `now_ns`: `count` trades, to be sent at the next flush. `word`: 42 random bits."""
        clock, unit = self.clock, self._time_unit
        ts = (now_ns + clock.offset if clock.steady else clock.at(now_ns)) // unit * unit
        ts = max(ts, instrument.last_ts)
        if not instrument.pending:
            self._dirty.append(instrument)
        buy, venue = word & 1, self.venue
        head, tail = venue.moment(ts, buy)
        payloads = venue.bundle(instrument.trade(ts, buy, count, word >> 1, head, tail))
        self.made += count
        native, symbols, frames = instrument.native, self._symbols.append, self._frames.append
        for payload in payloads:
            size = len(payload)
            symbols(native)
            frames(HEADS[size] + payload if size < SHORT else frame(payload))

    def flush(self) -> None:
        """Write the new trades down, then send them. Raises OSError if they cannot be written; then nothing is sent."""
        made = self._made_now() if trace.on() else ()
        for instrument in self._dirty:
            self._tapes[instrument.native].append(packed(instrument.pending))
            instrument.pending.clear()
        self._dirty.clear()
        if self._symbols or self.shaper.pending():
            symbols, frames = self._symbols, self._frames
            self._symbols, self._frames = [], []
            begun = time.time_ns()
            self.send(symbols, frames)
            for name, first, number in made:
                trace.note("sent", name, first, number, begun, time.time_ns())

    def _made_now(self) -> list[tuple[str, int, int]]:
        """What the next flush sends: exchange/symbol/epoch, the first id, and how many."""
        venue = self.venue.name
        return [(f"{venue}/{one.symbol}/{one.epoch}", one.pending[0], len(one.pending) // 5) for one in self._dirty]

    def send(self, symbols: list[str], frames: list[bytes]) -> None:
        """Frames to everybody who subscribed their symbols, as the faults leave them."""
        close = False
        if self.faults.standing or self.shaper.pending():
            if self.faults.standing_for(self.venue.name, FRAME_FAULTS) or self.shaper.pending():
                symbols, frames, close = self.shaper.shape(symbols, frames)
            if self.faults.find(self.venue.name, "silent"):
                self._silent(len(frames))
                frames = []
        if frames:
            self.sent_frames += len(frames)
            whole: bytes | None = None
            for client in list(self.clients):
                whole = client.deliver(symbols, frames, whole, self.every)
        if close:
            self.close_all(1001, "Going away")

    def _silent(self, frames: int) -> None:
        one = self.faults.find(self.venue.name, "silent")
        if one is not None and frames:
            self.faults.count(one)

    def close_all(self, code: int, reason: str) -> None:
        for client in list(self.clients):
            client.close(code, reason)

    def restart_ids(self, instrument: Instrument) -> None:
        """A new epoch of one symbol: its ids begin again at 1, in a truth file of their own."""
        self.flush()
        instrument.restart_ids()
        self._tapes[instrument.native].close()
        self._tapes[instrument.native] = Tape(self._file(instrument))

    def record(self, instrument: Instrument, made: Made) -> bool:
        """Know a trade that was recorded elsewhere. False: it is known already."""
        new = self._tapes[instrument.native].record(made)
        if new:
            self.made += 1
            instrument.last_id = max(instrument.last_id, made.trade_id)
        return new

    def tick(self) -> None:
        """Housekeeping, some times a second: what stands by the clock and not by frames."""
        name = self.venue.name
        skew = self.faults.find(name, "clock-skew")
        wanted = int(skew.amount * 1e9) if skew else 0
        if skew is not None and wanted != self.clock.skew:
            self.faults.count(skew)
        self.clock.turn(wanted)
        self._close_now()
        for one in self.faults.standing_for(name, {"epoch"}):
            for instrument in self.instruments:
                if instrument.last_id > 1000 and self.faults.hit(one, instrument.symbol):
                    self.restart_ids(instrument)
        if self.shaper.pending():
            self.send([], [])

    def _close_now(self) -> None:
        """A certain `close` does not wait for a frame."""
        for one in self.faults.standing_for(self.venue.name, {"close"}):
            if one.order.probability == 1 and one.order.symbol is None and self.clients and self.faults.hit(one, None):
                self.close_all(1001, "Going away")

    def count_trades(self) -> None:
        """Bring the metric up to date."""
        SIM_TRADES.labels(self.venue.name).inc(self.made - self._counted)
        self._counted = self.made

    def close(self) -> None:
        self.close_all(1001, "Going away")
        for tape in self._tapes.values():
            tape.close()

    def now(self) -> int:
        return self.clock.at(self.now_ns)

    def refuses(self, native: str) -> bool:
        return self.faults.strike(self.venue.name, "refuse", self._canonical(native)) is not None

    def latest(self, instrument: Instrument, limit: int) -> list[Made]:
        tape = self._tapes[instrument.native]
        return tape.rows(max(0, tape.count - limit), limit)

    def from_id(self, instrument: Instrument, trade_id: int, limit: int) -> list[Made]:
        tape = self._tapes[instrument.native]
        return self._page(instrument, tape.index_of(trade_id) - self._overlap(instrument), limit)

    def before_id(self, instrument: Instrument, trade_id: int | None, limit: int) -> list[Made]:
        tape = self._tapes[instrument.native]
        index = tape.count if trade_id is None else tape.index_of(trade_id)
        end = min(tape.count, index + self._overlap(instrument))
        return self._page(instrument, end - limit, min(limit, end))

    def after_time(self, instrument: Instrument, exchange_ts: int, limit: int) -> list[Made]:
        tape = self._tapes[instrument.native]
        return self._page(instrument, tape.index_after(exchange_ts) - self._overlap(instrument), limit)

    def _overlap(self, instrument: Instrument) -> int:
        one = self.faults.strike(self.venue.name, "overlap", instrument.symbol)
        return int(one.amount) if one else 0

    def _page(self, instrument: Instrument, start: int, limit: int) -> list[Made]:
        rows = self._tapes[instrument.native].rows(max(0, start), limit)
        empty = self.faults.strike(self.venue.name, "rest-empty", instrument.symbol)
        if empty is None:
            return rows
        first, last = empty.order.first_id, empty.order.last_id
        if first is None and last is None:
            return []
        return [row for row in rows if not (first or 0) <= row.trade_id <= (last if last is not None else row.trade_id)]
