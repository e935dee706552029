"""A message's bytes on the socket: a WebSocket frame (RFC 6455, section 5.2) or a server-sent event.

A server's frames are not masked, and nothing is compressed: the same bytes serve every subscriber.
"""

import struct

from k2.web.stream.messages import Encoding

_TEXT, _BINARY = 0x81, 0x82  # the only fragment, and its opcode
_medium = struct.Struct("!BBH").pack
_large = struct.Struct("!BBQ").pack


def framed(kind: str, payload: bytes, encoding: Encoding) -> bytes:
    """The frame of a message of this type."""
    if encoding == "sse":
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), payload)
    first, size = _BINARY if encoding == "msgpack" else _TEXT, len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    return (_medium(first, 126, size) if size < 1 << 16 else _large(first, 127, size)) + payload
