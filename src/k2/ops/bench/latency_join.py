"""Every trade's own times: what the log holds of it, joined by its offset with what each stage noted of its batch.

Pure: columns of int64 in and out. A `Column` has a place for each offset of a stretch of one stream; 0 says that nobody
noted a time there. All times are ns of one machine's CLOCK_REALTIME.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress

import msgspec

from k2.log import Batch
from k2.metrics import STAGE_BUCKETS
from k2.trace import Noted

Column = array  # of "q"

POINTS = (  # where a trade's time is taken, on its way
    "exchange",  # it was due at the exchange, by the exchange's own clock
    "sent",  # the simulator had written it to its socket
    "received",  # the feed handler read its frame from the socket
    "decoded",
    "appended",  # just before the commit that made it durable, as the log keeps it
    "durable",  # the append had returned
    "read",  # the loader had read it from the log
    "visible",  # in silver_trades
    "subscriber",  # it was in the hands of a subscriber of the live stream
)
SEGMENTS: Mapping[str, tuple[str, str]] = {
    "exchange_to_receive": ("exchange", "received"),
    "receive_to_decoded": ("received", "decoded"),
    "decoded_to_durable": ("decoded", "durable"),
    "log_to_loader": ("durable", "read"),
    "loader_to_visible": ("read", "visible"),
    "log_to_subscriber": ("durable", "subscriber"),
}
WAYS: Mapping[str, tuple[str, str]] = {
    "exchange_to_visible": ("exchange", "visible"),
    "receive_to_visible": ("received", "visible"),
    "receive_to_subscriber": ("received", "subscriber"),
}
GENERATOR: Mapping[str, tuple[str, str]] = {
    "due_to_sent": ("exchange", "sent"),
    "sent_to_receive": ("sent", "received"),
}
HISTOGRAM: Mapping[str, tuple[str, str]] = {  # what `k2_stage_seconds` counts: it knows the log's own time only
    "exchange_to_receive": ("exchange", "received"),
    "receive_to_decoded": ("received", "decoded"),
    "decoded_to_durable": ("decoded", "durable"),
    "log_to_loader": ("appended", "read"),
    "loader_to_visible": ("read", "visible"),
    "receive_to_visible": ("received", "visible"),
}
OF_FEED = ("exchange_to_receive", "receive_to_decoded", "decoded_to_durable")  # its histograms count live trades only
_BOUNDS_NS = [int(bound * 1e9) for bound in STAGE_BUCKETS]


class _Record(msgspec.Struct, gc=False):
    symbol: str
    trade_id: int
    exchange_ts: int
    recv_ts: int
    source: str
    epoch: int = 0


_decode = msgspec.json.Decoder(_Record).decode


class Trades:
    """The trades of a stretch of one exchange's stream, in the order of the log.

    `counters` holds each one's (symbol, epoch), `ids` its id, `live` whether it came by the socket; `times` has a
    column for each of POINTS.
    """

    def __init__(self, exchange: str, first: int, batches: Iterable[Batch]) -> None:
        self.exchange, self.first = exchange, first
        self.counters: list[tuple[str, int]] = []
        self.ids, self.live = Column("q"), bytearray()
        known: dict[tuple[str, int], tuple[str, int]] = {}
        due, received, appended = Column("q"), Column("q"), Column("q")
        for batch in batches:
            if batch.offset != first + len(self.ids):
                raise ValueError(f"{batch.stream}: offset {batch.offset} does not follow {first + len(self.ids)}")
            for record in map(_decode, batch.values):
                counter = record.symbol, record.epoch
                self.counters.append(known.setdefault(counter, counter))
                self.ids.append(record.trade_id)
                self.live.append(record.source == "live")
                due.append(record.exchange_ts)
                received.append(record.recv_ts)
            appended.extend([batch.append_ts] * len(batch.values))
        self.times = {point: Column("q", bytes(8 * len(self))) for point in POINTS}
        self.times |= {"exchange": due, "received": received, "appended": appended}

    def __len__(self) -> int:
        return len(self.ids)

    def join(self, begun: str, ended: str, noted: Sequence[Noted]) -> int:
        """Put the two times of each noted batch into columns; the earliest note of a trade holds. Returns how many
        trades were noted more than once."""
        columns = [Column("q", bytes(8 * len(self))) for _ in range(2)]
        seen, covered = bytearray(len(self)), 0
        for note in sorted(noted, key=lambda one: one.ended, reverse=True):
            low, high = max(0, note.first - self.first), min(len(self), note.first + note.number - self.first)
            if low < high:
                for column, time in zip(columns, (note.begun, note.ended), strict=True):
                    column[low:high] = Column("q", [time]) * (high - low)
                seen[low:high] = b"\1" * (high - low)
                covered += high - low
        self.times[begun], self.times[ended] = columns
        return covered - seen.count(1)

    def join_sent(self, noted: Mapping[str, Sequence[Noted]]) -> None:
        """Put the times in that the simulator noted by id."""
        sent = {
            counter: _by_id(noted.get(f"{self.exchange}/{counter[0]}/{counter[1]}", ()))
            for counter in set(self.counters)
        }
        column = self.times["sent"] = Column("q")
        for counter, trade_id in zip(self.counters, self.ids, strict=True):
            first, times = sent[counter]
            at = trade_id - first
            column.append(times[at] if 0 <= at < len(times) else 0)

    def between(self, since: int, before: int) -> dict[str, "Column[int]"]:
        """The times of those whose exchange time lies in since..before (ns)."""
        mask = [since <= due < before for due in self.times["exchange"]]
        return {point: Column("q", compress(column, mask)) for point, column in self.times.items()}


def _by_id(noted: Sequence[Noted]) -> tuple[int, "Column[int]"]:
    """The first id, and a time for each id from it on."""
    if not noted:
        return 0, Column("q")
    first = min(note.first for note in noted)
    times = Column("q", bytes(8 * (max(note.first + note.number for note in noted) - first)))
    for note in noted:
        times[note.first - first : note.first - first + note.number] = Column("q", [note.ended]) * note.number
    return first, times


def lapses(times: Mapping[str, Sequence[int]], points: tuple[str, str]) -> list[int]:
    """From one point to another, of every trade that was timed at both, in ns."""
    begun, ended = (times[point] for point in points)
    return [end - begin for begin, end in zip(begun, ended, strict=True) if begin and end]


def untimed(times: Mapping[str, Sequence[int]]) -> int:
    """How many trades lack a time that one of SEGMENTS or WAYS needs."""
    needed = {point for points in (*SEGMENTS.values(), *WAYS.values()) for point in points}
    return sum(not all(row) for row in zip(*(times[point] for point in sorted(needed)), strict=True))


def slowest(times: Mapping[str, Sequence[int]], share: float) -> dict[str, int]:
    """Where the slowest `share` of the trades, by exchange to silver, spent their time: each segment's mean, ns."""
    whole = ("exchange", "visible")
    timed = [i for i, (begin, end) in enumerate(zip(*(times[point] for point in whole), strict=True)) if begin and end]
    due, visible = (times[point] for point in whole)
    timed.sort(key=lambda i: visible[i] - due[i])
    late = timed[len(timed) - max(1, round(len(timed) * share)) :] if timed else []
    on_the_way = {name: points for name, points in SEGMENTS.items() if points[1] != "subscriber"}
    return {
        name: sum(times[end][i] - times[begin][i] for i in late) // len(late) if late else 0
        for name, (begin, end) in on_the_way.items()
    }


def buckets(trades: Trades) -> dict[str, list[int]]:
    """What the histograms of `k2_stage_seconds` must have counted of these trades: a number for each bucket, the last
    one without a bound."""
    found = {}
    for stage, points in HISTOGRAM.items():
        counts = found[stage] = [0] * (len(_BOUNDS_NS) + 1)
        begun, ended = (trades.times[point] for point in points)
        every = stage not in OF_FEED
        for begin, end, live in zip(begun, ended, trades.live, strict=True):
            if (live or every) and end:
                counts[bisect_left(_BOUNDS_NS, end - begin)] += 1
    return found
