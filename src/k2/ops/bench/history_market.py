"""Days of three exchanges' trades, straight into a log: what feed handlers would have left there, only sooner.

With them comes what makes real days hard: runs of ids that arrive slices later (after the end of their day, too), ids
that never arrive, trades that arrive again, a counter that a venue restarts, all with events in the gap ledger; and
some raw frames. What cold has to hold in the end is added up while it is made, by nothing that the platform uses.
"""

import random
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from k2.config import instruments
from k2.core.codec import GAPS_STREAM, encode_frames, encode_gap, frames_stream, trades_stream
from k2.core.types import Frame, Gap, GapState
from k2.log import Entry, Log
from k2.ops.bench.history_truth import ID_MARKS, Counted, Frames, Truth
from k2.sim.generator import LEVELS, Instrument, reference_price
from k2.sim.venues import Venue, printed
from k2.sim.venues.binance import Binance
from k2.sim.venues.coinbase import Coinbase
from k2.sim.venues.kraken import Kraken

VENUES: tuple[tuple[type[Venue], int], ...] = ((Binance, 5), (Coinbase, 3), (Kraken, 2))  # and shares of the trades
MIDNIGHT_NS = 1_767_312_000_000_000_000  # 2026-01-02 UTC
SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS
APPENDED_AT_ONCE = 4_000
FRAME_EVERY = 500  # trades
HOLE_EVERY = 4_000  # trades, about; a hole is HOLE_IDS / 2 ids wide on average
HOLE_IDS = 64
LOST_HOLES = 8  # one hole of a venue in so many is never filled
AGAIN_EVERY = 250  # trades, about
REMEMBERED = 2_000  # earlier records of a venue that may be logged again
_PICKS = 4096
_PRINTED_AT_LEAST = {Binance.name: 8}


class Symbol:
    """One counter of a venue: its prices and quantities as the venue prints them, and what it made."""

    def __init__(self, venue: Venue, symbol: str, rng: random.Random) -> None:
        native = venue.native(symbol)
        made = Instrument(symbol, native, *venue.decimals(symbol, reference_price(symbol)), rng)
        places = _PRINTED_AT_LEAST.get(venue.name, 0)
        self.symbol, self.weight, self.last_id = symbol, made.weight, made.last_id
        self.head = b'{"exchange":"%b","symbol":"%b","native_symbol":"%b","trade_id":' % (
            venue.name.encode(), symbol.encode(), native.encode(),
        )  # fmt: skip
        self.prices = printed(made.levels, made.price_decimals, places)
        self.quantities = printed(made.sizes, made.quantity_decimals, places)
        self.price_units, self.quantity_units = made.levels, made.sizes
        self.scales = (made.price_decimals, made.quantity_decimals)
        self.level = LEVELS // 2
        self.to_hold = 0
        self.held: list[tuple[int, bytes]] = []
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """The venue counts anew, from 1 (but for the first epoch, which began long ago)."""
        self.epoch = epoch
        self.last_id = 0 if epoch else self.last_id
        tail = b',"epoch":%d}' % epoch if epoch else b"}"
        self.body = self.head + b'%d,"price":"%b","quantity":"%b","side":"%b","exchange_ts":%d'
        self.tail = b',"recv_ts":%d,"source":"%b"' + tail
        self.live = self.body + b',"recv_ts":%d,"source":"live"' + tail
        self.counted = Counted(*self.scales)


class Delivery:
    """Trades of one symbol that are late: they are logged in the slice `due`, and that heals their gap."""

    def __init__(self, due: int, symbol: Symbol) -> None:
        self.due, self.symbol, self.epoch = due, symbol, symbol.epoch
        self.tail, self.counted, self.held = symbol.tail, symbol.counted, symbol.held
        self.opened: Gap | None = None

    @property
    def ids(self) -> tuple[int, int]:
        return self.held[0][0], self.held[-1][0]


