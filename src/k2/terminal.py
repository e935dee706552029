"""What people see: tables in a terminal, plain lines or JSON in a pipe."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

if TYPE_CHECKING:
    from rich.console import Console


def console(stderr: bool = False) -> "Console":
    """A console for stdout, or stderr for progress and notes."""
    from rich.console import Console  # here, since it takes longer to load than a service may take to start

    return Console(stderr=stderr, highlight=False)


def note(message: str) -> None:
    """A line for the person, on stderr, so that stdout stays data."""
    click.echo(message, err=True)


def emit(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    as_json: bool = False,
    title: str = "",
    spare: Sequence[str] = (),
) -> None:
    """Rows as JSON lines (`as_json`), as a table (terminal) or tab-separated with a header (pipe).

    A terminal that is too narrow does without the `spare` columns, the first ones first, and the person is told.
    """
    if as_json:
        for row in rows:
            click.echo(msgspec.json.encode(dict(zip(columns, row, strict=True))))
        return
    if sys.stdout.isatty():
        from rich.table import Table

        cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
        left_out = _too_wide(columns, cells, spare, console().width)
        kept = [index for index, column in enumerate(columns) if column not in left_out]
        columns = [columns[index] for index in kept]
        cells = [[row[index] for index in kept] for row in cells]
        table = Table(title=title or None, title_justify="left", header_style="bold", box=None)
        for index, column in enumerate(columns):
            table.add_column(column, justify="right" if _numbers(row[index] for row in cells) else "left")
        for row in cells:
            table.add_row(*row)
        console().print(table)
        if left_out:
            note(f"left out for want of width: {', '.join(left_out)}; a wider terminal, a pipe and --json have them")
        return
    click.echo("\t".join(columns))
    for row in rows:
        click.echo("\t".join("" if cell is None else str(cell) for cell in row))


def _too_wide(columns: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str], width: int) -> list[str]:
    """The spare columns to do without, so that the others fit."""
    widths = {c: 2 + max([len(c), *(len(row[i]) for row in rows)]) for i, c in enumerate(columns)}
    left_out: list[str] = []
    for column in spare:
        if sum(widths.values()) <= width:
            break
        del widths[column]
        left_out.append(column)
    return left_out


def _numbers(cells: Iterable[str]) -> bool:
    return all(cell.lstrip("-").replace(".", "", 1).replace(",", "").isdigit() for cell in cells if cell)
