"""The recorder: the bounded queue behind the sockets, the decoder, and cycles of one durable append each.

A cycle takes what has queued up, decodes it in the event loop, and hands raw frames, trades and gap events to the
writer thread; while that waits for the disk, the loop goes on receiving. At most one cycle is under way, and cycles
begin at least `feed.linger_ms` apart, further under load. Order in an append: frames and trades (together or not at
all), then the gap ledger, which `resume` can make good after a crash.

What the append does not need is let go before it begins: memory that is given back where it was used is still in the
cache there, and memory that the writer thread gives back is not.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import time_ns
from typing import Protocol

from k2 import trace
from k2.config import FeedConfig
from k2.core.codec import GAPS_STREAM, encode_frames, encode_gap, frames_stream, trades_stream
from k2.core.session import Decoded, Decoder
from k2.core.types import Event, Frame, Gap
from k2.feed.meter import Batch, Meter
from k2.feed.writer import Done, Job, Writer
from k2.log import Entry

BATCH = 4096  # frames a cycle: some 20 ms of decoding, which is how long the loop does not receive
CROWD = 10  # frames in a cycle that double the time to the next: the busier, the more frames share a durable append
LINGER_CAP = 0.04  # s, unless feed.linger_ms is longer
CHECKPOINT_EVERY = 2.0  # s

_log = logging.getLogger("k2.feed")


class Pausable(Protocol):
    """A source of frames that can be held back."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Recorder:
    """One exchange's. Everything but the append runs in the event loop. `failed` gets the error that ended it."""

    def __init__(
        self,
        decoder: Decoder,
        writer: Writer,
        config: FeedConfig,
        meter: Meter,
        on_decoded: Callable[[Decoded], None],
    ) -> None:
        self.pending: list[Frame] = []
        self.limit = config.queue_frames
        self.armed = False
        self.decoder = decoder
        self.meter = meter
        self.failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self.pauses = 0
        self._loop = asyncio.get_running_loop()
        self._writer = writer
        self._linger = config.linger_ms / 1e3
        self._on_decoded = on_decoded
        name = decoder.exchange.name
        self._frames_stream, self._trades_stream = frames_stream(name), trades_stream(name)
        self._ledger: list[Gap] = []
        self._asked: dict[int, asyncio.Future[list[Event]]] = {}
        self._paused: set[Pausable] = set()
        self._next_cycle = 0.0
        self._next_checkpoint = 0.0
        self._unsaved = False
        self._idle = asyncio.Event()  # something has come to an end: whoever drains looks again

    def arm(self) -> None:
        """Frames or ledger events wait: see to it that a cycle comes. Idempotent."""
        if not self.armed and not self.failed.done():
            self.armed = True
            delay = self._next_cycle - self._loop.time()
            if delay > 0:
                self._loop.call_later(delay, self._cycle)
            else:
                self._loop.call_soon(self._cycle)

    def full(self, source: Pausable) -> None:
        """The queue is at its bound: hold this source back until half of it is written."""
        if source not in self._paused:
            self._paused.add(source)
            source.pause()
            self.pauses += 1
            _log.warning("%d frames wait for the log: reading from the socket is paused", len(self.pending))

    def ask(self, frame: Frame) -> "asyncio.Future[list[Event]]":
        """Record a REST answer like any frame; the future gets its events once they have been decoded in their turn."""
        answer = self._loop.create_future()
        self._asked[id(frame)] = answer
        self.pending.append(frame)
        self.arm()
        return answer

    def note(self, gaps: Sequence[Gap]) -> None:
        """Write events to the gap ledger."""
        if gaps:
            self._ledger.extend(gaps)
            self.arm()

    def save(self) -> None:
        """Have the state checkpointed soon, though no trade has come."""
        self._unsaved = True
        self.arm()

    def fail(self, error: Exception) -> None:
        """End the recording: nothing more is written."""
        if not self.failed.done():
            self.failed.set_result(error)
        self._idle.set()

    async def drained(self) -> None:
        """Wait until everything queued is durable (or the log has failed)."""
        while not self.failed.done() and not (self._writer.settled(self._idle.set) and self._nothing_queued()):
            self._idle.clear()
            await self._idle.wait()

    def _nothing_queued(self) -> bool:
        return not (self.pending or self._ledger or self.armed)

    async def close(self, within: float) -> bool:
        """Write what is queued and a last checkpoint. False: the log did not take it within `within` seconds."""
        self._next_checkpoint = 0.0
        self.save()
        try:
            async with asyncio.timeout(within):
                await self.drained()
        except TimeoutError:
            self._writer.give_up()
            await self.drained()
        await self._writer.close()
        return not self.failed.done()

    def settle(self) -> None:
        """Count what has become durable since the last cycle. Call now and then: without frames no cycle does it."""
        self._writer.settled()

    def _cycle(self) -> None:
        if self.failed.done() or not self._writer.settled(self._cycle):
            return
        self.armed = False
        frames = self.pending
        self._next_cycle = self._loop.time() + min(
            self._linger * (1 + len(frames) / CROWD), max(self._linger, LINGER_CAP)
        )
        if len(frames) > BATCH:
            self.pending = frames[BATCH:]
            del frames[BATCH:]
        else:
            self.pending = []
        decoded = self.decoder.run(frames)
        decoded_ts = time_ns()
        gaps = self._ledger
        self._ledger = []
        gaps.extend(decoded.gaps)
        entries = self._entries(frames, decoded, gaps)
        self._unsaved = self._unsaved or bool(decoded.values or gaps)
        checkpoint = None
        if self._unsaved and self._loop.time() >= self._next_checkpoint:
            checkpoint = {self._trades_stream: self.decoder.sequences.dump(), GAPS_STREAM: b""}
            self._next_checkpoint = self._loop.time() + CHECKPOINT_EVERY
            self._unsaved = False
        batch = self.meter.add_decoded(frames, decoded, gaps, decoded_ts)
        for frame, events in decoded.pages:
            answer = self._asked.pop(id(frame), None)
            if answer is not None and not answer.done():
                answer.set_result(events)
        self._on_decoded(decoded)
        # Last: the thread that this wakes would only wait for the interpreter while the loop runs on.
        self._writer.submit(Job(entries, checkpoint), lambda done: self._written(done, batch))
        if self._paused:
            self._writer.settled(self._idle.set)
        if self.pending or self._ledger:
            self.arm()
        self._idle.set()

    def _entries(self, frames: list[Frame], decoded: Decoded, gaps: list[Gap]) -> list[Entry]:
        entries = []
        if frames:
            entries.append(Entry(self._frames_stream, [""] * len(frames), encode_frames(frames)))
        if decoded.values:
            entries.append(Entry(self._trades_stream, decoded.keys, decoded.values))
        if gaps:
            entries.append(Entry(GAPS_STREAM, [gap.symbol for gap in gaps], [encode_gap(gap) for gap in gaps]))
        return entries

    def _written(self, done: Done, batch: Batch) -> None:
        if done.error is not None:
            self.fail(done.error)
            return
        self.meter.add_durable(batch, done.durable_ts)
        number = batch.live + batch.backfill
        first = self._writer.ends.get(self._trades_stream, 0) - number
        trace.note("logged", self._trades_stream, first, number, batch.decoded_ts, done.durable_ts)
        if self._paused and len(self.pending) <= self.limit // 2:
            for source in self._paused:
                source.resume()
            self._paused.clear()
