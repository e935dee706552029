"""LMDB's data file read without LMDB, which takes a file at its word and dies of one that is too short or scribbled on.

Layout (LMDB 0.9, host byte order, 64 bit; `lmdb.h` and `mdb.c` of the OpenLDAP project): pages of one size, the first
two are meta pages, of which the one with the higher transaction id counts. A page begins with its number (8 bytes),
2 bytes of padding, flags, and two bounds of its free space; then come 2-byte pointers to its nodes. A node has 4 bytes
of data size (in a branch: the lower bits of a page number), flags (in a branch: its higher bits), key size, key, data.
"""

import os
import struct
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BRANCH, LEAF, OVERFLOW = 0x01, 0x02, 0x04
BIG, SUBTREE = 0x01, 0x02  # node flags: data on pages of their own; data is the root of a named tree
_PAGE_BYTES = 16
_NODE_BYTES = 8
_MAGIC = 0xBEEFC0DE
_NOWHERE = (1 << 64) - 1
_DEEPEST = 32

_page = struct.Struct("=QHHHH")
_node = struct.Struct("=HHHH")
_meta = struct.Struct("=IIQQ")
_tree = struct.Struct("=IHHQQQQQ")
_u64 = struct.Struct("=Q")
_big_head = struct.Struct("=QHHI")


class Damaged(Exception):
    """The file is not what LMDB left; the text says where."""


class Meta(NamedTuple):
    """`root` is the page of the tree of trees, `free` that of the tree of free pages."""

    page_size: int
    last_page: int
    transaction: int
    root: int
    free: int


def present(file: Path) -> bool:
    """Whether an environment was ever made here."""
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:
        return False


def read_meta(fd: int) -> Meta:
    """The meta page that counts. Raises Damaged when neither can be read."""
    found = []
    first = os.pread(fd, 4096, 0)
    sizes = {_tree.unpack_from(first, _PAGE_BYTES + _meta.size)[0]} if len(first) == 4096 else set()
    for at in (0, *sizes, 4096):
        page = os.pread(fd, 256, at)
        if len(page) < 256:
            continue
        magic, version, _, _ = _meta.unpack_from(page, _PAGE_BYTES)
        trees = _PAGE_BYTES + _meta.size
        page_size = _tree.unpack_from(page, trees)[0]
        free = _tree.unpack_from(page, trees)[7]
        root = _tree.unpack_from(page, trees + _tree.size)[7]
        last_page, transaction = struct.unpack_from("=QQ", page, trees + 2 * _tree.size)
        if magic == _MAGIC and version == 1 and page_size in (512 << n for n in range(8)):
            found.append(Meta(page_size, last_page, transaction, root, free))
    if not found:
        raise Damaged("neither of its two meta pages can be read")
    return max(found, key=lambda meta: meta.transaction)


