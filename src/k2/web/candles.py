"""Pages of candles, quickly: the stored windows are remembered, the live tail is asked for each time.

Planning a question over the views takes longer than all the rest. Here the tail is followed (`k2.ask.tail`); the stored
windows are read once for each commit of the loader (every `loader.flush_s`), already as lines of JSON; and the few
windows that the tail touches are merged from both (`k2.ask.merge`).

The order matters: the tail first, then what is stored, as of the tail's commit or later. Trades move the same way, and
stay a while in what they left. So every trade is seen, and generations tell what was seen twice.
"""

import asyncio
import hashlib
import re
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from k2.ask import Query
from k2.ask.candles import COLUMNS, SECONDS, Candles
from k2.ask.merge import Part, Stored, Window, merged, read_stored, stored, windows
from k2.ask.tail import LiveTail
from k2.ask.times import SECOND, format_time, parse_time
from k2.web.negotiate import JSON
from k2.web.store import StoreReader

MOST = 10_000  # windows of a page; larger ones are streamed
QUICK = {"json": MOST, "ndjson": MOST, "csv": 1_500}  # windows of a page by format: to write CSV takes its time here
_REMEMBERED = 200_000  # windows in all ...
_PAGES = 512  # ... and pages
_FOR_S = 30.0
LOOK_S = 0.02  # an answer may know the tail of so long ago
_NAME = re.compile(rb'(?<=[{,])"[a-z_]+":')
_NUMBER = re.compile(rb'"(-?\d+(?:\.\d+)?)"')
_KEY = re.compile(rb'\{"exchange":("(?:[^"\\]|\\.)*"),"symbol":("(?:[^"\\]|\\.)*"),"window_start":"([^"]*)"')


class Page(NamedTuple):
    """An answer: its rows as lines of JSON, the cursor of the next page (None: there is none), the whole as JSON, and
    the question as it was put to what is stored."""

    lines: Sequence[bytes]
    next: str | None
    body: bytes
    digest: str  # of the body
    query: Query

    def form(self, name: str) -> bytes:
        """The page in a format of `QUICK`."""
        if name == "json":
            return self.body
        text = b"\n".join([*self.lines, b""])
        return _csv(text) if name == "csv" else text


def quick(form: str, limit: int) -> bool:
    """Whether a page of this size is served from here in this format."""
    return 0 < limit <= QUICK.get(form, 0)


def _csv(lines: bytes) -> bytes:
    """Lines of JSON as ClickHouse writes CSV: texts in quotes, numbers without. No text here has a quote in it."""
    values = _NUMBER.sub(rb"\1", _NAME.sub(b"", lines)).replace(b"{", b"").replace(b"}", b"")
    return b",".join(b'"%b"' % name.encode() for name in COLUMNS) + b"\n" + values


