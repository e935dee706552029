"""Replay: decode the raw stream again from its beginning and compare with the trade stream, byte for byte.

Where retention has dropped the beginning of the raw stream, the comparison begins at the first retained live trade that
the trade stream holds too; the trades before it are taken as known, as they were when that frame arrived.
"""

from collections.abc import Iterator
from typing import NamedTuple

from k2.core.codec import decode_frame, decode_trade, frames_stream, trades_stream
from k2.core.exchange import Exchange
from k2.core.sequence import Sequences
from k2.core.session import Decoder
from k2.core.types import Frame, Trade
from k2.log import Log

SHOWN = 10  # differences that are kept


class Difference(NamedTuple):
    """At `offset` of the trade stream: what is recorded and what replay gives; None: nothing there."""

    offset: int
    recorded: bytes | None
    replayed: bytes | None


class Replayed(NamedTuple):
    """`frames` gave `trades`, compared from `first_offset` of the trade stream on. `note` says what was not."""

    frames: int
    trades: int
    first_offset: int
    different: int
    differences: list[Difference]
    note: str


class _Comparison:
    """Replayed records, in order, against the trade stream from an offset on."""

    def __init__(self, log: Log, stream: str, offset: int, end: int) -> None:
        self.offset = offset
        self.count = 0
        self.different = 0
        self.differences: list[Difference] = []
        self._recorded = _records(log, stream, offset, end)

    def feed(self, replayed: list[bytes]) -> None:
        for value in replayed:
            recorded = next(self._recorded, None)
            self.count += 1
            if recorded != value:
                self._note(recorded, value)
            self.offset += 1

    def finish(self) -> None:
        """What is recorded beyond the last replayed trade came from no frame."""
        for recorded in self._recorded:
            self._note(recorded, None)
            self.offset += 1

    def _note(self, recorded: bytes | None, replayed: bytes | None) -> None:
        self.different += 1
        if len(self.differences) < SHOWN:
            self.differences.append(Difference(self.offset, recorded, replayed))


def replay(log: Log, exchange: Exchange, first: int | None = None, end: int | None = None) -> Replayed:
    """Decode the frames `first`..`end` (offsets of the raw stream, `end` exclusive; None: all that is retained).

    The handler may run meanwhile: what both streams hold at the start is compared. Raises LogError.
    """
    raw, stream = frames_stream(exchange.name), trades_stream(exchange.name)
    trades_start, trades_end = log.bounds(stream)
    start, raw_end = log.bounds(raw)  # after the trades: every recorded trade's frame is in
    first, last = max(first or 0, start), min(raw_end if end is None else end, raw_end)
    whole = last == raw_end
    frames = (decode_frame(value) for value in _records(log, raw, first, last))
    sequences = Sequences(exchange.name)
    offset, note = trades_start, ""
    if first > 0 or trades_start > 0:
        anchor = _anchor(log, exchange, raw, first, last)
        if anchor is None:
            return Replayed(0, 0, trades_end, 0, [], "nothing to compare: no trade of these frames is retained")
        skip, offset = anchor
        for value in _records(log, stream, trades_start, offset):
            sequences.observe(decode_trade(value))
        for _ in range(skip):
            next(frames)
        note = (
            f"compared from frame {first + skip} and trade {offset} on: earlier ones are not retained or not asked for"
        )
    decoder = Decoder(exchange, sequences)
    compare = _Comparison(log, stream, offset, trades_end)
    count = 0
    for chunk in _chunks(frames, 4096):
        compare.feed(_cut(decoder.run(chunk).values, trades_end - compare.offset))
        count += len(chunk)
    if whole:
        compare.finish()
    return Replayed(count, compare.count, offset, compare.different, compare.differences, note)


def _cut(values: list[bytes], room: int) -> list[bytes]:
    """Trades whose frames arrived after the comparison began have no counterpart yet."""
    return values[: max(room, 0)]


def _anchor(log: Log, exchange: Exchange, raw: str, first: int, last: int) -> tuple[int, int] | None:
    """(frames to skip, trade offset) of the first live trade in the frames that the trade stream holds too."""
    recorded = {}
    stream = trades_stream(exchange.name)
    start, end = log.bounds(stream)
    oldest: int | None = None
    for i, value in enumerate(_records(log, raw, first, last)):
        frame = decode_frame(value)
        if frame.kind != "ws":
            continue
        trades = [event for event in exchange.decode(frame) if isinstance(event, Trade)]
        if not trades:
            continue
        if oldest is None:
            oldest = frame.recv_ts
            recorded = _offsets_since(log, stream, start, end, oldest)
        for trade in trades:
            at = recorded.get((trade.symbol, trade.trade_id, trade.recv_ts))
            if at is not None:
                return i, at
    return None


def _offsets_since(log: Log, stream: str, start: int, end: int, recv_ts: int) -> dict[tuple[str, int, int], int]:
    """Offsets of the live trades received at `recv_ts` or up to a minute later."""
    found = {}
    for offset, value in enumerate(_records(log, stream, start, end), start):
        trade = decode_trade(value)
        if trade.source == "live" and trade.recv_ts >= recv_ts:
            found[trade.symbol, trade.trade_id, trade.recv_ts] = offset
            if trade.recv_ts > recv_ts + 60_000_000_000:
                break
    return found


def _records(log: Log, stream: str, offset: int, end: int) -> Iterator[bytes]:
    while offset < end:
        batches = log.read(stream, offset)
        if not batches:
            return
        for batch in batches:
            yield from batch.values[: max(0, end - batch.offset)]
        offset = batches[-1].end


def _chunks(frames: Iterator[Frame], size: int) -> Iterator[list[Frame]]:
    chunk = []
    for frame in frames:
        chunk.append(frame)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
