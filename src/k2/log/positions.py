"""Consumers' places in the streams, in an environment of their own, which several processes write."""

import struct
from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

import lmdb

from k2.log import LogCorrupt, Position
from k2.log.datafile import Damaged
from k2.log.environment import Environment, explain, mend, why_unwritten

FOLDER = "_consumers"  # no stream has such a name
_head = struct.Struct("<IxxxxQ")
_LONGEST_KEY = 511


class Positions(Environment):
    """key: consumer, NUL, stream; value: crc32 of key and the rest, offset, metadata."""

    def __init__(self, folder: Path, map_bytes: int) -> None:
        super().__init__(folder, min(map_bytes, 1 << 34), (b"positions",))

    def put(self, consumer: str, positions: Mapping[str, Position]) -> None:
        """Durably. Raises LogFull, LogError."""
        rows = [encode(consumer, stream, position) for stream, position in positions.items()]
        handles = self.acquire(create=True)
        assert handles is not None
        size = sum(len(value) for _, value in rows)
        try:
            with handles.env.begin(write=True) as txn:
                for key, value in rows:
                    txn.put(key, value, db=handles.trees[0])
            self.drop_stale_readers(handles)
        except (lmdb.Error, OSError) as error:
            self.renew()
            raise explain(why_unwritten(error, self.file, size), self.folder, "written", size) from error
        finally:
            self.release(size + (32 << 10))

    def all(self) -> dict[str, dict[str, Position]]:
        """Every consumer's positions. Raises LogCorrupt."""
        handles = self.acquire()
        if handles is None:
            return {}
        try:
            with handles.env.begin() as txn, txn.cursor(handles.trees[0]) as cursor:
                rows = list(cursor)
        except lmdb.Error as error:
            raise explain(error, self.folder, "read") from error
        finally:
            self.release(0)
        found: dict[str, dict[str, Position]] = {}
        for key, value in rows:
            try:
                consumer, stream, position = decode(key, value)
            except ValueError as error:
                raise LogCorrupt(f"{self.file}: {error}{mend(FOLDER)}", FOLDER) from None
            found.setdefault(consumer, {})[stream] = position
        return found

    def inspect(self, last: Mapping[bytes, tuple[bytes, bytes] | None]) -> None:
        for entry in last.values():
            try:
                _ = entry and decode(*entry)
            except ValueError as error:
                raise Damaged(str(error)) from None


def encode(consumer: str, stream: str, position: Position) -> tuple[bytes, bytes]:
    """Raises ValueError on a name that is too long or holds a NUL."""
    key = f"{consumer}\0{stream}".encode()
    if key.count(0) != 1 or not consumer or len(key) > _LONGEST_KEY:
        raise ValueError(f"{consumer!r} is no consumer's name: 1 to 300 characters, none of them NUL")
    value = _head.pack(0, position.offset) + position.metadata
    return key, crc32(value[4:], crc32(key)).to_bytes(4, "little") + value[4:]


def decode(key: bytes, value: bytes) -> tuple[str, str, Position]:
    """Raises ValueError on other bytes than were written."""
    if len(value) < _head.size or crc32(value[4:], crc32(key)) != int.from_bytes(value[:4], "little"):
        raise ValueError(f"the position of {key!r} is damaged")
    consumer, _, stream = key.decode().partition("\0")
    return consumer, stream, Position(_head.unpack_from(value)[1], value[_head.size :])
