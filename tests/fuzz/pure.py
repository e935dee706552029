"""Fuzz targets without a server around them: decoders, codecs, parsers of text and of blocks, configuration."""

import importlib
import re
import tempfile
from contextlib import suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from zlib import crc32

from k2.config import EXCHANGES, ConfigError, instruments, load, masked
from k2.core.codec import decode_trade, encode_trade
from k2.core.types import Fault, Frame, Hole, Trade
from k2.feed.rest import _retry_after
from k2.log import LogCorrupt, block, datafile
from k2.store import StoreError
from k2.store.server import codecs, frames, native, readers
from k2.store.server.frames import MOST
from k2.store.server.functions import only_columns
from k2.store.server.statement import StatementError, parse
from k2.tier import TierError, watermark
from k2.tier.names import ENDS, IDENTITIES, OFFSETS
from k2.web.negotiate import choose, packing
from k2.web.problems import Problem

_PLAIN = re.compile(r"[0-9]{1,20}(\.[0-9]{1,18})?").fullmatch
_SCRATCH = Path(tempfile.mkdtemp(prefix="k2-fuzz-"))
_TYPES = frozenset(("string", "uint8", "int64", "decimal", "array", "tuple", "map", "nullable", "fixedstring", "enum8"))


def decode(name: str, data: bytes) -> None:
    """`<request>\\n<payload>` to a venue's decoder; an empty request: a frame of the socket. Never raises; junk keeps
    its bytes; the same frame gives the same events; a page that was read leads on to a further page."""
    venue = importlib.import_module(f"k2.exchanges.{name}").EXCHANGE
    head, _, payload = data.partition(b"\n")
    request = head.decode("utf-8", "replace")
    frame = Frame(1_763_880_000_000_000_000, "rest" if request else "ws", "c1", request, payload)
    events = venue.decode(frame)
    assert events == venue.decode(frame)
    for event in events:
        if isinstance(event, Fault):
            assert event.reason
            assert event.payload in payload
        elif isinstance(event, Trade):
            assert event.source == ("backfill" if request else "live")
            assert 0 < event.trade_id < 2**63
            for text in (event.price, event.quantity):
                assert _PLAIN(text)
                assert Decimal(text) > 0
            assert decode_trade(encode_trade(event)) == event
    if request:
        native_symbol = venue.native("BTC-USDT")
        hole = Hole("BTC-USDT", native_symbol, 0, 1_000, 9_000, 1_700_000_000 * 10**9, 1_700_000_100 * 10**9)
        asked = venue.heal(hole)
        page = [event for event in events if isinstance(event, Trade)]
        following = venue.heal_next(hole, asked, page, frame)
        assert following is None or following.path != asked.path


def statement(data: bytes) -> None:
    """SQL, cut at its seams, or refused as no statement; the seams lie inside, and cutting again cuts the same."""
    try:
        found = parse.__wrapped__(data)
    except StatementError:
        return
    assert 0 <= found.data <= len(data)
    assert data.startswith(found.head)
    if found.kind == "select" and found.head.strip():
        again = parse.__wrapped__(found.head)
        assert (again.kind, again.verb) == (found.kind, found.verb)


def wall_text(data: bytes) -> None:
    """What the wall reads out of text by itself: settings behind FORMAT, structures of tables, trees of the parser."""
    text = data.decode("utf-8", "replace")
    if only_columns(text, _TYPES):
        assert "file(" not in text.lower().replace(" ", "") or "'" in text or "`" in text
    found = readers._SETTINGS.fullmatch(data)
    if found:
        assert readers._SETTING.findall(found[1])
    nodes = []
    for line in text.splitlines():
        kind, _, rest = line.strip().partition(" ")
        if kind:
            nodes.append(readers._Node(len(line) - len(line.lstrip()), kind, rest))
    try:
        readers.Readers(cast(Any, None))._judge(nodes, "k2", readers._DATABASES)
    except StoreError as error:
        if error.code != 497:
            raise
        return
    for node in nodes:
        assert node.kind in readers._NODES or node.kind == "Set"
        assert not (node.kind == "Function" and node.text.split(" (", 1)[0].lower() in ("file", "url", "executable"))


