"""The block: how records that were appended together lie in the embedded log, byte for byte.

    key    first offset, 8 bytes big-endian, so that blocks sort by offset
    value  crc32 · format · count · append_ts · follows · before · MessagePack of [keys, values]

`follows` is the end of the block before this one: it differs from the own offset only where a repair left a hole.
`before` is the size in bytes of all earlier blocks of the stream since its first, so that two blocks tell a size.
The checksum covers the stream's name and the offset too: a block in the wrong place does not pass. A block of no
records stands for the end of a stream whose records were dropped or cut off.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import msgspec

from k2.log import Batch, LogCorrupt

FORMAT = 1
MAX_BYTES = 1 << 20  # records beyond this start another block of the same commit

_header = struct.Struct("<IHxxIqQQ")
HEADER_BYTES = _header.size
_key = struct.Struct(">Q")
pack_key = _key.pack
_encode_into = msgspec.msgpack.Encoder().encode_into
_decode = msgspec.msgpack.Decoder(tuple[list[str] | str | None, list[bytes]]).decode


class Header(NamedTuple):
    """What a block says of itself: `length` is in records, `size` in bytes of key and value."""

    offset: int
    length: int
    append_ts: int
    follows: int
    before: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.length

    @property
    def total(self) -> int:
        """Bytes of all blocks up to and with this one."""
        return self.before + self.size


def seed(stream: str) -> int:
    """Where a stream's checksums start from."""
    return crc32(stream.encode())


def unpack_key(key: bytes | memoryview) -> int:
    """The offset in a key. Raises ValueError."""
    if len(key) != 8:
        raise ValueError(f"a block's key has 8 bytes, not {len(key)}")
    offset: int = _key.unpack(key)[0]
    return offset


def encode(
    stream_seed: int,
    keys: Sequence[str],
    values: Sequence[bytes],
    offset: int,
    append_ts: int,
    follows: int,
    before: int,
) -> tuple[bytes, bytearray]:
    """A block's key and value."""
    value = bytearray(HEADER_BYTES)
    if not values or keys.count(keys[0]) == len(keys):
        label: Sequence[str] | str | None = keys[0] or None if values else None
    else:
        label = keys
    _encode_into((label, values), value, HEADER_BYTES)
    _header.pack_into(value, 0, 0, FORMAT, len(values), append_ts, follows, before)
    key = pack_key(offset)
    value[0:4] = crc32(memoryview(value)[4:], crc32(key, stream_seed)).to_bytes(4, "little")
    return key, value


def header(key: bytes | memoryview, value: bytes | memoryview) -> Header:
    """What the block says of itself, its checksum not looked at. Raises ValueError on what is no block."""
    if len(value) < HEADER_BYTES:
        raise ValueError(f"{len(value)} bytes are too few for a block")
    _, kind, count, append_ts, follows, before = _header.unpack_from(value)
    if kind != FORMAT:
        raise ValueError(f"block format {kind} is not known (this is format {FORMAT})")
    return Header(unpack_key(key), count, append_ts, follows, before, len(value) + 8)


def whole(stream_seed: int, key: bytes | memoryview, value: bytes | memoryview) -> bool:
    """Whether key and value are the bytes that were written for this stream."""
    if len(value) < HEADER_BYTES or len(key) != 8:
        return False
    found = crc32(memoryview(value)[4:], crc32(key, stream_seed))
    return found == int.from_bytes(value[0:4], "little")


def records(head: Header, value: bytes | memoryview) -> tuple[Sequence[str], list[bytes]]:
    """The keys and values of a block. Raises ValueError."""
    label, values = _decode(memoryview(value)[HEADER_BYTES:])
    keys = label if isinstance(label, list) else [label or ""] * len(values)
    if len(values) != head.length or len(keys) != head.length:
        raise ValueError(f"the block says {head.length} records and holds {len(values)}")
    return keys, values


def batch(stream: str, stream_seed: int, key: bytes | memoryview, value: bytes | memoryview) -> tuple[Header, Batch]:
    """A verified block as the batch that was appended. Raises LogCorrupt, `valid_end` being the block's offset."""
    try:
        if not whole(stream_seed, key, value):
            raise ValueError("its checksum does not match its bytes")
        head = header(key, value)
        keys, values = records(head, value)
    except ValueError as error:
        offset = unpack_key(key) if len(key) == 8 else 0
        raise LogCorrupt(f"stream {stream}: the block at offset {offset} is damaged: {error}", stream, offset) from None
    return head, Batch(stream, head.offset, head.append_ts, keys, values)


def cuts(values: Sequence[bytes]) -> list[tuple[int, int]]:
    """How to divide records among blocks of at most MAX_BYTES: (from, to) of each; one larger record has its own."""
    if sum(map(len, values)) <= MAX_BYTES:
        return [(0, len(values))]
    parts, first, size = [], 0, 0
    for i, value in enumerate(values):
        if i > first and size + len(value) > MAX_BYTES:
            parts.append((first, i))
            first, size = i, 0
        size += len(value)
    return [*parts, (first, len(values))]
