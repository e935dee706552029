"""ClickHouse's own compressed frames: what `compress=1` and `decompress=1` mean.

A frame is 16 bytes of CityHash128 (version 1.0.2), a method byte, the frame's length from the method byte on and the
length of its data (both 32 bit, little-endian), then the data: an LZ4 block (0x82), ZSTD (0x90), or as they are (0x02).
"""

import struct
from collections.abc import Callable, Iterator

import lz4.block

from k2.store.server.cityhash import cityhash128
from k2.store.server.codecs import zstd_decompressor
from k2.store.server.status import refusal

_HEAD = struct.Struct("<BII")
_NONE, _LZ4, _ZSTD = 0x02, 0x82, 0x90
MOST = 16 << 20  # a frame, packed or not, is held whole; clickhouse-go makes them of 10 MiB, others of 1
FRAME = 1 << 16


def pack(data: bytes) -> bytes:
    """Data as frames. They are stored, not compressed: valid to every reader, and on one machine the cheaper."""
    out = []
    for start in range(0, len(data), FRAME):
        part = data[start : start + FRAME]
        body = _HEAD.pack(_NONE, len(part) + _HEAD.size, len(part)) + part
        out += [cityhash128(body), body]
    return b"".join(out)


class FrameReader:
    """Takes data out of frames that arrive in pieces."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The data of each frame that is now complete."""
        held = self._held
        held += piece
        at = 0
        while len(held) - at >= 16 + _HEAD.size:
            method, packed, size = _HEAD.unpack_from(held, at + 16)
            if packed < _HEAD.size or method not in _METHODS:
                raise refusal(
                    271, "CANNOT_DECOMPRESS", "The body is not in ClickHouse's compressed frames (decompress=1)"
                )
            if packed > MOST or size > MOST:
                raise refusal(271, "CANNOT_DECOMPRESS", f"A frame of more than {MOST >> 20} MiB: send smaller ones")
            if len(held) - at < 16 + packed:
                break
            body = bytes(held[at + 16 + _HEAD.size : at + 16 + packed])
            at += 16 + packed
            if data := _METHODS[method](body, size):
                yield data
        del held[:at]


def _stored(body: bytes, size: int) -> bytes:
    if len(body) != size:
        raise refusal(271, "CANNOT_DECOMPRESS", "A stored frame is not as long as it says")
    return body


def _lz4(body: bytes, size: int) -> bytes:
    try:
        return bytes(lz4.block.decompress(body, uncompressed_size=size))
    except lz4.block.LZ4BlockError as caught:
        raise refusal(271, "CANNOT_DECOMPRESS", f"Cannot decompress an LZ4 frame: {caught}") from None


def _zstd(body: bytes, size: int) -> bytes:
    state = zstd_decompressor()
    try:
        data = bytes(state.decompress(body, size))
    except Exception as caught:  # noqa: BLE001 - its class is the codec's own
        raise refusal(271, "CANNOT_DECOMPRESS", f"Cannot decompress a ZSTD frame: {caught}") from None
    if len(data) != size:
        raise refusal(271, "CANNOT_DECOMPRESS", "A ZSTD frame is not as long as it says")
    return data


_METHODS: dict[int, Callable[[bytes, int], bytes]] = {_NONE: _stored, _LZ4: _lz4, _ZSTD: _zstd}
