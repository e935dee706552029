"""What HTTP bodies come packed in: gzip, deflate, LZ4 frames, Zstandard; also several in a row."""

import importlib
import zlib
from collections.abc import Callable
from typing import Any

import lz4.frame

from k2.store.server.status import refusal

Unpacker = Callable[[bytes], bytes]


def decoder(encoding: str) -> Unpacker | None:
    """What unpacks the pieces of a body with this Content-Encoding, in order; None for none. Raises StoreError."""
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return _members(lambda: zlib.decompressobj(31), "gzip")
        case "deflate":
            return _members(zlib.decompressobj, "deflate")
        case "lz4":
            return _members(lz4.frame.LZ4FrameDecompressor, "lz4")
        case "zstd":
            return _members(zstd_decompressor, "zstd")
        case other:
            raise refusal(89, "UNKNOWN_COMPRESSION_METHOD", f"Unknown compression method '{other}' in Content-Encoding")


def zstd_decompressor() -> Any:
    """A Zstandard decompressor: the standard library's (Python 3.14 on) or `backports.zstd`'s. Raises StoreError."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name).ZstdDecompressor()
        except ModuleNotFoundError:
            continue
    raise refusal(
        89, "UNKNOWN_COMPRESSION_METHOD", "zstd needs Python 3.14 or the package backports.zstd: send lz4 or gzip"
    )


def _members(make: Callable[[], Any], name: str) -> Unpacker:
    state = make()

    def unpack(piece: bytes) -> bytes:
        nonlocal state
        out = []
        while piece:
            if state.eof:
                state = make()
            out.append(state.decompress(piece))
            piece = (state.unused_data or b"") if state.eof else b""
        return b"".join(out)

    def checked(piece: bytes) -> bytes:
        try:
            return unpack(piece)
        except Exception as caught:  # noqa: BLE001 - each codec raises its own class
            raise refusal(271, "CANNOT_DECOMPRESS", f"The request body is not valid {name}: {caught}") from None

    return checked
