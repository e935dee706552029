"""`k2 verify`: the proof, for people and for scripts."""

import sys
from datetime import UTC, datetime

import click
import msgspec
from rich.console import Console
from rich.table import Table

from k2.config import EXCHANGES, Config, ConfigError
from k2.log import LogError
from k2.ops.report import passed
from k2.ops.verify import CannotVerifyError, Result
from k2.ops.verify import verify as prove
from k2.store import StoreError, StoreUnavailable
from k2.terminal import note

SYMBOL_COLUMNS = (
    "exchange",
    "symbol",
    "first_id",
    "last_id",
    "expected",
    "present",
    "missing",
    "duplicates",
    "open_gaps",
)


class Moment(click.ParamType[int]):
    """A time as ISO 8601 (UTC where it says no zone), to ns since 1970."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a time like 2026-01-31T12:00 or 2026-01-31", param, ctx)
        since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
        return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


@click.command()
@click.option("--exchange", type=click.Choice(EXCHANGES), help="Only this exchange.")
@click.option("--symbol", help="Only this symbol, e.g. BTC-USDT.")
@click.option("--from", "since", type=Moment(), help="Only trades from this exchange time on (UTC).")
@click.option("--to", "until", type=Moment(), help="Only trades before this exchange time (UTC).")
@click.option("--json", "as_json", is_flag=True, help="The whole report as one JSON object.")
@click.pass_obj
def verify(
    config: Config, exchange: str | None, symbol: str | None, since: int | None, until: int | None, as_json: bool
) -> None:
    """Prove that nothing is missing: ids, duplicates, gaps, and every candle recomputed from the log.

    \b
    Exit status: 0 all is proven, 1 something is not, 2 the question could not be answered.
    Examples:
      k2 verify
      k2 verify --exchange kraken --symbol BTC-USD
      k2 verify --from 2026-01-31 --to 2026-02-01 --json
    """
    try:
        found = prove(config, exchange, symbol.upper() if symbol else None, since, until, note)
    except StoreUnavailable as error:
        note(f"k2 verify: {error}; start the store with `k2 up` or `k2 demo`")
        sys.exit(2)
    except (StoreError, LogError, ConfigError, CannotVerifyError) as error:
        note(f"k2 verify: {error}")
        sys.exit(2)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        show(found)
    sys.exit(0 if passed(found) else 1)


def show(found: Result) -> None:
    results = found["results"]
    rows = [[_cell(one[column]) for column in SYMBOL_COLUMNS] for one in results["symbols"]]
    if sys.stdout.isatty():
        console = Console(highlight=False)
        table = Table(*(column.replace("_", " ") for column in SYMBOL_COLUMNS), header_style="bold", box=None)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        click.echo("\t".join(SYMBOL_COLUMNS))
        for row in rows:
            click.echo("\t".join(row))
    click.echo()
    for interval, one in results["candles"].items():
        click.echo(f"{one['checked']:>8} {interval} candles recomputed, {one['different']} differ")
        for difference in one["shown"]:
            click.echo(f"         {msgspec.json.encode(difference).decode()}")
    click.echo()
    failed = [check for check in found["checks"] if not check["ok"]]
    for check in failed:
        click.echo(f"NOT OK   {check['name']}: {check['value']} (wanted {check['target']})")
    click.echo(
        f"not proven: {len(failed)} of {len(found['checks'])} checks failed"
        if failed
        else f"proven: {results['trades']} trades, each there once, and every candle"
    )


def _cell(value: object) -> str:
    if isinstance(value, list):
        shown = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in value[:3])
        return shown + (f" and {len(value) - 3} more" if len(value) > 3 else "") or "0"
    return str(value)
