"""API keys: made and revoked by `k2 keys`, hashed at rest, checked at every request.

A key is `k2_<id>_<secret>`: the id finds the record, the secret (256 random bits) is known by a salted hash only. The
file is watched: what `k2 keys` writes counts within a second, without a restart.
"""

import fcntl
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

_LOOK_EVERY = 0.25  # s between two looks at the file
_MAX_LENGTH = 128
_PERSON = b"k2-api-key"
_NO_SALT = bytes(16)


class KeysError(Exception):
    """The keys cannot be read or written; the text says which file and what to do."""


class KeyRefused(Exception):
    """This is no key that counts: `reason` is unknown, revoked or expired."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the key is {reason}")
        self.reason = reason


class Key(NamedTuple):
    """What is known of a key; never the key itself. Times are ns UTC, 0 for never. `rate` 0: as configured."""

    id: str
    name: str
    created: int
    expires: int = 0
    revoked: int = 0
    rate: float = 0.0

    @property
    def prefix(self) -> str:
        """How the key begins, to tell which one it is."""
        return f"k2_{self.id}_"

    def state(self, now_ns: int) -> str:
        """active, revoked or expired."""
        if self.revoked:
            return "revoked"
        return "expired" if self.expires and now_ns >= self.expires else "active"


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    name: str
    salt: str
    hash: str
    created: int
    expires: int = 0
    revoked: int = 0
    rate: float = 0.0

    def key(self) -> Key:
        return Key(self.id, self.name, self.created, self.expires, self.revoked, self.rate)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[_Record]
    version: int = 1


def create(file: Path, name: str, expires: int = 0, rate: float = 0.0) -> tuple[Key, str]:
    """Make a key. Returns it, and the text that is shown this once. Raises KeysError."""
    if not name or len(name) > 64 or not name.isprintable():
        raise KeysError("a key's name has 1 to 64 printable characters")
    now = time.time_ns()
    with _changing(file) as content:
        if any(record.name == name and record.key().state(now) == "active" for record in content.keys):
            raise KeysError(f"an active key is already named {name!r}: choose another name, or revoke that one first")
        taken = {record.id for record in content.keys}
        identity = next(text for text in iter(lambda: secrets.token_hex(4), "") if text not in taken)
        secret = secrets.token_urlsafe(32)
        salt = secrets.token_bytes(16)
        record = _Record(identity, name, salt.hex(), _hashed(secret, salt), now, expires, 0, rate)
        content.keys.append(record)
    return record.key(), f"k2_{identity}_{secret}"


def revoke(file: Path, which: str) -> Key:
    """End the key with this id, prefix or name, for ever. Raises KeysError."""
    with _changing(file) as content:
        identity = which.removeprefix("k2_").removesuffix("_")
        found = [record for record in content.keys if record.id == identity] or [
            record for record in content.keys if record.name == which and not record.revoked
        ]
        if not found:
            raise KeysError(f"no key {which!r} in {file}: `k2 keys list` shows their ids and names")
        if not found[0].revoked:
            found[0].revoked = time.time_ns()
    return found[0].key()


def listed(file: Path) -> list[Key]:
    """All keys that were ever made, revoked ones too. Raises KeysError."""
    return [record.key() for record in _read(file).keys]


def last_used(file: Path) -> dict[str, int]:
    """When each key was last used (ns UTC), by its id, as servers noted it."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, int])
    except (OSError, msgspec.MsgspecError):
        return {}


class Keys:
    """The keys of a file, as a server sees them. Used in the event loop only.

    `required`: whether requests need a key: always once one was made (revoking the last one locks everybody out), and
    with `always`. A file that cannot be read lets nobody in.
    """

    def __init__(self, file: Path, always: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._always = always
        self._clock = clock
        self._looked = float("-inf")
        self._seen: tuple[int, int, int] | None = None
        self._records: dict[str, _Record] = {}
        self._trouble = ""
        self._used: dict[str, int] = {}
        self.refresh()

    @property
    def required(self) -> bool:
        return self._always or bool(self._records) or bool(self._trouble)

    @property
    def trouble(self) -> str:
        """Why the keys cannot be read; empty if they can."""
        return self._trouble

    def refresh(self) -> None:
        """Look at the file, unless that was done just now."""
        now = self._clock()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        try:
            status = self._file.stat()
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        except FileNotFoundError:
            self._seen, self._records, self._trouble = None, {}, ""
            return
        except OSError as error:
            self._trouble = f"{self._file} cannot be read: {error.strerror}"
            return
        if seen == self._seen and not self._trouble:
            return
        try:
            self._records = {record.id: record for record in _read(self._file).keys}
            self._seen, self._trouble = seen, ""
        except KeysError as error:
            self._trouble = str(error)

    def check(self, text: str) -> Key:
        """The key that this text is. Raises KeyRefused, KeysError. Takes the same time whether the id is known."""
        self.refresh()
        if self._trouble:
            raise KeysError(self._trouble)
        head, secret = text[:12], text[12:]
        known = head[:3] == "k2_" and head[11:] == "_" and len(text) <= _MAX_LENGTH
        record = self._records.get(head[3:11]) if known else None
        salt = bytes.fromhex(record.salt) if record else _NO_SALT
        same = hmac.compare_digest(_hashed(secret[:_MAX_LENGTH], salt), record.hash if record else "")
        if record is None or not same:
            raise KeyRefused("unknown")
        key = record.key()
        now = time.time_ns()
        if (state := key.state(now)) != "active":
            raise KeyRefused(state)
        self._used[key.id] = now
        return key

    def counts(self, key: Key | None) -> bool:
        """Whether a request that began with this key (None: without one) may go on."""
        self.refresh()
        if key is None:
            return not self.required
        record = self._records.get(key.id)
        return not self._trouble and record is not None and record.key().state(time.time_ns()) == "active"

    def note_used(self, file: Path) -> None:
        """Write down when keys were last used, if any was since the last time. Raises OSError."""
        if self._used:
            merged = {**last_used(file), **self._used}
            self._used = {}
            _write(file, msgspec.json.encode(merged))


def _hashed(secret: str, salt: bytes) -> str:
    data = secret.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(data, digest_size=32, salt=salt, person=_PERSON).hexdigest()


def _read(file: Path) -> _File:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_File)
    except FileNotFoundError:
        return _File([])
    except OSError as error:
        raise KeysError(f"{file} cannot be read: {error.strerror}; let it belong to the user that runs k2") from None
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise KeysError(
            f"{file} is no file of keys ({error}): restore it, or remove it and make new keys with `k2 keys create`"
        ) from None


@contextmanager
def _changing(file: Path) -> Iterator[_File]:
    """The file's content, to be changed; written whole at the end. One at a time, also among processes."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            content = _read(file)
            yield content
            _write(file, msgspec.json.format(msgspec.json.encode(content)))
    except OSError as error:
        raise KeysError(f"{file} cannot be written: {error.strerror}") from None


def _write(file: Path, body: bytes) -> None:
    part = file.with_suffix(f".{os.getpid()}.part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as target:
        target.write(body)
        target.flush()
        os.fsync(target.fileno())
    part.replace(file)