def packed_body(data: bytes) -> None:
    """A body in one of the packings, in pieces of a size that the input chooses: unpacked, or refused by code; never
    much at once, however small the piece."""
    if len(data) < 2:
        return
    kinds = ("gzip", "deflate", "lz4", "zstd", "frames")
    kind, step, body = kinds[data[0] % len(kinds)], data[1] or 1, data[2:]
    unpack = frames.FrameReader().feed if kind == "frames" else codecs.decoder(kind)
    assert unpack is not None
    try:
        for at in range(0, len(body), step):
            for out in unpack(body[at : at + step]):
                assert len(out) <= MOST
    except StoreError as error:
        if error.code != 271:
            raise


def native_blocks(data: bytes) -> None:
    """A Native answer to be rewritten for a client's revision: split anywhere, it gives the same; or is refused."""
    if not data:
        return
    cut, body = data[0], data[1:]
    at = cut * len(body) // 256
    results: list[bytes | int] = []
    for parts in ([body], [body[:at], body[at:]]):
        blocks = native.Blocks(54_460)
        try:
            results.append(b"".join(blocks.feed(part) for part in parts) + blocks.feed(b"", last=True))
        except StoreError as error:
            results.append(error.code)
    assert results[0] == results[1]


def log_block(data: bytes) -> None:
    """A block of the log whose checksum is right, whatever the rest: read, or told as damage at its offset."""
    seed = block.seed("market.crypto.gaps")
    key, value = data[:8].ljust(8, b"\0"), bytearray(data[8:])
    if len(value) >= 4:
        value[0:4] = crc32(memoryview(value)[4:], crc32(key, seed)).to_bytes(4, "little")
    try:
        head, batch = block.batch("market.crypto.gaps", seed, key, bytes(value))
    except LogCorrupt:
        return
    assert batch.end == head.end
    assert len(batch.keys) == len(batch.values) == head.length


def log_file(data: bytes) -> None:
    """A damaged data file of the log: everything that can be read of it is; nothing is raised that is not Damaged."""
    file = _SCRATCH / "data.mdb"
    file.write_bytes(data)
    for key, value in datafile.scan(file):
        assert len(key) + len(value) <= len(data) * 2
    try:
        datafile.tails(file)
        list(datafile.entries(file, b"t", b""))
    except datafile.Damaged:
        return


def cold_summary(data: bytes) -> None:
    """What a snapshot's summary says of the log, from a table that somebody else may have written: read, or TierError.

    Three lines: offsets, ends, identities."""
    offsets, _, rest = data.decode("utf-8", "replace").partition("\n")
    ends, _, ids = rest.partition("\n")
    said = {OFFSETS: offsets, ENDS: ends, IDENTITIES: watermark.digest(ids)}
    snapshot = SimpleNamespace(summary=SimpleNamespace(additional_properties=said))
    table = cast(Any, SimpleNamespace(current_snapshot=lambda: snapshot, name=lambda: ("cold", "trades"),
                                      scan=lambda **_: SimpleNamespace(plan_files=list),
                                      properties={IDENTITIES: ids} if ids else {}))  # fmt: skip
    for read in (watermark.read_offsets, watermark.read_ends):
        with suppress(TierError):
            assert isinstance(read(table), dict)
    if ids:
        watermark.read_identities(table).to_text()


def config(data: bytes) -> None:
    """A settings file, and the same as an instruments file: a tree of settings, or an error that names the file."""
    file = _SCRATCH / "k2.toml"
    file.write_bytes(data)
    with suppress(ConfigError):
        masked(load(file, environ={}))
    with suppress(ConfigError):
        for exchange, symbols in instruments(file).items():
            assert exchange in EXCHANGES
            assert all(symbol.count("-") == 1 for symbol in symbols)


def headers(data: bytes) -> None:
    """Headers that are read by hand: Retry-After of a venue; Accept and Accept-Encoding of a client."""
    text = data.decode("utf-8", "surrogateescape")
    pause = _retry_after(text)
    assert pause is None or pause >= 0
    assert packing(text) in ("", "gzip", "zstd")
    try:
        choose(text, None)
    except Problem as problem:
        if problem.status != 406:
            raise


TARGETS = {
    **{f"decode-{name}": partial(decode, name) for name in EXCHANGES},
    "statement": statement,
    "wall-text": wall_text,
    "packed-body": packed_body,
    "native-blocks": native_blocks,
    "log-block": log_block,
    "log-file": log_file,
    "cold-summary": cold_summary,
    "config": config,
    "headers": headers,
}
