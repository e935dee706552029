"""What can be read of a damaged data file: every block that is whole, and the longest run of them without a hole."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from k2.log import block
from k2.log.datafile import scan


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
    found: list[set[Link]] = [set() for _ in streams]
    for which, head, _, _ in whole_blocks(file, streams):
        found[which].add(Link(head.offset, head.length, head.follows))
    return {stream: _span(longest_run(sorted(links))) for stream, links in zip(streams, found, strict=True)}


class Link(NamedTuple):
    """A block as a part of the chain."""

    offset: int
    length: int
    follows: int


def longest_run(blocks: Iterable[Link]) -> list[Link]:
    """Of blocks in order, the longest run in which each begins where the one before it ends, or says so itself.

    A block that begins inside of another is what an append left behind that was never committed: it is passed over.
    """
    best: list[Link] = []
    run: list[Link] = []
    for link in blocks:
        end = run[-1].offset + run[-1].length if run else -1
        if link.offset < end:
            continue
        if end not in (link.offset, link.follows):
            best, run = max(best, run, key=_records), []
        run.append(link)
    return max(best, run, key=_records)


def _records(run: Sequence[Link]) -> int:
    return sum(link.length for link in run)


def _span(run: Sequence[Link]) -> tuple[int, int]:
    return (run[0].offset, run[-1].offset + run[-1].length) if run else (0, 0)
