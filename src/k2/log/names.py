"""What may be appended, and under which names: the same for every backend."""

import re
from collections.abc import Sequence

from k2.log import Entry, LogError

RAW = ".raw"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,199}")
_DAMAGED = re.compile(r"\.damaged-\d+$")  # what a repair put aside


def is_stream(name: str) -> bool:
    """Whether this can be the name of a stream."""
    return bool(_NAME.fullmatch(name)) and not _DAMAGED.search(name.removesuffix(RAW))


def check_name(stream: str) -> None:
    """Raises ValueError on what is no stream's name."""
    if not is_stream(stream):
        raise ValueError(f"{stream!r} is no stream's name: letters, digits, dots and dashes, at most 200")


def check_entries(entries: Sequence[Entry]) -> None:
    """Raises ValueError or TypeError on what could not be read back as it was given."""
    for stream, keys, values in entries:
        if len(keys) != len(values):
            raise ValueError(f"stream {stream}: {len(keys)} keys for {len(values)} values")
        if not set(map(type, values)) <= {bytes}:
            raise TypeError(f"stream {stream}: values must be bytes")
        if not set(map(type, keys)) <= {str}:
            raise TypeError(f"stream {stream}: keys must be str")


def past_the_end(stream: str, offset: int, end: int) -> LogError:
    """A reader asks for what was never written: its place belongs to another log."""
    return LogError(
        f"stream {stream} ends at offset {end}, but {offset} was asked for: the log is younger than who reads it; "
        "give the reader the log that it has read so far, or let it begin anew"
    )
