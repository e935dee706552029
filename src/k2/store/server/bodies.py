"""Request bodies: chunks as they arrive, taken out of whatever they are packed in, in bounded memory."""

import zlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from aiohttp import StreamReader

from k2.store import StoreError
from k2.store.server.frames import FrameReader
from k2.store.server.status import refusal

CHUNK = 1 << 20


class _Unpacker(Protocol):
    def __call__(self, piece: bytes) -> bytes: ...


def unpacker(encoding: str, frames: bool) -> _Unpacker | None:
    """What takes the chunks of a body out of its packing; None where there is none. Raises StoreError if unknown."""
    inner = _content_encoding(encoding.strip().lower())
    if not frames:
        return inner
    reader = FrameReader()
    return reader.feed if inner is None else lambda piece: reader.feed(inner(piece))


def _content_encoding(encoding: str) -> _Unpacker | None:
    if encoding in ("", "identity"):
        return None
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _zlib(31 if "gzip" in encoding else 15)
    if encoding == "lz4":
        return _checked(_lz4(), encoding)
    if encoding == "zstd":
        return _checked(_zstd(), encoding)
    raise refusal(89, "UNKNOWN_COMPRESSION_METHOD", f"Unknown compression method '{encoding}' in Content-Encoding")


def _zlib(window: int) -> _Unpacker:
    state = zlib.decompressobj(window)

    def unpack(piece: bytes) -> bytes:
        nonlocal state
        out = b""
        while piece:
            if state.eof:
                state = zlib.decompressobj(window)
            out += state.decompress(piece)
            piece = state.unused_data
        return out

    return _checked(unpack, "gzip")


def _lz4() -> _Unpacker:
    import lz4.frame

    state = lz4.frame.LZ4FrameDecompressor()

    def unpack(piece: bytes) -> bytes:
        nonlocal state
        out = b""
        while piece:
            if state.eof:
                state = lz4.frame.LZ4FrameDecompressor()
            out += state.decompress(piece)
            piece = state.unused_data or b""
        return out

    return unpack


def _zstd() -> _Unpacker:
    try:
        from compression import zstd
    except ImportError:
        from backports import zstd

    state = zstd.ZstdDecompressor()

    def unpack(piece: bytes) -> bytes:
        nonlocal state
        out = b""
        while piece:
            if state.eof:
                state = zstd.ZstdDecompressor()
            out += state.decompress(piece)
            piece = state.unused_data if state.eof else b""
        return out

    return unpack


def _checked(unpack: Callable[[bytes], bytes], name: str) -> _Unpacker:
    def checked(piece: bytes) -> bytes:
        try:
            return unpack(piece)
        except StoreError:
            raise
        except Exception as caught:
            raise refusal(271, "CANNOT_DECOMPRESS", f"The request body is not valid {name}: {caught}") from None

    return checked


async def pieces(content: StreamReader, unpack: _Unpacker | None) -> AsyncIterator[bytes]:
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
