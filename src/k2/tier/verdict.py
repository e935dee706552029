"""What the last audits of the cold tier found, left in a small file for whoever shows it.

An audit of a part (one exchange, symbol or day) says nothing of the rest: it never takes the place of one of the whole.
"""

import os
from collections import Counter
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from k2.tier.prove.audit import Audit

FILE = "last_audit.json"
TEXTS = 20  # findings that are kept in words


class Verdict(msgspec.Struct):
    """One audit. `at` in ms since 1970, when it ended; `seconds` is how long it took.

    `against` is "log" or "hot"; `exchange`, `symbol`, `day` (YYYY-MM-DD) narrow it, "" where they do not. `rows` were
    compared in cold; `snapshots`: table to the snapshot that was audited. `findings` counts what is wrong, by kind, and
    `texts` has the first of it in words.
    """

    at: int
    ok: bool
    against: str
    exchange: str
    symbol: str
    day: str
    rows: int
    seconds: float
    snapshots: dict[str, int | None]
    findings: dict[str, int]
    texts: list[str]

    @property
    def whole(self) -> bool:
        return not (self.exchange or self.symbol or self.day)


class Verdicts(msgspec.Struct):
    """The last audit of the whole, and the last one of a part."""

    whole: Verdict | None = None
    part: Verdict | None = None


def of(found: "Audit", exchange: str | None, symbol: str | None, day: date | None, at_ms: int) -> Verdict:
    """What an audit of this scope came to, in short."""
    return Verdict(
        at=at_ms,
        ok=found.ok,
        against=found.against,
        exchange=exchange or "",
        symbol=(symbol or "").upper(),
        day=day.isoformat() if day else "",
        rows=sum(one.rows for one in found.tables.values()),
        seconds=found.seconds,
        snapshots={name: one.snapshot_id for name, one in found.tables.items()},
        findings=dict(Counter(one.kind for one in found.findings)),
        texts=[one.text for one in found.findings[:TEXTS]],
    )


def read(folder: Path) -> Verdicts:
    """What is known in a cold tier's folder: nothing where no audit has ended yet, or the file is no such file."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Verdicts)
    except (OSError, msgspec.MsgspecError):
        return Verdicts()


def leave(folder: Path, verdict: Verdict) -> None:
    """Remember it; a reader sees the old file or the new one. Raises OSError."""
    known = read(folder)
    if verdict.whole:
        known.whole = verdict
    else:
        known.part = verdict
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{FILE}.{os.getpid()}.part"
    part.write_bytes(msgspec.json.encode(known))
    part.replace(folder / FILE)