class _Reader:
    def __init__(self, fd: int, meta: Meta) -> None:
        self._fd = fd
        self.meta = meta
        self._size = os.fstat(fd).st_size

    def page(self, number: int) -> tuple[int, bytes]:
        size = self.meta.page_size
        data = os.pread(self._fd, size, number * size) if number * size < self._size else b""
        if len(data) < size:
            raise Damaged(f"it ends before page {number} of {self.meta.last_page}")
        found, _, flags, lower, upper = _page.unpack_from(data)
        if found != number or flags not in (BRANCH, LEAF) or not _PAGE_BYTES <= lower <= upper <= size:
            raise Damaged(f"page {number} holds something else")
        return flags, data

    def nodes(self, data: bytes) -> list[int]:
        count = (_page.unpack_from(data)[3] - _PAGE_BYTES) // 2
        places = list(struct.unpack_from(f"={count}H", data, _PAGE_BYTES))
        if not all(_PAGE_BYTES <= place <= len(data) - _NODE_BYTES for place in places):
            raise Damaged("a page's pointers lead outside of it")
        return places

    def leaf(self, data: bytes, place: int) -> tuple[int, bytes, bytes]:
        """A leaf's node: flags, key, data (fetched from its own pages where it has them)."""
        low, high, flags, key_size = _node.unpack_from(data, place)
        size, start = low | high << 16, place + _NODE_BYTES + key_size
        key = data[place + _NODE_BYTES : start]
        if not flags & BIG:
            if start + size > len(data):
                raise Damaged("a node is larger than its page")
            return flags, key, data[start : start + size]
        if start + 8 > len(data):
            raise Damaged("a node is larger than its page")
        (number,) = _u64.unpack_from(data, start)
        if number * self.meta.page_size + size > self._size:  # before anything is read, or room made for it
            raise Damaged(f"a node's data is said to lie on page {number}")
        return flags, key, self.big(number, size)

    def big(self, number: int, size: int) -> bytes:
        at = number * self.meta.page_size
        head = os.pread(self._fd, _PAGE_BYTES, at)
        if len(head) < _PAGE_BYTES:
            raise Damaged(f"it ends before page {number}")
        found, _, flags, pages = _big_head.unpack(head)
        if found != number or flags != OVERFLOW or size > pages * self.meta.page_size:
            raise Damaged(f"page {number} holds something else")
        value = os.pread(self._fd, size, at + _PAGE_BYTES)
        if len(value) < size:
            raise Damaged(f"it ends within page {number} of {self.meta.last_page}")
        return value

    def walk(self, number: int, first: bytes, depth: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """Keys from `first` on and their data, in order."""
        if depth > _DEEPEST:
            raise Damaged("its tree leads in a circle")
        flags, data = self.page(number)
        places = self.nodes(data)
        if flags == LEAF:
            for place in places:
                _, key, value = self.leaf(data, place)
                if key >= first:
                    yield key, value
            return
        heads = [_node.unpack_from(data, place) for place in places]
        keys = [
            data[place + _NODE_BYTES : place + _NODE_BYTES + head[3]] for place, head in zip(places, heads, strict=True)
        ]
        for low, high, upper, _ in heads[bisect_right(keys, first, lo=1) - 1 :]:  # the first key of a branch is unused
            yield from self.walk(low | high << 16 | upper << 32, first, depth + 1)

    def last(self, root: int) -> tuple[bytes, bytes] | None:
        """The last key of a tree and its data."""
        number = root
        for _ in range(_DEEPEST):
            if number == _NOWHERE:
                return None
            flags, data = self.page(number)
            places = self.nodes(data)
            if not places:
                raise Damaged(f"page {number} is empty")
            if flags == LEAF:
                _, key, value = self.leaf(data, places[-1])
                return key, value
            low, high, upper, _ = _node.unpack_from(data, places[-1])
            number = low | high << 16 | upper << 32
        raise Damaged("its tree leads in a circle")

    def require_pages(self, root: int, file_size: int) -> None:
        """Every page of a tree lies within the file: one at the file's end that is free was never written."""
        ahead = [root] if root != _NOWHERE else []
        while ahead:
            flags, data = self.page(ahead.pop())
            for place in self.nodes(data):
                low, high, upper, key_size = _node.unpack_from(data, place)
                if flags == BRANCH:
                    ahead.append(low | high << 16 | upper << 32)
                elif upper & BIG:
                    (number,) = _u64.unpack_from(data, place + _NODE_BYTES + key_size)
                    if number * self.meta.page_size + _PAGE_BYTES + (low | high << 16) > file_size:
                        raise Damaged(f"it ends before page {number} of {self.meta.last_page}")
                elif upper & SUBTREE:
                    tree = _tree.unpack_from(data, place + _NODE_BYTES + key_size)[7]
                    ahead += [tree] if tree != _NOWHERE else []

    def roots(self) -> dict[bytes, int]:
        """The named trees (few enough that they lie on one page)."""
        if self.meta.root == _NOWHERE:
            return {}
        flags, data = self.page(self.meta.root)
        if flags != LEAF:
            raise Damaged(f"page {self.meta.root} should list the trees")
        found = {}
        for place in self.nodes(data):
            kind, key, value = self.leaf(data, place)
            if kind & SUBTREE and len(value) == _tree.size:
                found[key] = _tree.unpack(value)[7]
        return found


def tails(file: Path) -> dict[bytes, tuple[bytes, bytes] | None]:
    """The last key and data of every named tree, read from the file alone. Raises Damaged.

    While another process commits, a page may be written anew between two reads: who calls, tries again.
    """
    fd = os.open(file, os.O_RDONLY)
    try:
        meta = read_meta(fd)
        reader = _Reader(fd, meta)
        found = {name: reader.last(root) for name, root in reader.roots().items()}
        if os.fstat(fd).st_size < (meta.last_page + 1) * meta.page_size:
            for root in (meta.free, meta.root):
                reader.require_pages(root, os.fstat(fd).st_size)
        return found
    finally:
        os.close(fd)


def entries(file: Path, tree: bytes, first: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys of a named tree from `first` on and their data, in order. Raises Damaged.

    The caller holds a read transaction meanwhile: it keeps other processes from using the pages again.
    """
    fd = os.open(file, os.O_RDONLY)
    try:
        reader = _Reader(fd, read_meta(fd))
        root = reader.roots().get(tree, _NOWHERE)
        if root != _NOWHERE:
            yield from reader.walk(root, first)
    finally:
        os.close(fd)


def scan(file: Path) -> Iterator[tuple[bytes, bytes]]:
    """Every key and data that a leaf page anywhere in the file leads to, in no order, also such as are long replaced.

    For salvage: who calls, tells the true from the stale and the broken. Raises nothing on damage.
    """
    fd = os.open(file, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        try:
            meta = read_meta(fd)
        except Damaged:
            meta = Meta(4096, size // 4096, 0, _NOWHERE, _NOWHERE)
        reader = _Reader(fd, meta)
        for number in range(size // meta.page_size):
            try:
                flags, data = reader.page(number)
                places = reader.nodes(data) if flags == LEAF else []
            except Damaged:
                continue
            for place in places:
                try:
                    _, key, value = reader.leaf(data, place)
                except Damaged:
                    continue
                yield key, value
    finally:
        os.close(fd)
