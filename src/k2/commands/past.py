"""`k2 archive snapshots` and `k2 archive diff`: the cold tier as it was."""

import sys
from datetime import UTC, datetime

import click
import msgspec

from k2.commands.tier import progress, said
from k2.config import Config
from k2.terminal import emit, note
from k2.wire import open_catalog

TABLES = ("trades", "frames", "gaps", "ohlcv_1m", "proofs")
COLUMNS = ("snapshot", "time", "operation", "rows", "added", "removed", "files", "bytes", "")


@click.command()
@click.option("--table", type=click.Choice(TABLES), default="trades", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def snapshots(config: Config, table: str, as_json: bool) -> None:
    """List the snapshots that a cold table still has, oldest first.

    \b
    Examples:
      k2 archive snapshots
      k2 archive snapshots --table frames --json
    """
    from k2.tier.past.history import snapshots as listed

    with said("archive snapshots"):
        found = listed(open_catalog(config), table)
    if as_json:
        for one in found:
            click.echo(msgspec.json.encode(one._asdict()))
        return
    emit(
        COLUMNS,
        [
            (str(s.snapshot_id), _utc(s.time), s.operation, s.rows, s.added_rows, s.removed_rows, s.files, s.bytes,
             "current" if s.current else "")
            for s in found
        ],
        spare=("bytes", "files"),
    )  # fmt: skip


@click.command(context_settings={"ignore_unknown_options": True})  # -1d is a time
@click.argument("before")
@click.argument("after", default="")
@click.option("--table", type=click.Choice(TABLES), default="trades", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def diff(config: Config, before: str, after: str, table: str, as_json: bool) -> None:
    """What differs between two snapshots of a cold table, row by row: a compaction is no difference.

    BEFORE and AFTER (the current snapshot, if left out) are ids of `k2 archive snapshots`, or times.

    \b
    Exit status: 0 they were compared, 1 they could not be.
    Examples:
      k2 archive diff -1d
      k2 archive diff 2026-01-31T00:00:00Z 2026-02-01T00:00:00Z
      k2 archive diff 7707282298055536023 3051729675574597004 --json
    """
    from k2.tier.past.history import diff as compare
    from k2.tier.past.history import resolve
    from k2.tier.past.history import snapshots as listed

    with said("archive diff"):
        catalog = open_catalog(config)
        first = resolve(catalog, before, table).snapshot_id
        last = resolve(catalog, after, table).snapshot_id if after else listed(catalog, table)[-1].snapshot_id
        with progress() as on_progress:
            found = compare(catalog, first, last, table, on_progress)
    if as_json:
        changes = [{**one._asdict(), "shown": [row._asdict() for row in one.shown]} for one in found.changes]
        click.echo(msgspec.json.encode({**found._asdict(), "changes": changes, "totals": found.totals}))
        sys.exit(1 if found.unreadable else 0)
    rows = [(c.kind, c.exchange, c.symbol, c.epoch, c.total, _first(c.shown)) for c in found.changes]
    if rows:
        emit(("change", "exchange", "symbol", "epoch", "rows", "first"), rows)
    totals = ", ".join(f"{count:,} {kind}" for kind, count in found.totals.items())
    note(f"{totals or 'no difference'} from {first} to {last}; {found.files_read} files read")
    for text in found.unreadable:
        note(f"k2 archive diff: {text}")
    sys.exit(1 if found.unreadable else 0)


def _first(shown: tuple[tuple[int, str], ...]) -> str:
    return "; ".join(f"{number} {text}".strip() for number, text in shown[:2])


def _utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
