"""What is cut out of the log for a commit."""

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from k2.log import Batch
from k2.log.memory import MemoryLog
from k2.tier.offload.slices import Slices, Source
from k2.tier.reach import Reach

STREAM = "market.crypto.trades.kraken"


class Mended(MemoryLog):
    """A log that a repair has left a hole in: 0 to 2, then 5 to 24."""

    def read(self, stream: str, offset: int, max_bytes: int = 4 << 20) -> list[Batch]:
        parts = [(0, 3), (5, 20)]
        return [
            Batch(stream, first, 1, ["K"] * count, [b"%d" % number for number in range(first, first + count)])
            for first, count in parts
            if first + count > offset
        ]


def test_nothing_beyond_the_reach_is_taken_where_the_log_has_a_hole() -> None:
    source = Source(STREAM, "kraken", lambda exchange, batch: pa.table({"value": batch.values}))
    with ThreadPoolExecutor(1) as pool:
        (one,) = Slices(Mended(), [source], {STREAM: Reach(0, 4)}, 100, pool).after({STREAM: 0})
    assert one.rows()["kraken"]["value"].to_pylist() == [b"0", b"1", b"2"]
    assert (one.offsets, one.read) == ({STREAM: 4}, 3)