class Exchange:
    """One venue's side of the history."""

    def __init__(self, venue: Venue, symbols: Sequence[str], truth: Truth, seed: int) -> None:
        self.name, self.unit = venue.name, venue.time_unit
        self.symbols = [Symbol(venue, name, random.Random(f"{seed}:{venue.name}:{name}")) for name in symbols]
        self._rng = random.Random(f"{seed}:{venue.name}")
        self._truth = truth
        self._picks = self._rng.choices(self.symbols, [one.weight for one in self.symbols], k=_PICKS)
        steps = [round(self._rng.gauss(0, 2)) for _ in range(128)]
        self._steps = steps + [-step for step in steps]
        self._deliveries: list[Delivery] = []
        self._holes = 0
        self._remembered: list[tuple[str, bytes]] = []
        for one in self.symbols:
            truth.counters[self.name, one.symbol, 0] = one.counted
        truth.frames[self.name] = Frames()

    def starts(self, at: int) -> list[Gap]:
        """The ledger's first events: what the capture begins with."""
        return [
            self._gap(one.symbol, 0, (one.last_id + 1, one.last_id + 1), "start", "capture begins", at)
            for one in self.symbols
        ]

    def make(
        self, slice_: int, slices: int, day: int, begin: int, end: int, count: int
    ) -> tuple[list[str], list[bytes], list[Gap]]:
        """One slice's new trades, then what is late or comes again. `day`: slices of one."""
        gaps = [] if slice_ + 1 == slices else self._open_holes(slice_, slices, day, begin, count)
        if slice_ == slices // 2:
            gaps.append(self._restart(begin))
        keys, values = self._trade(begin, end, count)
        self._repeat(keys, values, count, end)
        gaps += self._deliver(keys, values, slice_, last=slice_ + 1 == slices, at=end)
        return keys, values, gaps

    def frames(self, values: Sequence[bytes], at: int) -> list[bytes]:
        """A few frames, such as these records may have come in."""
        made = [Frame(at + n, "ws", f"c{n & 3}", "", value[1:]) for n, value in enumerate(values[::FRAME_EVERY])]
        self._truth.frames[self.name].add(made)
        return encode_frames(made)

    def _trade(self, begin: int, end: int, count: int) -> tuple[list[str], list[bytes]]:
        keys: list[str] = []
        values: list[bytes] = []
        key, put, picks, steps, unit = keys.append, values.append, self._picks, self._steps, self.unit
        words = array("Q", self._rng.randbytes(8 * count))
        interval = (end - begin) // max(1, count)
        one, at, side, buy = picks[0], begin, b"sell", 0
        for number, word in enumerate(words):
            if word & 3 or not number:  # else it belongs to the same taker order
                one = picks[word >> 2 & 4095]
                at = (begin + number * interval + (word >> 58) * interval // 64) // unit * unit
                buy = word >> 14 & 1
                side = b"buy" if buy else b"sell"
            level = one.level + steps[word >> 15 & 255]
            if 0 <= level < LEVELS:
                one.level = level
            else:
                level = one.level
            size = word >> 23 & 4095
            one.last_id = trade_id = one.last_id + 1
            price, counted = one.price_units[level], one.counted
            counted.trades += 1
            counted.ids += trade_id
            counted.price += price
            counted.marked_price += price * (trade_id % ID_MARKS)
            counted.quantity += one.quantity_units[size]
            counted.exchange_ts += at
            counted.buys += buy
            if one.to_hold:
                one.to_hold -= 1
                one.held.append((trade_id, one.body % (trade_id, one.prices[level], one.quantities[size], side, at)))
                continue
            recv = at + 800_000 + (word >> 40)
            counted.recv_ts += recv
            key(one.symbol)
            put(one.live % (trade_id, one.prices[level], one.quantities[size], side, at, recv))
        return keys, values

    # -- what makes it hard --------------------------------------------------------------------------------------------

    def _open_holes(self, slice_: int, slices: int, day: int, at: int, count: int) -> list[Gap]:
        gaps = []
        for _ in range(max(1, count // HOLE_EVERY)):
            one = self._rng.choice(self.symbols)
            if one.to_hold or one.held:
                continue
            wide = self._rng.randint(1, HOLE_IDS)
            self._holes += 1
            if self._holes % LOST_HOLES != 3:
                one.to_hold = wide
                due = min(slices - 1, slice_ + self._rng.choice((1, 2, 8, day)))
                self._deliveries.append(Delivery(due, one))
            else:
                first, one.last_id = one.last_id + 1, one.last_id + wide
                gaps.append(self._gap(one.symbol, one.epoch, (first, one.last_id), "open", "", at))
                why = "the venue does not have them"
                gaps.append(self._gap(one.symbol, one.epoch, (first, one.last_id), "unavailable", why, at))
                self._truth.lost += wide
        return gaps

    def _restart(self, at: int) -> Gap:
        """The venue counts one quiet symbol's trades anew."""
        one = next(symbol for symbol in reversed(self.symbols) if not symbol.to_hold)
        one.begin_epoch(1)
        self._truth.counters[self.name, one.symbol, 1] = one.counted
        return self._gap(one.symbol, 1, (1, 1), "epoch", "the venue restarted its trade ids", at)

    def _deliver(self, keys: list[str], values: list[bytes], slice_: int, last: bool, at: int) -> list[Gap]:
        """Log the late trades that are due, and heal their gaps; in the last slice all of them."""
        gaps, waiting = [], []
        for one in self._deliveries:
            symbol, name = one.symbol, one.symbol.symbol
            if last:
                symbol.to_hold = 0
            if one.held and not symbol.to_hold and not one.opened:
                one.opened = self._gap(name, one.epoch, one.ids, "open", "", at)
                gaps.append(one.opened)
            if not last and (symbol.to_hold or one.due > slice_):
                waiting.append(one)
                continue
            keys += [name] * len(one.held)
            values += [body + one.tail % (at, b"backfill") for _, body in one.held]
            one.counted.recv_ts += at * len(one.held)
            one.counted.backfilled += len(one.held)
            self._truth.late += len(one.held)
            if one.opened:
                gaps.append(msgspec.structs.replace(one.opened, state="healed", event_ts=at, missing=()))
            symbol.held = []
        self._deliveries = waiting
        return gaps

    def _repeat(self, keys: list[str], values: list[bytes], count: int, at: int) -> None:
        """Log some trades again, of this slice and of earlier ones, received at another time or by another way."""
        again = self._rng.choices(range(len(values)), k=count // AGAIN_EVERY) if values else []
        fresh = [(keys[number], values[number]) for number in again]
        old = self._rng.choices(self._remembered, k=count // AGAIN_EVERY) if self._remembered else []
        for number, (key, value) in enumerate(fresh + old):
            cut = value.rindex(b',"recv_ts":')
            source = value.rindex(b',"source":"')
            other = value[source:] if number & 1 else value[source:].replace(b'"live"', b'"backfill"')
            keys.append(key)
            values.append(value[:cut] + b',"recv_ts":%d' % at + other)
        self._truth.again += len(fresh) + len(old)
        self._remembered += fresh
        if len(self._remembered) > REMEMBERED:
            self._remembered = self._rng.sample(self._remembered, REMEMBERED // 2)

    def _gap(self, symbol: str, epoch: int, ids: tuple[int, int], state: GapState, reason: str, at: int) -> Gap:
        missing = (ids,) if state in ("open", "unavailable") else ()
        return Gap(self.name, symbol, *ids, state, reason, at, at, missing, epoch)


class History:
    """The whole history, slice by slice: `append` logs one."""

    def __init__(self, trades: int, hours: float, slice_minutes: float, seed: int, listed: Path) -> None:
        """`trades` in so many hours, of which a sixteenth lies before the first midnight."""
        self.slices = max(1, round(hours * 60 / slice_minutes))
        self.trades = trades
        self.truth = Truth()
        self._width = int(hours * 3600 * SECOND_NS) // self.slices
        self.begin = MIDNIGHT_NS - int(hours * 3600 * SECOND_NS) // 16
        self._slices_a_day = max(1, DAY_NS // self._width)
        symbols = instruments(listed)
        self._exchanges = [
            (Exchange(venue(), symbols[venue.name], self.truth, seed), share)
            for venue, share in VENUES
            if symbols.get(venue.name)
        ]

    def append(self, log: Log, slice_: int) -> int:
        """Log slice number `slice_`; the slices are to be logged in order. Returns the number of records."""
        begin = self.begin + slice_ * self._width
        end = begin + self._width
        shares = sum(share for _, share in self._exchanges)
        due, before = (self.trades * (slice_ + n) // self.slices for n in (1, 0))
        done = records = reached = 0
        for exchange, share in self._exchanges:
            reached += share
            count = (due - before) * reached // shares - done
            done += count
            gaps = exchange.starts(begin) if not slice_ else []
            keys, values, more = exchange.make(slice_, self.slices, self._slices_a_day, begin, end, count)
            gaps += more
            for entries in _appends(exchange, keys, values, gaps, end):
                log.append(entries)
            self.truth.gaps += len(gaps)
            records += len(values) + len(gaps)
        return records


def _appends(
    exchange: Exchange, keys: Sequence[str], values: Sequence[bytes], gaps: Sequence[Gap], at: int
) -> Iterator[list[Entry]]:
    """Commits such as a feed handler's, only larger."""
    frames = exchange.frames(values, at)
    if frames:
        yield [Entry(frames_stream(exchange.name), [""] * len(frames), frames)]
    for first in range(0, len(values), APPENDED_AT_ONCE):
        part = slice(first, first + APPENDED_AT_ONCE)
        yield [Entry(trades_stream(exchange.name), keys[part], values[part])]
    if gaps:
        yield [Entry(GAPS_STREAM, [gap.symbol for gap in gaps], [encode_gap(gap) for gap in gaps])]
