"""`k2 archive maintain` and `k2 archive audit`."""

import sys
import time
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from k2.commands.tier import log_of, progress, said
from k2.config import EXCHANGES, Config
from k2.ops import journal
from k2.ops.cold import let_go, maintained_file, make_visible
from k2.terminal import emit, note
from k2.tier import verdict
from k2.wire import open_archive, open_catalog, open_store, read_heads

if TYPE_CHECKING:
    from k2.tier.keep.maintenance import Step
    from k2.tier.prove.audit import Audit

CAUSES = ("file", "misplaced", "ahead", "lost")  # told first: what else is found may come of them
ROWS_SHOWN = 3  # of a finding, to a person
DAY_NS = 86_400_000_000_000
STEP_COLUMNS = ("step", "table", "part", "files", "into", "rows", "bytes", "into_bytes", "note")


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def maintain(config: Config, dry_run: bool, as_json: bool) -> None:
    """Keep the cold tier: offload, expire snapshots, remove orphans, compact files, seal closed days; then let the hot
    store go of what is old and safely in cold.

    One at a time, under a lease; it may be killed anywhere, the next run completes it.

    \b
    Exit status: 0 all was done, 1 something was not (the text says what).
    Examples:
      k2 archive maintain
      k2 archive maintain --dry-run
    """
    journal.setup(config, "maintain")
    with said("archive maintain"):
        steps, failed = _maintain(config, dry_run)
        heads = read_heads(config)
        visible = None if dry_run else make_visible(config, heads)
        expiry, words = let_go(config, heads, dry_run, lambda _: None)
    if visible and visible.why_not:
        note(visible.why_not)
    if words:
        note(words)
    if as_json:
        found = {
            "dry_run": dry_run,
            "steps": [step._asdict() for step in steps],
            "hot": [step._asdict() for step in expiry.steps],
            "hot_from": expiry.hot_from,
            "words": words,
        }
        click.echo(msgspec.json.encode(found))
    else:
        _show_steps(steps, expiry.steps)
    if failed:
        note(f"k2 archive maintain: {failed}")
        sys.exit(1)
    if not dry_run:
        maintained_file(config).touch()


def _maintain(config: Config, dry_run: bool) -> "tuple[list[Step], str]":
    from k2.tier.keep.lease import this_process
    from k2.tier.keep.maintenance import Incomplete, Maintenance

    with progress() as on_progress:
        if not dry_run:
            with log_of(config) as log:
                open_archive(config, log).run(on_progress)
        work = Maintenance(open_catalog(config), config.tier, time.time_ns, this_process(), config.cold_dir / "spill")
        try:
            return work.run(dry_run, on_progress), ""
        except Incomplete as error:
            return error.steps, str(error)


def _show_steps(steps: "list[Step]", hot: Any) -> None:
    rows: list[tuple[Any, ...]] = [
        (
            step.name, step.table, step.part, step.files_in, step.files_out, step.rows, step.bytes_in, step.bytes_out,
            step.error or _also(step),
        )
        for step in steps
    ]  # fmt: skip
    rows += [(step.what, f"hot {step.table}", step.day, None, None, step.rows, None, None, "") for step in hot]
    if rows:
        emit(STEP_COLUMNS, rows, spare=("into_bytes", "bytes"))
    else:
        note("nothing to do: the cold tier is as it should be")


def _also(step: "Step") -> str:
    parts = [f"{step.snapshots} snapshots"] if step.snapshots else []
    parts += [f"{step.proofs} proofs"] if step.proofs else []
    if step.foreign:
        parts.append(f"not ours, left alone: {', '.join(step.foreign[:3])}" + (" ..." if len(step.foreign) > 3 else ""))
    return "; ".join(parts)


@click.command()
@click.option("--against", type=click.Choice(("log", "hot")), default="log", show_default=True, help="The other side.")
@click.option("--exchange", type=click.Choice(EXCHANGES), help="Only this exchange.")
@click.option("--symbol", help="Only this symbol, e.g. BTC-USDT (frames are left out then).")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="Only this UTC day.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def audit(
    config: Config, against: str, exchange: str | None, symbol: str | None, day: datetime | None, as_json: bool
) -> None:
    """Compare the cold tier with the log, or with the hot store, record by record and both ways.

    What is missing, in excess, there twice or different is named. Ids must be dense but for what the gap ledger calls
    unavailable, and sealed days must still fit their proofs. Nothing is changed; everything may go on meanwhile.

    \b
    Exit status: 0 no difference, 1 differences, 2 the question could not be answered.
    Examples:
      k2 archive audit
      k2 archive audit --against hot --day 2026-01-31
      k2 archive audit --exchange kraken --symbol BTC-USD --json
    """
    with said("archive audit", code=2):
        found = _audit(config, against, exchange, symbol.upper() if symbol else None, day.date() if day else None)
    _leave_word(config, verdict.of(found, exchange, symbol, day.date() if day else None, time.time_ns() // 1_000_000))
    if as_json:
        plain = {**found._asdict(), "ok": found.ok, "rate": round(found.rate)}
        plain["tables"] = {name: one._asdict() for name, one in found.tables.items()}
        plain["findings"] = [{**one._asdict(), "shown": [row._asdict() for row in one.shown]} for one in found.findings]
        click.echo(msgspec.json.encode(plain))
    else:
        _show_audit(found)
    sys.exit(0 if found.ok else 1)


def _audit(config: Config, against: str, exchange: str | None, symbol: str | None, day: date | None) -> "Audit":
    from k2.tier.prove.audit import Scope
    from k2.tier.prove.audit import audit as compare

    store = open_store(config) if against == "hot" else None
    try:
        with log_of(config) as log, progress() as on_progress:
            scope = Scope(exchange, symbol, day)
            frames_from = _frames_from(config.store.frames_days)
            return compare(open_catalog(config), log, store, scope, frames_from_ns=frames_from, on_progress=on_progress)
    finally:
        if store:
            store.close()


def _leave_word(config: Config, one: verdict.Verdict) -> None:
    try:
        verdict.leave(config.cold_dir, one)
    except OSError as error:
        note(f"k2 archive audit: its verdict could not be left in {config.cold_dir} ({error})")


def _frames_from(days: float) -> int:
    """The hot store lets go of frames by whole UTC days."""
    return int(time.time_ns() - days * DAY_NS) // DAY_NS * DAY_NS if days else 0


def _show_audit(found: "Audit") -> None:
    other = "log" if found.against == "log" else "hot store"
    for name, one in found.tables.items():
        click.echo(f"cold.{name}: {one.rows:,} rows, {one.other_rows:,} in the {other}")
    for finding in sorted(found.findings, key=lambda one: one.kind not in CAUSES):
        click.echo(f"NOT OK   {finding.text}")
        for row in finding.shown[:ROWS_SHOWN]:
            click.echo(f"         {row.id}: {row.text}")
        if len(finding.shown) > ROWS_SHOWN:
            click.echo(f"         ... (--json shows the first {len(finding.shown)})")
    verdict = "no difference" if found.ok else f"{len(found.findings)} findings"
    when = datetime.now(UTC).strftime("%H:%M:%S")
    click.echo(f"{verdict}; {found.rate:,.0f} rows/s, {found.seconds:.1f} s, {when} UTC")
