"""Records of the log: how a frame, a trade and a gap are written down, byte for byte.

Trades and gaps are JSON objects (one record each; ClickHouse reads them as JSONEachRow). Frames are ClickHouse
RowBinary rows `recv_ts Int64, kind String, connection String, request String, payload String`, so that a run of them is
inserted as it stands.
"""

import struct
from collections.abc import Iterable
from functools import lru_cache

import msgspec

from k2.core.types import Frame, FrameKind, Gap, Trade

FRAME_STRUCTURE = "recv_ts Int64, kind String, connection String, request String, payload String"

_encoder = msgspec.json.Encoder()
_trade_decoder = msgspec.json.Decoder(Trade)
_gap_decoder = msgspec.json.Decoder(Gap)
_pack_ts = struct.Struct("<q").pack
_unpack_ts = struct.Struct("<q").unpack_from

encode_trade = _encoder.encode
encode_gap = _encoder.encode
decode_trade = _trade_decoder.decode
decode_gap = _gap_decoder.decode


def trades_stream(exchange: str) -> str:
    """The stream of an exchange's decoded trades."""
    return f"market.crypto.trades.{exchange}"


def frames_stream(exchange: str) -> str:
    """The stream of an exchange's frames, verbatim."""
    return f"market.crypto.trades.{exchange}.raw"


GAPS_STREAM = "market.crypto.gaps"


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


_SHORT = [bytes((n,)) for n in range(128)] + [bytes((low | 128, high)) for high in range(1, 128) for low in range(128)]


@lru_cache(maxsize=1024)
def _frame_head(kind: FrameKind, connection: str, request: str) -> bytes:
    parts = []
    for text in (kind, connection, request):
        data = text.encode()
        parts += [_varint(len(data)), data]
    return b"".join(parts)


def encode_frame(frame: Frame) -> bytes:
    """A frame as one RowBinary row."""
    (row,) = encode_frames([frame])
    return row


def encode_frames(frames: Iterable[Frame]) -> list[bytes]:
    """Each frame as one RowBinary row."""
    rows: list[bytes] = []
    add, join, pack, short, longest = rows.append, b"".join, _pack_ts, _SHORT, len(_SHORT)
    kind = connection = request = None
    head = b""
    for frame in frames:
        if frame.connection is not connection or frame.request is not request or frame.kind is not kind:
            kind, connection, request = frame.kind, frame.connection, frame.request
            head = _frame_head(kind, connection, request)
        payload = frame.payload
        size = len(payload)
        add(join((pack(frame.recv_ts), head, short[size] if size < longest else _varint(size), payload)))
    return rows


def decode_frame(record: bytes) -> Frame:
    """The reverse of `encode_frame`. Raises ValueError on bytes that are not one whole frame."""
    try:
        (recv_ts,) = _unpack_ts(record)
        fields, at = [], 8
        for _ in range(4):
            size, shift = 0, 0
            while True:
                byte = record[at]
                at += 1
                size |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            if at + size > len(record):
                raise ValueError("a frame record ends before its field does")
            fields.append(record[at : at + size])
            at += size
    except (struct.error, IndexError) as error:
        raise ValueError(f"not a frame record: {error}") from error
    if at != len(record):
        raise ValueError(f"{len(record) - at} bytes left after a frame record")
    kind, connection, request, payload = fields
    return Frame(recv_ts, kind.decode(), connection.decode(), request.decode(), payload)  # type: ignore[arg-type]
