"""`/v1/archive`, `/v1/snapshots`: the cold tier, its tables and its past."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from k2.ask.times import format_time
from k2.config import Config
from k2.tier import TierError, verdict
from k2.web.answer import Plain
from k2.web.cold import ColdTable, Snapshot, histories, tables
from k2.web.flow import Job, Look
from k2.web.problems import Problem
from k2.web.route import Call, Nothing, Route
from k2.web.streams import in_thread

Table = Literal["trades", "frames", "gaps", "ohlcv_1m", "proofs"]
MAINTAINED = "maintained"  # a file of the cold tier: its time of change is when maintenance last ended well


class Audited(msgspec.Struct):
    """An audit of the cold tier (`k2 archive audit`) and its verdict."""

    time: Annotated[str, Meta(description="When it ended (RFC 3339, UTC).")]
    ok: Annotated[bool, Meta(description="No difference was found.")]
    against: Annotated[str, Meta(description="What cold was compared with: `log` or `hot`.")]
    exchange: Annotated[str, Meta(description="Only this exchange; empty: all.")]
    symbol: Annotated[str, Meta(description="Only this symbol; empty: all.")]
    day: Annotated[str, Meta(description="Only this UTC day; empty: all.")]
    rows: Annotated[int, Meta(description="Rows of cold that were compared.")]
    seconds: Annotated[float, Meta(description="How long it took.")]
    snapshots: Annotated[dict[str, str | None], Meta(description="Table to the snapshot that was audited.")]
    findings: Annotated[dict[str, int], Meta(description="What is wrong: number of findings by kind.")]
    texts: Annotated[list[str], Meta(description="The first findings in words.")]


class Archive(msgspec.Struct):
    """The cold tier as it is now."""

    tables: Annotated[list[ColdTable], Meta(description="Its tables, by name.")]
    rows: Annotated[int, Meta(description="Rows of all tables.")]
    bytes: Annotated[int, Meta(description="Size of all data files.")]
    bytes_per_trade: Annotated[float | None, Meta(description="Of `cold.trades`, all columns; null without trades.")]
    lag: Annotated[int, Meta(description="Records of the log that the cold tier lacks.")]
    lag_s: Annotated[float, Meta(description="Age of the oldest of them in seconds.")]
    every_s: Annotated[float, Meta(description="Time between two offloads in seconds; 0: none by themselves.")]
    maintain_at: Annotated[str, Meta(description="Time of the daily maintenance (UTC); empty: none by itself.")]
    last_offload: Annotated[
        str | None,
        Meta(description="When an offload last ended well, also with nothing to do; else the newest appending commit."),
    ]
    last_maintenance: Annotated[str | None, Meta(description="When maintenance last ended well; null: never.")]
    jobs: Annotated[dict[str, Job], Meta(description="What the running archiver says of its jobs; empty: none runs.")]
    last_audit: Annotated[Audited | None, Meta(description="The last audit of the whole tier; null: never.")]
    last_partial_audit: Annotated[
        Audited | None, Meta(description="The last audit of one exchange, symbol or day; null: never.")
    ]


class Snapshots(msgspec.Struct):
    """Snapshots of the cold tables."""

    data: Annotated[list[Snapshot], Meta(description="The snapshots, newest first.")]
    more: Annotated[int, Meta(description="Snapshots that are older than the last one shown.")]


class SnapshotsOf(msgspec.Struct, forbid_unknown_fields=True):
    """Which snapshots."""

    table: Annotated[list[Table], Meta(description="Only these tables; none: all.", examples=[["trades"]])] = []
    limit: Annotated[int, Meta(description="At most so many snapshots.", ge=1, le=10_000)] = 1_000


async def archive(call: Call[Nothing]) -> Plain:
    """`GET /v1/archive`."""
    parts = call.parts
    look = msgspec.convert(await parts.look(), Look)
    history = await _histories(parts.config)
    found = await in_thread(tables, history, parts.log, time.time_ns())
    audits = verdict.read(parts.config.cold_dir)
    trades = next((one for one in found if one.table == "trades"), None)
    tier = parts.config.tier
    return Plain(
        Archive(
            tables=found,
            rows=sum(one.rows for one in found),
            bytes=sum(one.bytes for one in found),
            bytes_per_trade=trades.bytes_per_row if trades else None,
            lag=sum(one.lag for one in found),
            lag_s=max((one.lag_s for one in found), default=0.0),
            every_s=tier.every_s,
            maintain_at=tier.maintain_at,
            last_offload=_last_offload(look, history),
            last_maintenance=_last_maintenance(parts.config),
            jobs=look.jobs,
            last_audit=_audited(audits.whole),
            last_partial_audit=_audited(audits.part),
        ),
        {"Cache-Control": "no-store"},
    )


async def snapshots(call: Call[SnapshotsOf]) -> Plain:
    """`GET /v1/snapshots`."""
    history = await _histories(call.parts.config)
    wanted: Sequence[str] = call.params.table or list(history)
    found = [one for name in wanted for one in history.get(name, [])]
    found.sort(key=lambda one: datetime.fromisoformat(one.time), reverse=True)
    shown = found[: call.params.limit]
    return Plain(Snapshots(shown, len(found) - len(shown)), {"Cache-Control": "no-store"})


async def _histories(config: Config) -> dict[str, list[Snapshot]]:
    try:
        return await in_thread(histories, config)
    except TierError as error:
        raise Problem(
            503, "The cold tier cannot be read", str(error), "`k2 archive audit` tells what of it is whole", "cold"
        ) from None


def _last_offload(look: Look, history: dict[str, list[Snapshot]]) -> str | None:
    job = look.jobs.get("offload")
    if job and job.last_success:
        return format_time(int(job.last_success * 1000) * 1_000_000, 3)
    times = [one.time for listed in history.values() for one in listed if one.operation == "append" and one.offsets]
    return max(times, key=datetime.fromisoformat, default=None)


def _last_maintenance(config: Config) -> str | None:
    try:
        changed = (config.cold_dir / MAINTAINED).stat().st_mtime
    except OSError:
        return None
    return datetime.fromtimestamp(changed, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _audited(known: verdict.Verdict | None) -> Audited | None:
    if known is None:
        return None
    return Audited(
        time=format_time(known.at * 1_000_000, 3),
        ok=known.ok,
        against=known.against,
        exchange=known.exchange,
        symbol=known.symbol,
        day=known.day,
        rows=known.rows,
        seconds=round(known.seconds, 3),
        snapshots={name: None if number is None else str(number) for name, number in known.snapshots.items()},
        findings=known.findings,
        texts=known.texts,
    )


ROUTES = (
    Route(
        "GET",
        "/v1/archive",
        archive,
        Nothing,
        Archive,
        "The cold tier as it is now",
        "Tables, sizes, bytes a trade, how far it is behind the log, the last offload, maintenance and audit.",
        "archive",
    ),
    Route(
        "GET",
        "/v1/snapshots",
        snapshots,
        SnapshotsOf,
        Snapshots,
        "Snapshots of the cold tables",
        "Each is a version of its table that can be asked for with `as_of`; the watermark says which records of the log"
        " it holds.",
        "archive",
    ),
)
