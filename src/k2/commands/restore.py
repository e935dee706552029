"""`k2 restore` and `k2 rederive`: the hot store, or the trades themselves, anew from the cold tier."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from k2.commands import verify as proof
from k2.commands.tier import progress
from k2.config import EXCHANGES, Config, ConfigError
from k2.log import LogError
from k2.metrics import read_status
from k2.ops.report import passed
from k2.ops.verify import CannotVerifyError, verify
from k2.store import StoreError, StoreUnavailable
from k2.terminal import note
from k2.tier import Progress, TierError
from k2.wire import open_store

MINUTE = 60_000_000_000
LOADER_WITHIN = 600.0  # s that --verify waits for somebody to start a loader
SHOWN = 20


@contextmanager
def _said(command: str) -> Iterator[None]:
    """What goes wrong is told in a line, and ends the command with 2."""
    from k2.ops.rederive import CannotRederiveError
    from k2.ops.restore import CannotRestoreError

    try:
        yield
    except StoreUnavailable as error:
        note(f"k2 {command}: {error}; start it with `k2 store`")
        sys.exit(2)
    except (
        CannotRestoreError, CannotRederiveError, CannotVerifyError, TierError, LogError, StoreError, ConfigError
    ) as error:  # fmt: skip
        note(f"k2 {command}: {error}")
        sys.exit(2)


@click.command()
@click.option("--from", "source", type=click.Choice(("cold",)), required=True, help="What to restore from.")
@click.option("--since", type=proof.Moment(), help="From this exchange time on (UTC); default: store.trades_days ago.")
@click.option("--until", type=proof.Moment(), help="Before this exchange time (UTC); default: all there is.")
@click.option("--without-log", is_flag=True, help="The log is lost as well: fill the store to be read, and no more.")
@click.option("--verify", "prove", is_flag=True, help="Then wait for a loader to be started, and prove the whole.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@click.option("--json", "as_json", is_flag=True, help="What was done as one JSON object.")
@click.pass_obj
def restore(
    config: Config, source: str, since: int | None, until: int | None, without_log: bool, prove: bool, yes: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Fill an empty hot store from the cold tier: trades of a span of time, all candles, the gap ledger, new frames.

    The store must run (`k2 store`), a loader must not. Trades outside of the span are answered by the cold tier. Times
    are taken as whole minutes. Safe to interrupt: run it again. Afterwards `k2 up` or `k2 load` goes on from there.

    \b
    Exit status: 0 done (with --verify: and proven), 1 not proven, 2 it could not be done (the text says why).
    Examples:
      k2 restore --from cold                        as much as is kept hot
      k2 restore --from cold --since 1970-01-01     everything
      k2 restore --from cold --since 2026-01-30 --yes --verify
    """
    from k2.ops import restore as restoring

    now = time.time_ns()
    since = restoring.window(now, config.store.trades_days) if since is None else since // MINUTE * MINUTE
    until = None if until is None else -(-until // MINUTE) * MINUTE
    span = f"from {_day(since) if since else 'the beginning'} to {_day(until) if until else 'the end'}"
    if not yes:
        click.confirm(f"Fill the store at {config.store_url} with the trades {span}?", abort=True, err=True)
    begun = time.monotonic()
    with _said("restore"), progress() as on_progress:
        found = restoring.restore(
            config,
            since,
            until,
            now,
            without_log,
            note,
            lambda step: on_progress(Progress(step.table, step.done, step.total)),
        )
    _show_restored(found, time.monotonic() - begun, as_json)
    if without_log:
        note("this store is for reading: nothing can be captured into this folder any more; see docs/runbooks")
    elif prove:
        with _said("restore"):
            _wait_for_loader(config)
            report = verify(config, say=note)
        proof.show(report)
        sys.exit(0 if passed(report) else 1)
    else:
        note("now start `k2 up` (or `k2 load`), then prove it with `k2 verify`")


def _show_restored(found: Any, seconds: float, as_json: bool) -> None:
    for stream, count in found.lost.items():
        note(f"NOT OK   {count} records of {stream} are in neither the cold tier nor the log: they are lost")
    if as_json:
        click.echo(msgspec.json.encode({**found._asdict(), "seconds": round(seconds, 3)}))
        return
    click.echo(
        f"restored {found.trades:,} trades, {found.candles:,} one-minute candles, {found.gaps:,} events of the gap"
        f" ledger and {found.frames:,} frames in {seconds:.1f} s"
    )
    for first, end in found.cold:
        click.echo(f"the cold tier answers for {_day(first) if first else 'all'} up to {_day(end)}")
    if found.left:
        click.echo(f"the log holds {found.left:,} records more, for the loader to load")


def _wait_for_loader(config: Config) -> None:
    note("start `k2 up` or `k2 load` now, to have the rest of the log loaded and all of it proven")
    deadline = time.monotonic() + LOADER_WITHIN
    while time.monotonic() < deadline:
        if "loader" in read_status(config.run_dir) and _answers(config):
            return
        time.sleep(0.2)
    raise CannotVerifyError(f"no loader came within {LOADER_WITHIN:.0f} s: start one, then `k2 verify`")


def _answers(config: Config) -> bool:
    store = open_store(config)
    try:
        store.rows("SELECT 1")
    except StoreUnavailable:
        return False
    finally:
        store.close()
    return True


def _day(ns: int) -> str:
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).isoformat(" ", "minutes").removesuffix("+00:00")


