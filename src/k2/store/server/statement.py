"""What kind of statement a text is, and where its FORMAT clause and its inline data stand.

ClickHouse's own parser judges statements; this one only finds the seams at which the server must cut them: the answer's
format, an INSERT's data. It reads tokens, never inside of strings or comments, so what they say cannot lead it astray.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

_TOKEN = re.compile(
    rb"(?P<space>\s+|--[^\n]*|#[ !][^\n]*|/\*.*?(?:\*/|\Z))"
    rb"|(?P<word>[A-Za-z_][A-Za-z0-9_$]*)"
    rb"|'(?:[^'\\]|\\.|'')*(?:'|\\?\Z)|`(?:[^`\\]|\\.|``)*(?:`|\\?\Z)|\"(?:[^\"\\]|\\.|\"\")*(?:\"|\\?\Z)"
    rb"|(?P<tag>\$[^$]*\$)"
    rb"|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<end>;)"
    rb"|[0-9][0-9A-Za-z_.]*|[,.=<>+*%!?:&|^~@]+|.",
    re.DOTALL,
)
_DOLLARS = 64  # signs that begin no text; looking for the end of each takes time
_DATA_START = re.compile(rb"[ \t\f]*(?:\r?\n)?")
_SELECTS = frozenset((b"SELECT", b"WITH", b"FROM"))
_ANSWERING = frozenset((b"SHOW", b"DESCRIBE", b"DESC", b"EXISTS", b"EXPLAIN", b"CHECK", b"KILL"))
_SOURCES = frozenset((b"SELECT", b"WITH", b"EXPLAIN", b"INFILE", b"WATCH"))
MAX_STATEMENT = 262_144  # bytes of SQL, as ClickHouse's max_query_size


class StatementError(ValueError):
    """The text is not exactly one statement; says what it is, in ClickHouse's words."""


class Statement(NamedTuple):
    """A statement, cut at its seams.

    `kind`: `select`, `insert` (data follows), `insert_select` (data may follow, for `input()`), or `other`. `verb` is
    the first keyword. `head` is the text before the FORMAT clause, `format` the name in it (empty: none), `tail` what
    stands after it (a SETTINGS clause), `data` the offset in the text at which an INSERT's data begins. `words` are the
    keywords and names that stand outside of brackets, in upper case.
    """

    kind: str
    verb: str
    head: bytes
    format: str
    tail: bytes
    data: int
    words: frozenset[bytes]
    reads_input: bool = False

    @property
    def private(self) -> bool:
        """It changes the connection that it runs on."""
        return self.verb in ("SET", "USE") or b"TEMPORARY" in self.words

    @property
    def answers(self) -> bool:
        """It has an answer that FORMAT applies to."""
        return self.kind == "select" or self.verb.encode() in _ANSWERING


class _Token(NamedTuple):
    word: bytes  # upper case; empty for all else
    sign: str  # "open", "close", "end", "" for all else
    start: int
    end: int
    depth: int


def _tokens(text: bytes) -> Iterator[_Token]:
    """What is not closed reaches to the end, so that every character is looked at once; the engine refuses it."""
    depth = at = dollars = 0
    while match := _TOKEN.match(text, at):
        at = match.end()
        kind = match.lastgroup
        if kind == "space":
            continue
        if kind == "tag":
            at = _end_of_text(text, match)
            if at == match.start() + 1 and (dollars := dollars + 1) > _DOLLARS:
                raise StatementError(f"Syntax error: more than {_DOLLARS} signs $ that begin no text")
        if kind == "close":
            depth -= 1
        yield _Token(
            match.group().upper() if kind == "word" else b"",
            kind if kind in ("open", "close", "end") else "",
            match.start(),
            at,
            depth,
        )
        if kind == "open":
            depth += 1


def _end_of_text(text: bytes, tag: re.Match[bytes]) -> int:
    """Where a text between two tags such as $x$ ends; behind the sign, if there is no second tag."""
    found = text.find(tag.group(), tag.end())
    return tag.start() + 1 if found < 0 else found + len(tag.group())


@lru_cache(maxsize=512)
def parse(text: bytes) -> Statement:
    """Cut a statement at its seams; an INSERT's data may follow it in `text`. Raises StatementError."""
    for token in _tokens(text):
        if token.word == b"INSERT":
            return _insert(text)
        if token.sign != "open":
            break
    else:
        raise StatementError("Syntax error: the statement is empty")
    return _query(text)


def _query(text: bytes) -> Statement:
    top: list[_Token] = []
    end = len(text)
    first = b""
    for token in _tokens(text):
        if end < len(text):
            if token.sign == "end":
                continue
            raise StatementError("Syntax error (Multi-statements are not allowed): there is text after the first ';'")
        first = first or token.word
        if token.depth > 0 or token.sign in ("open", "close"):
            continue
        if token.sign == "end":
            end = token.start
        else:
            top.append(token)
    words = frozenset(token.word for token in top if token.word)
    kind = "select" if first in _SELECTS and b"INSERT" not in words else "other"
    if b"INSERT" in words:
        kind = "insert_select"
    for clause, name, after in zip(top, top[1:], [*top[2:], None], strict=False):
        if clause.word == b"FORMAT" and name.word and (after is None or after.word == b"SETTINGS"):
            named = text[name.start : name.end].decode()
            return Statement(kind, first.decode(), text[: clause.start], named, text[name.end : end], end, words)
    return Statement(kind, first.decode(), text[:end], "", b"", end, words)


def _insert(text: bytes) -> Statement:
    last = _Token(b"", "", 0, 0, 0)
    words: set[bytes] = set()
    kind, reads_input = "insert", False
    for token in _tokens(text):
        reads_input = reads_input or (token.word == b"INPUT" and kind == "insert_select")
        if token.depth == 0:
            if token.sign == "end":
                _refuse_second(text[token.end :])
                return Statement(kind, "INSERT", text[: token.start], "", b"", len(text), frozenset(words), reads_input)
            if last.word == b"FORMAT" and token.word:
                name = text[token.start : token.end].decode()
                data = _data_start(text, token.end)
                return Statement(kind, "INSERT", text[: last.start], name, b"", data, frozenset(words), reads_input)
            if token.word == b"VALUES" and kind == "insert":
                return Statement(kind, "INSERT", text[: token.start], "Values", b"", token.end, frozenset(words))
            if token.word in _SOURCES:
                kind = "insert_select"
            words.add(token.word)
        last = token
    return Statement(kind, "INSERT", text, "", b"", len(text), frozenset(words), reads_input)


def _data_start(text: bytes, after: int) -> int:
    start = _DATA_START.match(text, after)
    return start.end() if start else after


def _refuse_second(rest: bytes) -> None:
    if any(token.sign != "end" for token in _tokens(rest)):
        raise StatementError("Syntax error (Multi-statements are not allowed): there is text after the first ';'")
