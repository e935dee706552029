"""Request bodies: pieces as they arrive, taken out of whatever they are packed in, in bounded memory and time."""

import asyncio
from collections.abc import AsyncIterator, Iterator

from aiohttp import StreamReader

from k2.store import StoreError
from k2.store.server.codecs import Unpacker, decoder
from k2.store.server.frames import FrameReader
from k2.store.server.status import refusal

CHUNK = 1 << 20
QUIET_S = 30.0  # without a byte of a body that is still to come; ClickHouse's http_receive_timeout


def unpacker(encoding: str, frames: bool) -> Unpacker | None:
    """What takes the pieces of a body out of its packing; None where there is none. Raises StoreError if unknown."""
    inner = decoder(encoding)
    if not frames:
        return inner
    reader = FrameReader()
    if inner is None:
        return reader.feed

    def both(piece: bytes) -> Iterator[bytes]:
        for out in inner(piece):
            yield from reader.feed(out)

    return both


async def pieces(content: StreamReader, unpack: Unpacker | None) -> AsyncIterator[bytes]:
    """The body in pieces of up to some MiB each; never an empty one. Raises StoreError when nothing comes for long."""
    gathered = bytearray()
    while piece := await _next(content):
        for out in unpack(piece) if unpack else (piece,):
            if len(out) >= CHUNK and not gathered:
                yield out
                continue
            gathered += out
            if len(gathered) >= CHUNK:
                yield bytes(gathered)
                gathered.clear()
    if gathered:
        yield bytes(gathered)


async def _next(content: StreamReader) -> bytes:
    """What has arrived; empty at the end."""
    try:
        async with asyncio.timeout(QUIET_S):
            return await content.readany()
    except TimeoutError:
        raise too_slow(f"nothing came for {QUIET_S:g} s") from None


def too_slow(how: str) -> StoreError:
    """For a client that keeps a place here and does not send."""
    return refusal(209, "SOCKET_TIMEOUT", f"Timeout exceeded while receiving data from client: {how}")
