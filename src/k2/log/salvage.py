"""What can be read of a damaged data file: every block that is whole, and the longest run of them without a hole."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from k2.log import block
from k2.log.datafile import scan

_COUNT_BITS = 24  # a block of MAX_BYTES holds fewer records


def whole_blocks(file: Path, streams: Sequence[str]) -> Iterator[tuple[int, block.Header, bytes, bytes]]:
    """Index of the stream, header, key and value of every whole block, in no order; the same one may come twice."""
    seeds = [block.seed(stream) for stream in streams]
    for key, value in scan(file):
        if len(key) != 8 or len(value) < block.HEADER_BYTES:
            continue
        for which, stream_seed in enumerate(seeds):
            if block.whole(stream_seed, key, value):
                yield which, block.header(key, value), key, value
                break


def whole_runs(file: Path, streams: Sequence[str]) -> dict[str, tuple[int, int]]:
    """For each stream the longest run of whole blocks: (start, end)."""
    found: list[set[int]] = [set() for _ in streams]
    for which, head, _, _ in whole_blocks(file, streams):
        found[which].add(head.offset << _COUNT_BITS | head.length)
    runs = {}
    for stream, places in zip(streams, found, strict=True):
        heads = [(place >> _COUNT_BITS, place & (1 << _COUNT_BITS) - 1) for place in sorted(places)]
        runs[stream] = longest_run(heads)
    return runs


def longest_run(blocks: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Of (offset, count) in order: start and end of the longest run without a hole.

    A block that begins inside of another is what an append left behind that was never committed: it is passed over.
    """
    best = (0, 0)
    start = end = 0
    for offset, count in blocks:
        if offset > end:
            start = end = offset
        if offset == end:
            end += count
        if end - start > best[1] - best[0]:
            best = (start, end)
    return best
