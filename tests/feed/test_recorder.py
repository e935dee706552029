"""The recorder over a log that hesitates, fills up and fails."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence

import pytest
from feed_kit import eventually, frame, gaps, page_frame, records, trade_frame, trades
from tests.patience import PATIENCE_S

from k2.config import FeedConfig
from k2.core.codec import GAPS_STREAM, decode_frame
from k2.core.sequence import Sequences
from k2.core.session import Decoder
from k2.core.types import Frame
from k2.exchanges import venue
from k2.feed import writer as writer_module
from k2.feed.meter import Meter
from k2.feed.recorder import Recorder
from k2.feed.writer import Writer
from k2.log import Entry, LogError, LogFull
from k2.log.memory import MemoryLog

TRADES = "market.crypto.trades.binance"


class TestLog(MemoryLog):
    """A log in memory whose appends wait for `gate` and raise what `refusals` holds."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.refusals: list[LogError] = []
        self.appended: list[list[str]] = []

    def append(self, entries: Sequence[Entry]) -> Mapping[str, int]:
        self.gate.wait(PATIENCE_S)
        if self.refusals:
            raise self.refusals.pop(0)
        self.appended.append([entry.stream for entry in entries])
        return super().append(entries)


class Source:
    """A socket that is only paused and resumed."""

    def __init__(self) -> None:
        self.paused = False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


def recording(log: MemoryLog, limit: int = 1000) -> Recorder:
    ends = dict.fromkeys((TRADES, TRADES + ".raw", GAPS_STREAM), 0)
    decoder = Decoder(venue("binance"), Sequences("binance"))
    config = FeedConfig(linger_ms=1.0, queue_frames=limit)
    return Recorder(decoder, Writer(log, "test", ends), config, Meter("binance"), lambda decoded: None)


def put(recorder: Recorder, *frames: Frame) -> None:
    recorder.pending.extend(frames)
    recorder.arm()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await test()

    asyncio.run(bounded())


def test_frames_trades_and_ledger_go_in_one_append_in_this_order() -> None:
    log = TestLog()

    async def test() -> None:
        recorder = recording(log)
        put(recorder, trade_frame(1), frame(b"junk"), trade_frame(3), trade_frame(3))
        assert await recorder.close(5)

    run(test)
    assert log.appended[0] == [TRADES + ".raw", TRADES, GAPS_STREAM]
    assert [decode_frame(value).payload for value in records(log, TRADES + ".raw")][1] == b"junk"
    assert len(records(log, TRADES + ".raw")) == 4
    assert [trade.trade_id for trade in trades(log)] == [1, 3]
    assert [gap.state for gap in gaps(log)] == ["start", "open"]


def test_the_checkpoint_is_what_the_log_holds() -> None:
    log = TestLog()

    async def test() -> None:
        recorder = recording(log)
        put(recorder, trade_frame(1), trade_frame(2), trade_frame(9))
        await recorder.close(5)

    run(test)
    committed = log.committed("test")
    assert committed[TRADES].offset == 3
    assert committed[GAPS_STREAM].offset == 2
    assert Sequences.load("binance", committed[TRADES].metadata).last_id("BTC-USDT") == 9


def test_at_its_bound_the_queue_pauses_the_source_and_resumes_it_when_there_is_room() -> None:
    log = TestLog()

    async def test() -> None:
        recorder = recording(log, limit=10)
        source = Source()
        log.gate.clear()
        put(recorder, trade_frame(1))
        await asyncio.sleep(0.02)  # that one is on its way into the log, which hesitates
        put(recorder, *(trade_frame(n) for n in range(2, 12)))
        recorder.full(source)
        recorder.full(source)
        assert source.paused
        assert recorder.pauses == 1
        log.gate.set()
        await eventually(lambda: not source.paused)
        await recorder.close(5)

    run(test)
    assert [trade.trade_id for trade in trades(log)] == list(range(1, 12))


