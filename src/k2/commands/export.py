"""`k2 export`: trades, candles, gaps and frames into files that other programs read."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from k2.config import EXCHANGES, Config
from k2.core.candle import INTERVALS
from k2.terminal import console, note

if TYPE_CHECKING:
    from k2.client.export import Export, Part

FORMATS = ("parquet", "csv", "arrow")
_NOTED_EVERY = 5.0  # s, where there is no terminal


@click.command()
@click.argument("what", type=click.Choice(("trades", "candles", "gaps", "frames")))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMATS), help="Default: as TARGET ends, else parquet.")
@click.option("--exchange", "exchanges", multiple=True, type=click.Choice(EXCHANGES), help="Only this one; repeatable.")
@click.option("--symbol", "symbols", multiple=True, help="Only this one (BTC-USDT, kraken:BTC-USD); repeatable.")
@click.option("--from", "start", metavar="TIME", help="RFC 3339, ns since 1970, or how long ago (-15m, -7d).")
@click.option("--to", "end", metavar="TIME", help="Before this time.")
@click.option("--first-id", type=int, help="Trades and gaps: from this trade id on.")
@click.option("--last-id", type=int, help="Trades and gaps: up to this trade id.")
@click.option("--interval", type=click.Choice(tuple(INTERVALS)), default="1m", show_default=True, help="Of candles.")
@click.option("--as-of", metavar="TIME|SNAPSHOT", help="Trades and candles as the cold tier was then.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option("--resume", is_flag=True, help="Keep files that are there, write the others.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object.")
@click.pass_obj
def export(
    config: Config, what: str, target: Path, form: str | None, exchanges: tuple[str, ...], symbols: tuple[str, ...],
    start: str | None, end: str | None, first_id: int | None, last_id: int | None, interval: str, as_of: str | None,
    force: bool, resume: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write trades, candles, gaps or frames as Parquet, CSV or Arrow files.

    A TARGET that ends in .parquet, .csv or .arrow is one file. Any other is a folder, with a file for each exchange,
    symbol and UTC day: exchange=kraken/symbol=BTC-USD/date=2026-01-31/trades.parquet. Works on a running platform and
    on a folder that nothing runs on. A file appears when it is whole, or not at all; an export that was broken off
    goes on with --resume. Exit code 1 if nothing matches or a file could not be written.

    \b
    Examples:
      k2 export trades btc.parquet --symbol BTC-USDT --from -1d
      k2 export trades market/ --from 2026-01-01 --to 2026-02-01 --resume
      k2 export candles candles.csv --interval 1h
      k2 --data k2-demo export gaps gaps.arrow --json
    """
    from k2.client.errors import K2Error
    from k2.client.export import Export, Filters

    if force and resume:
        raise click.UsageError("--force replaces files and --resume keeps them: give one of them")
    suffix = target.suffix.removeprefix(".")
    filters = Filters(exchanges, symbols, start, end, first_id, last_id, as_of, interval)
    began = time.monotonic()
    try:
        with _asked(config) as source:
            job = Export(source, what, filters, form or (suffix if suffix in FORMATS else "parquet"))
            parts = job.parts()
            files = job.files(parts, target, one=suffix in FORMATS)
            kept = _kept(list(files), force, resume)
            written = _write(job, {path: own for path, own in files.items() if path not in kept}, as_json)
    except K2Error as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename or target} cannot be written ({error.strerror})") from None
    _summary(what, target, written, kept, time.monotonic() - began, as_json)


@contextmanager
def _asked(config: Config) -> Iterator[Any]:
    from k2.local import store_of

    source = store_of(config)
    try:
        yield source
    finally:
        source.close()


def _kept(files: list[Path], force: bool, resume: bool) -> set[Path]:
    if not files:
        raise click.ClickException("nothing matches: `k2 sql 'SELECT DISTINCT exchange, symbol FROM trades'` lists")
    there = [path for path in files if path.exists()]
    if there and not (force or resume):
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise click.ClickException(f"{there[0]} is there already{more}: --force replaces, --resume keeps what is there")
    return set(there) if resume else set()


def _write(job: "Export", files: dict[Path, list["Part"]], as_json: bool) -> list[dict[str, Any]]:
    total = sum(part.rows for parts in files.values() for part in parts)
    written = []
    with _bar(total) if sys.stderr.isatty() and not as_json else nullcontext(_Lines(total, as_json)) as progress:
        for path, parts in files.items():
            rows = job.write(path, parts, lambda count, path=path: progress.add(path, count))  # type: ignore[misc]
            written.append({"file": str(path), "rows": rows, "bytes": path.stat().st_size})
    return written


class _Lines:
    """Progress where nobody watches: a line now and then."""

    def __init__(self, total: int, silent: bool) -> None:
        self._total = total
        self._silent = silent
        self._done = 0
        self._noted = time.monotonic()

    def add(self, path: Path, rows: int) -> None:
        self._done += rows
        if not self._silent and time.monotonic() - self._noted > _NOTED_EVERY:
            self._noted = time.monotonic()
            note(f"{self._done:,} of {self._total:,} rows ({path})")


@contextmanager
def _bar(total: int) -> Iterator[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=total)

        class Bar:
            def add(self, path: Path, rows: int) -> None:
                shown.update(task, advance=rows, description=path.name)

        yield Bar()


def _summary(
    what: str, target: Path, written: list[dict[str, Any]], kept: set[Path], seconds: float, as_json: bool
) -> None:
    rows, size = sum(file["rows"] for file in written), sum(file["bytes"] for file in written)
    if as_json:
        told = {"what": what, "target": str(target), "rows": rows, "bytes": size, "seconds": round(seconds, 3)}
        click.echo(msgspec.json.encode({**told, "files": written, "kept": sorted(map(str, kept))}))
        return
    for file in written:
        click.echo(f"{file['rows']:>14,}  {file['bytes'] / 1e6:>10,.2f} MB  {file['file']}")
    number = f"{len(written):,} file{'' if len(written) == 1 else 's'}"
    also = f", {len(kept):,} kept as they were" if kept else ""
    click.echo(f"{rows:,} rows of {what} in {number}{also}, {size / 1e6:,.2f} MB, {seconds:.1f} s")
