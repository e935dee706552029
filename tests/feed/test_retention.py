"""Old records go; what a consumer has yet to read, and the other streams, stay."""

import time

import pytest

from k2.config import LogConfig
from k2.core.codec import GAPS_STREAM, frames_stream, trades_stream
from k2.feed.retention import retain
from k2.log import Entry, Position
from k2.log.memory import MemoryLog

TRADES, FRAMES = trades_stream("binance"), frames_stream("binance")
LATER = 40 * 86_400 * 10**9


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog()
    for _ in range(10):
        log.append([Entry(stream, ["", ""], [b"a" * 100, b"b" * 100]) for stream in (FRAMES, TRADES, GAPS_STREAM)])
    return log


def test_age_differs_between_trades_and_frames(log: MemoryLog) -> None:
    retain(log, "binance", LogConfig(max_age_days=60, frames_max_age_days=7), time.time_ns() + LATER)
    assert log.bounds(TRADES) == (0, 20)
    assert log.bounds(FRAMES)[0] > 0
    assert log.bounds(GAPS_STREAM) == (0, 20)


def test_what_is_unread_stays(log: MemoryLog) -> None:
    log.commit("loader", {TRADES: Position(8)})
    retain(log, "binance", LogConfig(), time.time_ns() + LATER)
    assert log.bounds(TRADES)[0] <= 8


def test_size_drops_the_oldest(log: MemoryLog) -> None:
    retain(log, "binance", LogConfig(max_gb=1000 / (1 << 30)), time.time_ns())
    assert 0 < log.bounds(TRADES)[0] < 20


def test_zero_keeps_for_ever(log: MemoryLog) -> None:
    retain(log, "binance", LogConfig(max_age_days=0, frames_max_age_days=0), time.time_ns() + LATER)
    assert log.bounds(TRADES) == log.bounds(FRAMES) == (0, 20)
