"""Frames of all sizes, many in a batch: what the audit's engine is given is longer than a pipe and than its buffers."""

import random

from k2.core.types import Frame
from k2.tier.prove.audit import audit


def test_large_batches_of_frames_are_compared(platform):
    rng = random.Random(1)
    at = 1_767_225_600_000_000_000
    for name in ("binance", "kraken"):
        sizes = [rng.randint(1, 600) for _ in range(8_000)]
        platform.put_frames(name, *(Frame(at + n, "ws", "c1", "", rng.randbytes(size)) for n, size in enumerate(sizes)))
    platform.archiver().run()
    for _ in range(3):
        found = audit(platform.catalog(), platform.log, tables=["frames"])
        assert found.ok
        assert found.tables["frames"].rows == 16_000