class _Remembered:
    """The stored windows of one page, as of a commit, ascending; `minutes` are those of the windows in `known`."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.commit = -1
        self.at = 0.0
        self.keys: list[Window] = []
        self.lines: list[bytes] = []
        self.minutes: dict[Window, Stored] = {}
        self.known: set[Window] = set()
        self.whole: Page | None = None  # the answer while the tail touches nothing of it

    def serves(self, commit: int) -> bool:
        return self.commit == commit and time.monotonic() - self.at < _FOR_S


class Book:
    """Remembers pages of one store."""

    def __init__(self, store: StoreReader) -> None:
        self._store = store
        self._pages: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._tail = LiveTail()
        self._looked = float("-inf")
        self._looking = asyncio.Lock()

    async def page(self, question: Candles, now_ns: int) -> Page:
        """Answer a question of at most `MOST` windows. Raises AskError, StoreError."""
        query = question.settled(now_ns)
        await self._look()
        commit = self._tail.commit
        parts = self._tail.of(question.exchange, question.symbol, *question.scope(now_ns))
        remembered = self._of(msgspec.json.encode((query.sql, sorted(query.params.items()))))
        async with remembered.lock:
            if not remembered.serves(commit):
                await self._read(remembered, query, commit)
            fresh = await self._touched(remembered, parts, SECONDS[question.interval])
            if fresh:
                return _answer(remembered, fresh, question, query)
            if remembered.whole is None:
                remembered.whole = _answer(remembered, {}, question, query)
            return remembered.whole._replace(query=query)

    async def _look(self) -> None:
        """Bring the tail up to date; questions that come at once share a look."""
        came = time.monotonic()
        async with self._looking:
            if self._looked < came - LOOK_S:
                began = time.monotonic()
                while not self._tail.feed(await self._store.rows(self._tail.sql())):
                    pass
                self._looked = began

    def _of(self, name: bytes) -> _Remembered:
        """What is remembered of a page; what was not asked for the longest is forgotten."""
        found = self._pages.pop(name, None) or _Remembered()
        total = len(found.lines) + sum(len(page.lines) for page in self._pages.values())
        while self._pages and (total > _REMEMBERED or len(self._pages) >= _PAGES):
            _, gone = self._pages.popitem(last=False)
            total -= len(gone.lines)
        self._pages[name] = found
        return found

    async def _read(self, remembered: _Remembered, query: Query, commit: int) -> None:
        settings = {**JSON.settings, **query.settings}
        chunks = self._store.stream(query.sql, JSON.engine, query.params, settings)
        lines = b"".join([chunk async for chunk in chunks]).splitlines()
        keys = [_key(line) for line in lines]
        if len(keys) > 1 and keys[0] > keys[-1]:
            keys.reverse()
            lines.reverse()
        remembered.commit, remembered.at = commit, time.monotonic()
        remembered.keys, remembered.lines, remembered.minutes, remembered.known = keys, lines, {}, set()
        remembered.whole = None

    async def _touched(self, remembered: _Remembered, parts: list[Part], width: int) -> dict[Window, bytes]:
        """The windows that the tail touches, merged, as lines of JSON."""
        if missing := windows(parts, width) - remembered.known:
            remembered.minutes.update(read_stored(await self._store.rows(*stored(missing, width))))
            remembered.known |= missing
        return {window: one.line(window) for window, one in merged(parts, remembered.minutes, width).items()}


def book(store: StoreReader) -> Book:
    """The one book of this store."""
    found = _books.get(store)
    if found is None:
        found = _books[store] = Book(store)
    return found


_books: WeakKeyDictionary[StoreReader, Book] = WeakKeyDictionary()


def _key(line: bytes) -> Window:
    found = _KEY.match(line)
    assert found, "a candle's line begins with its key"
    exchange, symbol, start = (msgspec.json.decode(part) for part in (found[1], found[2], b'"%b"' % found[3]))
    return parse_time(start, 0) // SECOND, exchange, symbol


def _answer(remembered: _Remembered, fresh: dict[Window, bytes], question: Candles, query: Query) -> Page:
    keys, lines = _page(remembered, fresh, question)
    following = None
    if len(lines) == question.limit:
        start, exchange, symbol = keys[-1]
        following = query.cursor((format_time(start * SECOND, 0), exchange, symbol))
    body = b'{"data":[' + b",\n".join(lines) + b'],"next":' + msgspec.json.encode(following) + b"}\n"
    return Page(lines, following, body, hashlib.blake2b(body, digest_size=12).hexdigest(), query)


def _page(
    remembered: _Remembered, fresh: dict[Window, bytes], question: Candles
) -> tuple[Sequence[Window], Sequence[bytes]]:
    """Stored windows and fresh ones in the page's order, at most a page of them."""
    descending = question.order == "desc"
    keys, lines, limit = remembered.keys, list(remembered.lines), question.limit
    full = len(keys) >= limit
    cursor = question.resume(int, str, str)
    new: dict[Window, bytes] = {}
    for window, line in fresh.items():
        at = bisect_left(keys, window)
        if at < len(keys) and keys[at] == window:
            lines[at] = line
        elif full and (at == 0 if descending else at == len(keys)):
            continue  # it is on a later page
        elif cursor and (window >= cursor.key if descending else window <= cursor.key):
            continue  # it was on an earlier one
        else:
            new[window] = line
    if new:
        ordered = sorted([*zip(keys, lines, strict=True), *new.items()])
        keys, lines = [key for key, _ in ordered], [line for _, line in ordered]
    if descending:
        return keys[::-1][:limit], lines[::-1][:limit]
    return keys[:limit], lines[:limit]
