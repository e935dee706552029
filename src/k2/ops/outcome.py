"""What the last `k2 verify` came to, left in a small file in the data folder for whoever shows it or sounds the alarm.

A proof of a part (one exchange, symbol or span of time) never takes the place of one of the whole.
"""

import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

FILE = "last_verify.json"


class Outcome(msgspec.Struct):
    """One proof. `at` in epoch seconds; `missing` and `duplicates` are trades, by exchange; `failed` names checks."""

    at: float
    ok: bool
    missing: dict[str, int]
    duplicates: dict[str, int]
    failed: list[str]


class Outcomes(msgspec.Struct):
    """The last proof of the whole, and the last one of a part."""

    whole: Outcome | None = None
    part: Outcome | None = None


def of(found: Mapping[str, Any], now: float) -> Outcome:
    """The report of a proof in short."""
    missing: Counter[str] = Counter()
    duplicates: Counter[str] = Counter()
    for one in found["results"]["symbols"]:
        missing[one["exchange"]] += sum(last - first + 1 for first, last in one["missing"])
        duplicates[one["exchange"]] += one["duplicates"]
    failed = [check["name"] for check in found["checks"] if not check["ok"]]
    return Outcome(now, not failed, dict(missing), dict(duplicates), failed)


def read(data_dir: Path) -> Outcomes:
    """What is known: nothing where no proof has ended yet, or the file is no such file."""
    try:
        return msgspec.json.decode((data_dir / FILE).read_bytes(), type=Outcomes)
    except (OSError, msgspec.MsgspecError):
        return Outcomes()


def leave(data_dir: Path, found: Mapping[str, Any], whole: bool) -> None:
    """Remember it; a reader sees the old file or the new one. Raises OSError."""
    known = read(data_dir)
    outcome = of(found, time.time())
    known = Outcomes(outcome, None) if whole else Outcomes(known.whole, outcome)
    part = data_dir / f"{FILE}.{os.getpid()}.part"
    part.write_bytes(msgspec.json.encode(known))
    part.replace(data_dir / FILE)
