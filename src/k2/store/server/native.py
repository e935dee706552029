"""The Native format for clients that name a `client_protocol_version`: clickhouse-go, and so Grafana's data source.

The engine writes revision 0. From revision 1 on every block begins with a block info, and from 54454 on every column
has a byte that says whether it is serialized in a special way. So blocks are cut at their columns, which takes knowing
how many bytes a column of each type is; a type that is not known here is refused by name.
"""

import re
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache

from k2.store.server.status import refusal

_CUSTOM_SERIALIZATION = 54454
_BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"  # not an overflow block; no bucket
_WIDTHS = {
    1: "Int8 UInt8 Bool Nothing",
    2: "Int16 UInt16 Date BFloat16",
    4: "Int32 UInt32 Float32 Date32 DateTime IPv4 Time",
    8: "Int64 UInt64 Float64 DateTime64 Time64",
    16: "Int128 UInt128 UUID IPv6",
    32: "Int256 UInt256",
}
_FIXED = {name: width for width, names in _WIDTHS.items() for name in names.split()}
_ALIASES = {
    "Point": "Tuple(Float64, Float64)",
    "Ring": "Array(Point)",
    "LineString": "Array(Point)",
    "MultiLineString": "Array(LineString)",
    "Polygon": "Array(Ring)",
    "MultiPolygon": "Array(Polygon)",
}
_NAMED = re.compile(r"(?:`(?:[^`\\]|\\.)*`|[A-Za-z_]\w*) (?=[A-Z])")
_UINT64 = struct.Struct("<Q").unpack_from

Skip = Callable[[bytes, int, int], int]  # (data, where the column begins, rows) -> where it ends


class _Short(Exception):
    """The block is not all here."""


class Blocks:
    """Rewrites a stream of Native blocks to a client's revision."""

    def __init__(self, revision: int) -> None:
        self._mark = b"\x00" if revision >= _CUSTOM_SERIALIZATION else b""
        self._held = b""
        self._enough = 0  # do not try again with less: cutting the same block over and over costs

    def feed(self, piece: bytes, last: bool = False) -> bytes:
        """All blocks that are now complete. Raises StoreError for a type whose columns cannot be cut."""
        self._held += piece
        if len(self._held) < self._enough and not last:
            return b""
        out: list[bytes] = []
        at = 0
        try:
            while at < len(self._held):
                block, at = self._block(self._held, at)
                out += block
        except _Short:
            self._enough = 2 * (len(self._held) - at)
        self._held = self._held[at:]
        return b"".join(out)

    def _block(self, data: bytes, at: int) -> tuple[list[bytes], int]:
        columns, after = _varint(data, at)
        rows, after = _varint(data, after)
        out = [_BLOCK_INFO, data[at:after]]
        for _ in range(columns):
            begin = after
            for _ in range(2):  # its name and its type
                size, after = _varint(data, after)
                text = data[after : after + size]
                after += size
            out += [_whole(data, begin, after), self._mark]
            if rows:
                prefix, skip = _known(text)
                begin, after = after, skip(data, after + prefix, rows)
                out.append(_whole(data, begin, after))
        return out, after


def _known(text: bytes) -> tuple[int, Skip]:
    """`_column` of a type as it stands in a block. Raises StoreError for whatever cannot be cut."""
    try:
        return _column(text.decode())
    except (ValueError, LookupError, StopIteration, RecursionError):
        name = text.decode("utf-8", "replace")[:200]
        raise refusal(48, "NOT_IMPLEMENTED", f"A column of type {name} is not known here: cast it") from None


def _whole(data: bytes, begin: int, end: int) -> bytes:
    if end > len(data):
        raise _Short
    return data[begin:end]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    try:
        while (byte := data[at]) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            at += 1
    except IndexError:
        raise _Short from None
    return value | byte << shift, at + 1


def _uint64(data: bytes, at: int) -> int:
    if at + 8 > len(data):
        raise _Short
    value: int = _UINT64(data, at)[0]
    return value


@lru_cache(maxsize=512)
def _column(name: str) -> tuple[int, Skip]:
    """Bytes of state before the column's data, and what finds their end. Raises StoreError for an unknown type."""
    head, _, rest = _ALIASES.get(name, name).partition("(")
    inner = split_types(rest[:-1]) if rest not in ("", ")") else []
    if head in _FIXED or head.startswith(("Interval", "Enum", "Decimal", "FixedString")):
        return 0, _fixed(_width(head, inner))
    match head:
        case "String":
            return 0, _strings
        case "Nullable":
            prefix, skip = _column(inner[0])
            return prefix, lambda data, at, rows: skip(data, at + rows, rows)
        case "SimpleAggregateFunction":
            return _column(", ".join(inner[1:]))
        case "Array":
            return _array(*_column(inner[0]))
        case "Tuple":
            return _tuple(inner)
        case "Map" | "Nested":
            return _array(*_tuple(inner))
        case "LowCardinality":
            return 8, _low_cardinality(inner[0])
    raise refusal(48, "NOT_IMPLEMENTED", f"A column of type {name} cannot be sent in this client's revision: cast it")


def _width(head: str, inner: list[str]) -> int:
    if head == "FixedString":
        return int(inner[0])
    if head.startswith("Enum"):
        return int(head[4:]) // 8
    if head == "Decimal":
        digits = int(inner[0])
        return next(width for most, width in ((9, 4), (18, 8), (38, 16), (76, 32)) if digits <= most)
    return _FIXED.get(head, 8)


def _fixed(width: int) -> Skip:
    return lambda _, at, rows: at + width * rows


def _strings(data: bytes, at: int, rows: int) -> int:
    for _ in range(rows):
        size, at = _varint(data, at)
        at += size
    return at


def _array(prefix: int, skip: Skip) -> tuple[int, Skip]:
    def end(data: bytes, at: int, rows: int) -> int:
        at += 8 * rows
        total = _uint64(data, at - 8) if rows else 0
        return skip(data, at, total) if total else at

    return prefix, end


def _tuple(inner: list[str]) -> tuple[int, Skip]:
    members = [_column(_NAMED.sub("", name, count=1) if _NAMED.match(name) else name) for name in inner]

    def end(data: bytes, at: int, rows: int) -> int:
        for _, skip in members:
            at = skip(data, at, rows)
        return at if members else at + rows

    return sum(prefix for prefix, _ in members), end


def _low_cardinality(name: str) -> Skip:
    """A dictionary of this block and, for each row, a number into it."""
    _, keys = _column(name.removeprefix("Nullable(").removesuffix(")") if name.startswith("Nullable(") else name)

    def end(data: bytes, at: int, _: int) -> int:
        flags = _uint64(data, at)
        at = keys(data, at + 16, _uint64(data, at + 8))
        return at + 8 + _uint64(data, at) * (1 << (flags & 0xFF))

    return end


def split_types(inner: str) -> list[str]:
    """The types, or named types, between the commas that stand outside of brackets and quotes."""
    return list(_parts(inner))


def _parts(inner: str) -> Iterator[str]:
    depth = start = 0
    for match in re.finditer(r"[(),]|'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`", inner):
        sign = match[0]
        depth += (sign == "(") - (sign == ")")
        if sign == "," and depth == 0:
            yield inner[start : match.start()].strip()
            start = match.end()
    yield inner[start:].strip()