def test_what_is_durable_is_counted_when_the_loop_asks_and_not_before() -> None:
    log = TestLog()

    async def test() -> None:
        recorder = recording(log)
        put(recorder, trade_frame(1))
        await eventually(lambda: len(trades(log)) == 1)
        await asyncio.sleep(0.02)
        assert recorder.meter.live == 0, "nobody woke the loop for it"
        recorder.settle()
        assert recorder.meter.live == 1
        await recorder.close(5)

    run(test)


def test_frames_that_come_during_an_append_are_written_as_soon_as_it_ends() -> None:
    log = TestLog()

    async def test() -> None:
        recorder = recording(log)
        log.gate.clear()
        put(recorder, trade_frame(1))
        await eventually(lambda: not recorder.pending)
        put(recorder, trade_frame(2))
        await asyncio.sleep(0.02)  # its cycle is due, and finds the first append under way
        assert len(recorder.pending) == 1
        log.gate.set()
        await eventually(lambda: len(trades(log)) == 2)
        assert recorder.meter.live == 1, "the second is durable, and not yet handed back"
        assert await recorder.close(5)
        assert recorder.meter.live == 2

    run(test)


def test_a_full_log_is_tried_again_until_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "RETRY_FULL", 0.01)
    log = TestLog()
    log.refusals = [LogFull("no room") for _ in range(3)]

    async def test() -> None:
        recorder = recording(log)
        put(recorder, trade_frame(1))
        await asyncio.sleep(0.005)
        put(recorder, trade_frame(2))
        assert await recorder.close(5)

    run(test)
    assert [trade.trade_id for trade in trades(log)] == [1, 2]


def test_a_log_that_stays_full_does_not_keep_the_handler_from_stopping() -> None:
    log = TestLog()
    log.refusals = [LogFull("no room")] * 100

    async def test() -> None:
        recorder = recording(log)
        put(recorder, trade_frame(1))
        assert not await recorder.close(0.05)
        assert isinstance(recorder.failed.result(), LogFull)

    run(test)
    assert trades(log) == []


def test_a_broken_log_is_reported() -> None:
    log = TestLog()
    log.refusals = [LogError("broken")]

    async def test() -> None:
        recorder = recording(log)
        put(recorder, trade_frame(1))
        assert str(await recorder.failed) == "broken"

    run(test)


def test_a_rest_answer_is_recorded_and_its_events_are_given_back() -> None:
    log = TestLog()

    async def test() -> None:
        recorder = recording(log)
        put(recorder, trade_frame(1), trade_frame(4))
        events = await recorder.ask(page_frame(2, [2, 3]))
        assert [event.trade_id for event in events] == [2, 3]  # type: ignore[union-attr]
        await recorder.close(5)

    run(test)
    assert [trade.source for trade in trades(log)] == ["live", "live", "backfill", "backfill"]
    assert [gap.state for gap in gaps(log)] == ["start", "open", "healed"]


def test_what_is_counted_is_what_was_written() -> None:
    async def test() -> None:
        recorder = recording(TestLog())
        put(recorder, trade_frame(1), trade_frame(1), frame(b"junk"), page_frame(2, [2]))
        await recorder.close(5)
        meter = recorder.meter
        assert (meter.frames, meter.live, meter.backfill, meter.duplicates) == (4, 1, 1, 1)
        assert sum(meter.faults.values()) == 1
        assert sum(meter.receive.counts) == sum(meter.decode.counts) == sum(meter.durable.counts) == 1
        assert list(meter.offsets) == [5_000_000]

    run(test)


def test_an_error_that_no_log_announces_is_reported_too() -> None:
    class Broken(TestLog):
        def append(self, entries: Sequence[Entry]) -> Mapping[str, int]:
            raise OSError("the disk is on fire")

    async def test() -> None:
        recorder = recording(Broken())
        put(recorder, trade_frame(1))
        assert isinstance(await recorder.failed, OSError)
        assert not await recorder.close(1)

    run(test)
