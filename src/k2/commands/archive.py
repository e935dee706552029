"""`k2 archive`: the cold tier, filled, kept, proven, and looked back on."""

import time
from collections.abc import Mapping
from importlib import import_module

import click
import msgspec

from k2.commands.tier import log_of, progress, said, told_to_stop
from k2.config import EXCHANGES, Config
from k2.ops import journal
from k2.ops.cold import Visible, make_visible
from k2.terminal import emit, note
from k2.tier import Written
from k2.tier.heads import behind
from k2.wire import open_archive, read_heads

PARTS = {
    "audit": "k2.commands.keep",
    "diff": "k2.commands.past",
    "maintain": "k2.commands.keep",
    "snapshots": "k2.commands.past",
}


class _Parts(click.Group):
    """Imports a part when it is used: a run with nothing new is mostly imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(PARTS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in PARTS:
            return None
        command: click.Command = getattr(import_module(PARTS[cmd_name]), cmd_name)
        return command


@click.group(cls=_Parts, invoke_without_command=True)
@click.option("--every", is_flag=True, help="Stay, offload every tier.every_s and maintain daily at tier.maintain_at.")
@click.option("--json", "as_json", is_flag=True, help="What was done as one JSON object.")
@click.pass_context
def archive(ctx: click.Context, every: bool, as_json: bool) -> None:
    """Move what the log has and the cold tier lacks into its Iceberg tables, each record exactly once.

    Safe to interrupt anywhere, and to run beside everything else; two at once: one wins, the other says so.

    \b
    Exit status: 0 all is archived, 1 it is not (the text says why, and what to do).
    Examples:
      k2 archive                       now
      k2 archive --every               as a service, as `k2 up` runs it
      k2 archive maintain --dry-run    what a maintenance would do
      k2 archive audit                 log against cold, record by record
    """
    if ctx.invoked_subcommand:
        return
    config: Config = ctx.obj
    with said("archive"):
        if every:
            _stay(config)
        else:
            journal.setup(config, "archive")
            _offload(config, as_json)


def _stay(config: Config) -> None:
    from k2.metrics import serve
    from k2.ops.archiver import Resident

    journal.setup(config, "archiver")
    stop = told_to_stop()
    with log_of(config) as log:
        serve(config, "archiver")
        Resident(config, log, stop).run()


def _offload(config: Config, as_json: bool) -> None:
    begun = time.monotonic()
    stop = told_to_stop()
    with log_of(config) as log:
        written: Mapping[str, Written] = {}
        if behind(log, read_heads(config), EXCHANGES):
            with progress() as on_progress:
                written = open_archive(config, log).run(on_progress, stop.is_set)
        heads = read_heads(config)
        left = sum(behind(log, heads, EXCHANGES).values()) if stop.is_set() else 0
    _show_offload(written, left, make_visible(config, heads), time.monotonic() - begun, as_json)


def _show_offload(written: Mapping[str, Written], left: int, visible: Visible, seconds: float, as_json: bool) -> None:
    if as_json:
        found = {
            "tables": {name: one._asdict() for name, one in written.items()},
            "left": left,
            "visible": visible._asdict(),
            "seconds": round(seconds, 3),
        }
        click.echo(msgspec.json.encode(found))
        return
    if any(one.commits for one in written.values()):
        emit(
            ("table", "rows", "duplicates", "files", "bytes", "commits"),
            [(name, w.rows, w.duplicates, w.files, w.bytes, w.commits) for name, w in written.items()],
        )
        note(f"in {seconds:.1f} s" + (f"; interrupted, {left:,} records are left: run again" if left else ""))
    else:
        note("nothing new: the cold tier has all that the log holds")
    if visible.why_not:
        note(visible.why_not)
