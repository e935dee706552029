"""Multipart bodies: the query and its parameters as form fields, files as temporary tables (external data)."""

import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from typing import IO, NamedTuple

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from k2.store.embedded import Connection, from_file, identifier
from k2.store.server.bodies import CHUNK
from k2.store.server.native import split_types
from k2.store.server.statement import MAX_STATEMENT
from k2.store.server.status import refusal

_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
MOST = 64 << 20  # bytes of all fields and files of a form; files wait on disk
_PARTS = 1_000
_NO_FORM = (ValueError, RuntimeError, AssertionError, LookupError, HttpProcessingError, web.HTTPException)


class External(NamedTuple):
    """A file that a client sent along, and the table it is to be."""

    name: str
    structure: str
    format: str
    file: IO[bytes]

    def load(self, connection: Connection) -> None:
        """Make it a temporary table of this connection."""
        connection.run(f"CREATE TEMPORARY TABLE {identifier(self.name)} ({self.structure}) ENGINE = Memory")
        connection.run(from_file(f"INSERT INTO {identifier(self.name)}", self.format, self.file.fileno()))


class Form(NamedTuple):
    """What a multipart body held."""

    fields: dict[str, str]
    externals: list[External]


async def read(request: web.Request) -> Form:
    """Read a multipart body; files go to disk. Raises StoreError."""
    fields: dict[str, str] = {}
    files: dict[str, IO[bytes]] = {}
    room = MOST
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            if not isinstance(part, BodyPartReader) or not part.name:
                raise refusal(36, "BAD_ARGUMENTS", "A part of the multipart body has no name")
            if len(fields) + len(files) >= _PARTS:
                raise refusal(36, "BAD_ARGUMENTS", f"The multipart body has more than {_PARTS} parts")
            if part.filename is None:
                fields[part.name], size = await _field(part, room)
            else:
                files[part.name], size = await _file(part, room)
            room -= size
        words = {**request.query, **fields}
        return Form(fields, [_external(name, file, words) for name, file in files.items()])
    except _NO_FORM as error:
        raise refusal(36, "BAD_ARGUMENTS", f"The multipart body cannot be read: {error}") from None


async def _field(part: BodyPartReader, room: int) -> tuple[str, int]:
    text = bytearray()
    async for piece in _decoded(part, room):
        text += piece
        if len(text) > MAX_STATEMENT:
            raise refusal(229, "QUERY_IS_TOO_LARGE", f"The form field {part.name} is larger than {MAX_STATEMENT} bytes")
    return text.decode("utf-8", "surrogateescape"), len(text)


async def _file(part: BodyPartReader, room: int) -> tuple[IO[bytes], int]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives until the statement is over
    async for piece in _decoded(part, room):
        file.write(piece)
    file.flush()
    size = file.tell()
    file.seek(0)
    return file, size


async def _decoded(part: BodyPartReader, room: int) -> AsyncIterator[bytes]:
    """A part's content, as pieces, at most `room` bytes of it."""
    if part.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise refusal(89, "UNKNOWN_COMPRESSION_METHOD", f"The part {part.name} is packed: send it as it is")
    while chunk := await part.read_chunk(CHUNK):
        piece = bytes(part.decode(chunk))
        room -= len(piece)
        if room < 0:
            raise refusal(229, "QUERY_IS_TOO_LARGE", f"The multipart body holds more than {MOST >> 20} MiB")
        yield piece


def _external(name: str, file: IO[bytes], words: Mapping[str, str]) -> External:
    structure = words.get(f"{name}_structure", "")
    if not structure and words.get(f"{name}_types"):
        types = split_types(words[f"{name}_types"])
        structure = ", ".join(f"_{i} {kind}" for i, kind in enumerate(types, 1))
    if not structure or not _TABLE.match(name):
        raise refusal(36, "BAD_ARGUMENTS", f"External table {name}: neither {name}_structure nor {name}_types is given")
    return External(name, structure, words.get(f"{name}_format") or "TabSeparated", file)
