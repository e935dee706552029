"""Packing answers as they pass: gzip and zstd, chunk by chunk, in bounded memory."""

import asyncio
import zlib
from typing import Protocol

import zstandard

SMALL = 1024  # bytes; less is sent as it is
_HERE = 16 << 10  # bytes that are packed in the event loop; more, in a thread: the loop has live streams to serve
_GZIP_LEVEL = 4
_ZSTD_LEVEL = 3


class Packer(Protocol):
    """A compression under way."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def packer(name: str) -> Packer:
    """A compression by its HTTP name: `gzip` or `zstd`."""
    if name == "zstd":
        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)


async def packed(packer: Packer, data: bytes, last: bool = False) -> bytes:
    """What the packer gives for these bytes, up to now; all of the rest with `last`."""
    if len(data) > _HERE:
        return await asyncio.to_thread(_pack, packer, data, last)
    return _pack(packer, data, last)


def _pack(packer: Packer, data: bytes, last: bool) -> bytes:
    body = packer.compress(data)
    return body + packer.flush() if last else body