# -- rederive ----------------------------------------------------------------------------------------------------------


@click.command()
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), required=True, help="The new data folder.")
@click.option("--exchange", type=click.Choice(EXCHANGES), help="Only this exchange.")
@click.option("--since", type=proof.Moment(), help="Only frames received from this time on (UTC).")
@click.option("--until", type=proof.Moment(), help="Only frames received before this time (UTC).")
@click.option("--changes-expected", is_flag=True, help="The decoder was mended: new and changed trades are no failure.")
@click.option("--json", "as_json", is_flag=True, help="The whole report as one JSON object.")
@click.pass_obj
def rederive(
    config: Config, into: Path, exchange: str | None, since: int | None, until: int | None, changes_expected: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Decode the archived raw frames again, into a new data folder, prove it, and compare it with the archived trades.

    The frames go through today's decoder into a log, a store and candles of their own. The old folder is only read.

    \b
    Exit status: 0 all is proven and nothing differs, 1 something is not, 2 it could not be done (the text says why).
    Examples:
      k2 rederive --into k2-again
      k2 rederive --into kraken-mended --exchange kraken --changes-expected
      k2 rederive --into one-day --since 2026-01-31 --until 2026-02-01 --json
    """
    from k2.ops.rederive import Wanted
    from k2.ops.rederive import rederive as again

    wanted = Wanted((exchange,) if exchange else EXCHANGES, since, until)
    with _said("rederive"), progress() as on_progress:
        found = again(
            config,
            into,
            wanted,
            changes_expected,
            note,
            lambda step: on_progress(Progress(step.exchange, step.done, step.total)),
        )
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        _show_rederived(found)
    sys.exit(0 if passed(found) else 1)


def _show_rederived(found: dict[str, Any]) -> None:
    results = found["results"]
    for name, derived in results["derived"].items():
        if not derived["frames"]:
            continue
        compared = results["contrast"][name]
        click.echo(
            f"{name}: {derived['frames']:,} frames gave {derived['trades']:,} trades: {compared['equal']:,} equal,"
            f" {compared['changed']:,} changed, {compared['missing']:,} missing, {compared['new']:,} new"
        )
        fields = ", ".join(f"{field} in {count:,}" for field, count in compared["fields"].items() if count)
        if fields:
            click.echo(f"         changed: {fields}")
        for one in compared["shown"][:SHOWN]:
            click.echo(f"         {msgspec.json.encode(one).decode()}")
    failed = [check for check in found["checks"] if not check["ok"]]
    for check in failed:
        click.echo(f"NOT OK   {check['name']}: {check['value']} (wanted {check['target']})")
    click.echo(
        f"not proven: {len(failed)} of {len(found['checks'])} checks failed"
        if failed
        else f"proven: {results['verify']['trades']} trades, each there once, and every candle"
    )
