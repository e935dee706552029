"""Server-side WebSocket frames as bytes, so that hundreds of them leave in one socket write (RFC 6455, section 5.2)."""

import struct

TEXT, BINARY = 0x81, 0x82  # FIN set, opcode 1 or 2
_LONG = struct.Struct(">BBH").pack
_LONGEST = struct.Struct(">BBQ").pack
SHORT = 1024
HEADS = [bytes((TEXT, n)) if n < 126 else _LONG(TEXT, 126, n) for n in range(SHORT)]  # of short text frames, by size


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One whole, unmasked frame."""
    size = len(payload)
    if size < SHORT and opcode == TEXT:
        return HEADS[size] + payload
    if size < 126:
        return bytes((opcode, size)) + payload
    if size < 65536:
        return _LONG(opcode, 126, size) + payload
    return _LONGEST(opcode, 127, size) + payload


def payload_of(data: bytes) -> bytes:
    """The payload of a frame that `frame` made."""
    length = data[1]
    return data[2 if length < 126 else 4 if length == 126 else 10 :]
