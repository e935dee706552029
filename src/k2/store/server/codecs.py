"""What HTTP bodies come packed in: gzip, deflate, LZ4 frames, Zstandard; also several in a row.

A small body may say that it holds gigabytes. So what comes out is given in parts of `AT_ONCE` at most, and the next
part is not made before somebody takes it.
"""

import importlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import lz4.frame

from k2.store.server.status import refusal

AT_ONCE = 1 << 20
_ZSTD_WINDOW_LOG = 23  # RFC 9659: a window of more than 8 MB is not for HTTP
Unpacker = Callable[[bytes], Iterator[bytes]]


class _State(Protocol):
    """One packed member: as the decompressors of lz4 and zstd are."""

    eof: bool
    needs_input: bool
    unused_data: bytes | None

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def decoder(encoding: str) -> Unpacker | None:
    """What unpacks the pieces of a body with this Content-Encoding, in order; None for none. Raises StoreError."""
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return _members(lambda: _Zlib(31), "gzip")
        case "deflate":
            return _members(lambda: _Zlib(zlib.MAX_WBITS), "deflate")
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
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        return module.ZstdDecompressor(options={module.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})
    raise refusal(
        89, "UNKNOWN_COMPRESSION_METHOD", "zstd needs Python 3.14 or the package backports.zstd: send lz4 or gzip"
    )


class _Zlib:
    """zlib's decompressor as a `_State`."""

    def __init__(self, bits: int) -> None:
        self._state = zlib.decompressobj(bits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._state.eof

    @property
    def unused_data(self) -> bytes:
        return self._state.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._state.decompress(self._state.unconsumed_tail + data, max_length)
        self.needs_input = len(out) < max_length and not self._state.unconsumed_tail
        return out


def _members(make: Callable[[], Any], name: str) -> Unpacker:
    state: _State = make()

    def unpack(piece: bytes) -> Iterator[bytes]:
        nonlocal state
        while piece or not (state.needs_input or state.eof):
            if state.eof:
                state = make()
            try:
                out = state.decompress(piece, AT_ONCE)
            except Exception as caught:  # noqa: BLE001 - each codec raises its own class
                raise refusal(271, "CANNOT_DECOMPRESS", f"The request body is not valid {name}: {caught}") from None
            piece = (state.unused_data or b"") if state.eof else b""
            if out:
                yield out

    return unpack
