"""A feed handler: the parts of one exchange's process put together, started in order and stopped without loss."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from pathlib import Path
from typing import Any

from k2 import metrics
from k2.config import Config, ConfigError, instruments
from k2.core.exchange import Exchange
from k2.core.session import Decoded, Decoder
from k2.core.types import Fault
from k2.feed.healer import Healer
from k2.feed.line import Line
from k2.feed.meter import Meter
from k2.feed.recorder import Recorder
from k2.feed.rest import Rest
from k2.feed.resume import consumer, resume
from k2.feed.retention import retain
from k2.feed.socket import check_url, tls_context
from k2.feed.writer import Writer
from k2.log import Log

TICK = 0.25  # s
EVERY_SECOND = 4  # ticks
CLOSE_WITHIN = 1.5  # s that the log has to take what is queued when the handler stops
RETAIN_EVERY = 60.0  # s between looks for records that are old enough to go
QUIET = 60.0  # s without a trade after which REST is asked whether there really was none
SAY_FAULTS = 60.0  # s between warnings about what could not be decoded

_log = logging.getLogger("k2.feed")
logging.getLogger("picows").setLevel(logging.WARNING)


class Handler:
    """One exchange: `run` captures until told to stop."""

    def __init__(self, config: Config, exchange: Exchange, log: Log) -> None:
        self.config = config
        self.exchange = exchange
        self.log = log
        section = config.exchange(exchange.name)
        self.ws_url = section.ws_url or exchange.ws_url
        self.rest_url = section.rest_url or exchange.rest_url
        check_url(self.ws_url, "wss", "ws")
        check_url(self.rest_url, "https", "http")
        self.context = tls_context(section.ca_file)
        self.meter = Meter(exchange.name)
        self._file = Path(config.instruments_file)
        self._file_seen: tuple[int, int] | None = None
        self._traded: dict[str, float] = {}
        self._faults: Counter[str] = Counter()
        self._said_faults = -SAY_FAULTS

    async def run(self, stop: asyncio.Event) -> None:
        """Capture until `stop` is set, then write what was received. Raises what ended it, e.g. LogError."""
        asyncio.get_running_loop().set_exception_handler(self._on_loop_error)
        resumed = resume(self.log, self.exchange.name)
        self.sequences = resumed.sequences
        writer = Writer(self.log, consumer(self.exchange.name), resumed.ends)
        decoder = Decoder(self.exchange, self.sequences)
        self.recorder = Recorder(decoder, writer, self.config.feed, self.meter, self._on_decoded)
        self.recorder.note(resumed.amends)
        metrics.QUEUE_BOUND.labels("feed-frames").set(self.config.feed.queue_frames)
        rest = Rest(self.rest_url, self.context, self.config.feed.heal_timeout)
        self.healer = healer = Healer(self.exchange, self.config.feed, self.sequences, self.recorder, rest)
        self.line = Line(self.exchange, self.config.feed, self.ws_url, self.context, self.recorder, self._on_settled)
        self._watch_instruments()
        tasks = [asyncio.ensure_future(part) for part in (self.line.run(), healer.run(), self._tick(), self._retain())]
        stopping = asyncio.ensure_future(stop.wait())
        ends: list[asyncio.Future[Any]] = [*tasks, stopping, self.recorder.failed]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._shut([*tasks, stopping], rest)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        if self.recorder.failed.done():
            raise self.recorder.failed.result()

    async def _shut(self, tasks: list["asyncio.Future[Any]"], rest: Rest) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await rest.close()
        if not await self.recorder.close(CLOSE_WITHIN):
            _log.error("%d frames were not written: the log failed; the next start heals them", self._queued())
        if left := self._queued():
            metrics.DROPS.labels("frames", "log-failed").inc(left)
        self._flush_meter()

    def _flush_meter(self) -> None:
        self.meter.flush(self._queued(), self.recorder.pauses, self.sequences)

    def _queued(self) -> int:
        return len(self.recorder.pending)

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback that raised, such as a recorder's cycle, must end the process and not leave it standing still."""
        loop.default_exception_handler(context)
        error = context.get("exception")
        if isinstance(error, Exception) and "handle" in context:
            self.recorder.fail(error)

    async def _tick(self) -> None:
        ticks = 0
        while True:
            self.line.tick()
            ticks += 1
            if ticks % EVERY_SECOND == 0:
                self._watch_instruments()
                self._say_faults()
                self._suspect_quiet()
                self.recorder.settle()
                self._flush_meter()
                self.healer.measure()
            await asyncio.sleep(TICK)

    def _on_settled(self) -> None:
        """A connection has its subscriptions: what came before them may be the newest there is."""
        self.healer.suspect(self._symbols())

    def _suspect_quiet(self) -> None:
        now = time.monotonic()
        for symbol in self._symbols():
            if now - self._traded.setdefault(symbol, now) >= QUIET:
                self._traded[symbol] = now
                self.healer.suspect([symbol])

    def _symbols(self) -> list[str]:
        return [self.exchange.canonical(native) for native in self.line.natives]

    async def _retain(self) -> None:
        while True:
            await asyncio.sleep(RETAIN_EVERY)
            await asyncio.to_thread(retain, self.log, self.exchange.name, self.config.log, time.time_ns())

    def _on_decoded(self, decoded: Decoded) -> None:
        connections = self.line.connections
        now = asyncio.get_running_loop().time()
        for name in decoded.traded:
            if name in connections:
                connections[name].on_trade(now)
        for name, signal in decoded.signals:
            if name in connections:
                connections[name].on_signal(signal, now)
        if decoded.keys:
            self._traded.update(dict.fromkeys(decoded.keys, time.monotonic()))
        if decoded.gaps:
            self.healer.wake()
        for fault in decoded.faults:
            self._note_fault(fault)

    def _note_fault(self, fault: Fault) -> None:
        self._faults[fault.reason] += 1
        now = time.monotonic()
        if now - self._said_faults >= SAY_FAULTS:
            self._said_faults = now
            _log.warning(
                "%s sent what cannot be understood (%s: %s): %r; it is kept in the raw stream and counted",
                self.exchange.name,
                fault.reason,
                fault.detail,
                fault.payload[:200],
            )
            self._faults.clear()

    def _say_faults(self) -> None:
        if self._faults and time.monotonic() - self._said_faults >= SAY_FAULTS:
            self._said_faults = time.monotonic()
            _log.warning("%s: more that could not be understood: %s", self.exchange.name, dict(self._faults))
            self._faults.clear()

    def _watch_instruments(self) -> None:
        """Read the instruments file when it has changed; what cannot be read changes nothing."""
        try:
            stat = self._file.stat()
            seen = (stat.st_mtime_ns, stat.st_ino)
            if seen == self._file_seen:
                return
            first, self._file_seen = self._file_seen is None, seen
            symbols = instruments(self._file).get(self.exchange.name, ())
        except (ConfigError, OSError) as error:
            if self._file_seen is None:
                raise ConfigError(f"instruments: {error}") from None
            _log.error("the instruments file cannot be read, the symbols stay as they are: %s", error)
            with contextlib.suppress(OSError):
                self._file_seen = (self._file.stat().st_mtime_ns, self._file.stat().st_ino)
            return
        self.meter.forget(set(self._symbols()) - set(symbols))
        self.line.want([self.exchange.native(symbol) for symbol in symbols])
        if not first:
            _log.info("the instruments file has changed: %d symbols of %s", len(symbols), self.exchange.name)
        if not symbols:
            _log.warning("%s lists no symbols of %s: nothing to capture", self._file, self.exchange.name)
