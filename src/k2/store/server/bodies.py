"""Request bodies: pieces as they arrive, taken out of whatever they are packed in, in bounded memory."""

from collections.abc import AsyncIterator

from aiohttp import StreamReader

from k2.store.server.codecs import Unpacker, decoder
from k2.store.server.frames import FrameReader

CHUNK = 1 << 20


def unpacker(encoding: str, frames: bool) -> Unpacker | None:
    """What takes the pieces of a body out of its packing; None where there is none. Raises StoreError if unknown."""
    inner = decoder(encoding)
    if not frames:
        return inner
    reader = FrameReader()
    return reader.feed if inner is None else lambda piece: reader.feed(inner(piece))


async def pieces(content: StreamReader, unpack: Unpacker | None) -> AsyncIterator[bytes]:
    """The body in pieces of up to about a MiB each (as packed); never an empty one."""
    gathered = bytearray()
    async for piece in content.iter_any():
        out = unpack(piece) if unpack else piece
        if len(out) >= CHUNK and not gathered:
            yield out
            continue
        gathered += out
        if len(gathered) >= CHUNK:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)
