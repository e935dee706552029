"""What goes wrong below the cold tier, as a TierError: what happened, to what, and what to do about it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from pyiceberg import exceptions as iceberg
from sqlalchemy.exc import SQLAlchemyError

from k2.config import without_secrets
from k2.tier import TierError

_ICEBERG = tuple(kind for kind in vars(iceberg).values() if isinstance(kind, type) and issubclass(kind, Exception))
BELOW = (OSError, pa.ArrowException, SQLAlchemyError, ValueError, *_ICEBERG)

_ADVICE = {
    errno.ENOSPC: "there is no space left: free some, then run again",
    errno.EDQUOT: "the quota is used up: free some space, then run again",
    errno.EFBIG: "a file may not grow that large here (ulimit -f): raise the limit, then run again",
    errno.EROFS: "the storage is mounted read-only: make it writable, then run again",
    errno.EACCES: "this user may not write there: mend the permissions, then run again",
    errno.EPERM: "this user may not write there: mend the permissions, then run again",
    errno.ENOENT: "a file or folder is gone: bring the storage back (is it mounted?), then run again",
    errno.EIO: "the storage reports an error: look at the disk (dmesg), then run again",
}
_SAFE = "what cold holds is whole"


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Raise a TierError that begins with `doing` in place of what PyIceberg and the libraries below it raise.

    Errors that callers tell apart themselves (`CommitFailedException`, say) are caught inside.
    """
    try:
        yield
    except TierError:
        raise
    except BELOW as error:
        said = without_secrets(f"{doing}: {_said(error)}")
        raise TierError(f"{said}; {_advice(error)}. {_SAFE.capitalize()}") from error


def _said(error: BaseException) -> str:
    """The error's own words, in one line; SQLAlchemy adds the statement and a link, which say nothing to a person."""
    text = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    return " ".join(text.split())[:400]


def _advice(error: BaseException) -> str:
    number = next((found for cause in _causes(error) if (found := getattr(cause, "errno", None))), None)
    text = str(error)
    if number in _ADVICE:
        return _ADVICE[number]
    if isinstance(error, SQLAlchemyError):
        if "locked" in text:
            return "another process holds the catalog: let it end, then run again"
        if "full" in text:
            return _ADVICE[errno.ENOSPC]
        if "readonly" in text:
            return "this user may not write the catalog: mend the permissions, then run again"
        return "the catalog cannot be used: see that it is there and whole (or restore it), then run again"
    if isinstance(error, pa.ArrowInvalid | iceberg.ValidationError):
        return "a file of the table is damaged: restore it from a backup, then run again"
    return "mend that, then run again"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
