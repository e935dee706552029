"""What browsers load: the page's built files, the browsable documentation, the OpenAPI document. All from this package,
and open to everybody: they hold no data."""

import hashlib
import html
import mimetypes
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from k2.web import negotiate
from k2.web.compress import SMALL, packed, packer
from k2.web.problems import KINDS
from k2.web.send import matches
from k2.web.trace import TRACE

STATIC = Path(__file__).parent / "static"
VIEWS = ("/", "/market", "/pipeline", "/integrity", "/archive", "/log")
_HASHED = re.compile(r"-[0-9A-Z]{8}\.\w+$")  # as esbuild names what it has built
_PACKS = ("text/", "application/json", "application/javascript", "image/svg+xml")
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".webmanifest": "application/manifest+json"}


class File(NamedTuple):
    """A file as it is served. `lasting`: its name tells its content, so it may be kept for ever."""

    body: bytes
    media: str
    digest: str
    lasting: bool


def add_to(app: web.Application, document: Mapping[str, Any]) -> None:
    """Add the routes of everything that is not data."""
    files = _files()
    files["/openapi.json"] = _file(msgspec.json.encode(document), "application/json")
    files["/docs/problems"] = _file(_problems().encode(), "text/html; charset=utf-8")
    serve = Files(files)
    for path in files:
        app.router.add_get(path, serve.answer)


def _files() -> dict[str, File]:
    """Everything below `static/`, by the path that it is served at."""
    found: dict[str, File] = {}
    for path in sorted(STATIC.rglob("*")):
        if not path.is_file():
            continue
        name = path.relative_to(STATIC).as_posix()
        media = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain"
        text = media.startswith("text/")
        file = _file(path.read_bytes(), f"{media}; charset=utf-8" if text else media, bool(_HASHED.search(path.name)))
        if name == "index.html":
            found.update(dict.fromkeys(VIEWS, file))
        elif name == "docs/index.html":
            found.update(dict.fromkeys(("/docs", "/docs/"), file))
        else:
            found[f"/{name}"] = file
    return found


def _file(body: bytes, media: str, lasting: bool = False) -> File:
    return File(body, media, hashlib.blake2b(body, digest_size=12).hexdigest(), lasting)


class Files:
    """Answers with files that are kept in memory, and their packed forms with them."""

    def __init__(self, files: Mapping[str, File]) -> None:
        self._files = files
        self._packed: dict[tuple[str, str], bytes] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        request[TRACE].route = "page"
        file = self._files[request.match_info.route.resource.canonical]  # type: ignore[union-attr]  # it has one
        headers = {
            "Content-Type": file.media,
            "ETag": f'W/"{file.digest}"',
            "Cache-Control": "public, max-age=31536000, immutable" if file.lasting else "no-cache",
            "Vary": "Accept-Encoding",
        }
        if matches(request.headers.get("If-None-Match", ""), file.digest):
            return web.Response(status=304, headers=headers)
        body = file.body
        packing = negotiate.packing(request.headers.get("Accept-Encoding", ""))
        if packing and len(body) >= SMALL and file.media.startswith(_PACKS):
            key = (file.digest, packing)
            if key not in self._packed:
                self._packed[key] = await packed(packer(packing), body, last=True)
            body = self._packed[key]
            headers["Content-Encoding"] = packing
        request[TRACE].sent = len(body)
        return web.Response(body=body, headers=headers)


def _problems() -> str:
    """The page that explains every kind of problem."""
    entries = "".join(
        f'<dt id="{html.escape(slug)}"><code>{html.escape(slug)}</code></dt><dd>{html.escape(text)}</dd>'
        for slug, text in sorted(KINDS.items())
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>K2: problems</title>'
        '<link rel="icon" href="data:,">'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/docs/docs.css"></head>'
        '<body class="text"><h1>Problems</h1>'
        "<p>Errors are problem documents (RFC 9457); their <code>type</code> points here. "
        f'<a href="/docs">The API</a></p><dl>{entries}</dl></body></html>'
    )
