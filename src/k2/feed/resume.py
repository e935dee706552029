"""Start where the log ends: what is known from the checkpoint and the trades after it, and a truthful gap ledger."""

import logging
from typing import NamedTuple

from k2.core.codec import GAPS_STREAM, decode_gap, decode_trade, frames_stream, trades_stream
from k2.core.sequence import Sequences
from k2.core.types import Gap
from k2.log import Log, OffsetOutOfRange, Position

_log = logging.getLogger("k2.feed")
_Key = tuple[str, int, int, bool]


class Resumed(NamedTuple):
    """`ends` are the streams' next offsets; `amends` are ledger events that a crash kept from being written."""

    sequences: Sequences
    ends: dict[str, int]
    amends: list[Gap]


def consumer(exchange: str) -> str:
    """The name under which an exchange's handler keeps its checkpoint."""
    return f"feed-handler-{exchange}"


def resume(log: Log, exchange: str) -> Resumed:
    """Rebuild what the handler knew when it stopped, however it stopped. Raises LogError."""
    stream = trades_stream(exchange)
    ends = {name: log.bounds(name)[1] for name in (stream, frames_stream(exchange), GAPS_STREAM)}
    checkpoint = log.committed(consumer(exchange))
    position = checkpoint.get(stream, Position(0))
    ledger_from = checkpoint.get(GAPS_STREAM, Position(0)).offset
    if position.offset > ends[stream] or ledger_from > ends[GAPS_STREAM]:
        _log.warning("%s ends before its checkpoint: the state is rebuilt from the whole stream", stream)
        position, ledger_from = Position(0), 0
    sequences = Sequences.load(exchange, position.metadata)
    known = {_key(gap): gap for gap in sequences.ledger()}
    _observe_stream(log, sequences, stream, position.offset)
    known.update(_read_ledger(log, exchange, ledger_from))
    amends: list[Gap] = []
    for gap in known.values():
        if gap.state in ("open", "unavailable"):
            amends += sequences.adopt(gap)
    told = known | {_key(gap): gap for gap in amends}
    amends += [gap for gap in sequences.ledger() if not _same(told.get(_key(gap)), gap)]
    return Resumed(sequences, ends, amends)


def _key(gap: Gap) -> _Key:
    return gap.symbol, gap.epoch, gap.first_id, gap.state in ("start", "epoch")


def _same(told: Gap | None, gap: Gap) -> bool:
    return told is not None and (told.state, told.last_id) == (gap.state, gap.last_id)


def _observe_stream(log: Log, sequences: Sequences, stream: str, offset: int) -> None:
    while True:
        try:
            batches = log.read(stream, offset)
        except OffsetOutOfRange as error:
            offset = error.start
            continue
        if not batches:
            return
        for batch in batches:
            for value in batch.values:
                sequences.observe(decode_trade(value))
        offset = batches[-1].end


def _read_ledger(log: Log, exchange: str, offset: int) -> dict[_Key, Gap]:
    """The latest event of each of the exchange's gaps."""
    latest: dict[_Key, Gap] = {}
    while True:
        try:
            batches = log.read(GAPS_STREAM, offset)
        except OffsetOutOfRange as error:
            offset = error.start
            continue
        if not batches:
            return latest
        for batch in batches:
            for value in batch.values:
                gap = decode_gap(value)
                if gap.exchange == exchange:
                    latest[_key(gap)] = gap
        offset = batches[-1].end
