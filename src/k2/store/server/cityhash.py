"""CityHash128, version 1.0.2: the checksum in ClickHouse's compressed frames. No other use: it is not cryptographic.

In plain Python, at about 10 MB/s: only clients that ask for `compress=1` (clickhouse-go) meet it.
"""

import struct

_M = (1 << 64) - 1
_K0, _K1, _K2, _K3 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F, 0xC949D7C7509E6557
_MUL = 0x9DDFEA08EB382D69
_WORD = struct.Struct("<Q").unpack_from
_BLOCK = struct.Struct("<16Q").unpack_from
_PAIR = struct.Struct("<QQ")


def cityhash128(data: bytes) -> bytes:
    """The hash of `data`, 16 bytes: the low word first, as it stands in a frame."""
    size = len(data)
    if size >= 16:
        first, second = _PAIR.unpack_from(data)
        return _PAIR.pack(*_seeded(data[16:], first ^ _K3, second))
    if size >= 8:
        low = _word(data, 0) ^ (size * _K0 & _M)
        return _PAIR.pack(*_seeded(b"", low, _word(data, size - 8) ^ _K1))
    return _PAIR.pack(*_seeded(data, _K0, _K1))


def _word(data: bytes, at: int) -> int:
    word: int = _WORD(data, at)[0]
    return word


def _rotate(value: int, by: int) -> int:
    return (value >> by) | (value << (64 - by)) & _M


def _mix(value: int) -> int:
    return value ^ (value >> 47)


def _hash16(low: int, high: int) -> int:
    a = _mix((low ^ high) * _MUL & _M)
    return _mix((high ^ a) * _MUL & _M) * _MUL & _M


def _short(data: bytes) -> int:
    size = len(data)
    if size > 8:
        a, b = _word(data, 0), _word(data, size - 8)
        return _hash16(a, _rotate((b + size) & _M, size)) ^ b
    if size >= 4:
        head, tail = int.from_bytes(data[:4], "little"), int.from_bytes(data[-4:], "little")
        return _hash16((size + (head << 3)) & _M, tail)
    if size:
        y = data[0] + (data[size >> 1] << 8)
        z = size + (data[-1] << 2)
        return _mix((y * _K2 ^ z * _K3) & _M) * _K2 & _M
    return _K2


def _murmur(data: bytes, a: int, b: int) -> tuple[int, int]:
    size = len(data)
    if size <= 16:
        a = _mix(a * _K1 & _M) * _K1 & _M
        c = (b * _K1 + _short(data)) & _M
        d = _mix((a + (_word(data, 0) if size >= 8 else c)) & _M)
    else:
        c = _hash16((_word(data, size - 8) + _K1) & _M, a)
        d = _hash16((b + size) & _M, (c + _word(data, size - 16)) & _M)
        a = (a + d) & _M
        for at in range(0, size - 16, 16):
            a = (a ^ _mix(_word(data, at) * _K1 & _M) * _K1 & _M) * _K1 & _M
            b ^= a
            c = (c ^ _mix(_word(data, at + 8) * _K1 & _M) * _K1 & _M) * _K1 & _M
            d ^= c
    a, b = _hash16(a, c), _hash16(d, b)
    return a ^ b, _hash16(b, a)


def _weak(words: tuple[int, ...], a: int, b: int) -> tuple[int, int]:
    w, x, y, z = words
    a += w
    b = _rotate((b + a + z) & _M, 21)
    c = a
    a = (a + x + y) & _M
    b += _rotate(a, 44)
    return (a + z) & _M, (b + c) & _M


def _seeded(data: bytes, x: int, y: int) -> tuple[int, int]:
    size = len(data)
    if size < 128:
        return _murmur(data, x, y)
    z = size * _K1 & _M
    v0 = (_rotate(y ^ _K1, 49) * _K1 + _word(data, 0)) & _M
    v1 = (_rotate(v0, 42) * _K1 + _word(data, 8)) & _M
    w0 = (_rotate((y + z) & _M, 35) * _K1 + x) & _M
    w1 = _rotate((x + _word(data, 88)) & _M, 53) * _K1 & _M
    whole = size - size % 128
    for at in range(0, whole, 128):
        block = _BLOCK(data, at)
        for half in (block[:8], block[8:]):
            x = _rotate((x + y + v0 + half[2]) & _M, 37) * _K1 & _M ^ w1
            y = _rotate((y + v1 + half[6]) & _M, 42) * _K1 & _M ^ v0
            z = _rotate(z ^ w0, 33)
            v0, v1 = _weak(half[:4], v1 * _K1 & _M, (x + w0) & _M)
            w0, w1 = _weak(half[4:], (z + w1) & _M, y)
            z, x = x, z
    y = (y + _rotate(w0, 37) * _K0 + z) & _M
    x = (x + _rotate((v0 + z) & _M, 49) * _K0) & _M
    for back in range(32, size - whole + 32, 32):
        words = struct.unpack_from("<4Q", data, size - back)
        y = (_rotate((y - x) & _M, 42) * _K0 + v1) & _M
        w0 = (w0 + words[2]) & _M
        x = (_rotate(x, 49) * _K0 + w0) & _M
        w0 = (w0 + v0) & _M
        v0, v1 = _weak(words, v0, v1)
    x, y = _hash16(x, v0), _hash16(y, w0)
    return (_hash16((x + v1) & _M, w1) + y) & _M, _hash16((x + w1) & _M, (y + v1) & _M)
