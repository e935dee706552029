"""Frames as columns, straight from the bytes of the log's records.

What stands between a frame's time and its payload (kind, connection, request) is the same for all frames of a socket:
it is looked at once and compared from then on. A record that is not put together so goes to the codec's own decoder.
"""

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from k2.core.codec import decode_frame, encode_frame
from k2.core.types import Frame

_TIME_BYTES = 8
_FIELDS = ("kind", "connection", "request")


class _Head(NamedTuple):
    """What stands between time and payload length in some frames. It says where it ends, so none begins another."""

    number: int
    texts: tuple[str, ...]
    bytes: bytes


def read_frames(values: Sequence[bytes]) -> dict[str, pa.Array]:
    """Time, kind, connection, request and payload of these records. Raises ValueError where one is no frame.

    `values` holds at least one.
    """
    heads: list[_Head] = []
    payloads: list[bytes] = []
    numbers = array("i")
    number, _, head = _head_of(values[0], heads)
    at = _TIME_BYTES + len(head)
    for value in values:
        usual = value.startswith(head, _TIME_BYTES)
        if not usual:
            number, _, head = _head_of(value, heads)
            at = _TIME_BYTES + len(head)
            usual = value.startswith(head, _TIME_BYTES)
        size = len(value) - at - 2
        if usual and 0x80 <= size < 0x4000 and value[at] == size & 0x7F | 0x80 and value[at + 1] == size >> 7:
            payloads.append(value[at + 2 :])
        elif usual and -1 <= size < 0x7F and value[at] == size + 1:
            payloads.append(value[at + 1 :])
        else:
            payloads.append(decode_frame(value).payload)
        numbers.append(number)
    times = array("q", b"".join([value[:_TIME_BYTES] for value in values]))
    codes = pa.Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(numbers)])
    return {
        "recv_ts": pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(times)]),
        **{name: _texts([known.texts[i] for known in heads], codes) for i, name in enumerate(_FIELDS)},
        "payload": pa.array(payloads, pa.binary()),
    }


def _head_of(value: bytes, heads: list[_Head]) -> _Head:
    """The head of a record, added to `heads` if it is new. Its bytes are those that our encoder writes."""
    for known in heads:
        if value.startswith(known.bytes, _TIME_BYTES):
            return known
    frame = decode_frame(value)
    texts = (frame.kind, frame.connection, frame.request)
    for known in heads:
        if known.texts == texts:
            return known
    empty = encode_frame(Frame(0, frame.kind, frame.connection, frame.request, b""))
    heads.append(_Head(len(heads), texts, empty[_TIME_BYTES:-1]))
    return heads[-1]


def _texts(texts: list[str], codes: pa.Int32Array) -> pa.DictionaryArray:
    """What the codes stand for, each distinct text once in the dictionary."""
    distinct = pa.array(texts, pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(distinct.indices.take(codes), distinct.dictionary)
