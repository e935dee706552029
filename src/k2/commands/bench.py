"""`k2 bench`: every figure that K2 promises, measured."""

import gzip
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import click
import msgspec
from rich.table import Table

from k2.config import Config
from k2.ops.bench import LONG, NAMES, Outcome, Picture, find
from k2.ops.bench.lab import Lab, LabError
from k2.ops.report import equal, passed, report
from k2.terminal import console, emit, note

COULD_NOT = 2
_KINDS = {"markdown": "a page in Markdown", "svg": "a drawing in SVG"}


@click.group(no_args_is_help=True)
def bench() -> None:
    """Measure K2 against its targets and against the libraries it stands on.

    Figures go to stdout (a table in a terminal, one object with --json), progress to stderr. Each bench uses a folder,
    ports and processes of its own and leaves nothing behind. The exit code is 0 only when every check is ok, 1 when one
    is not, 2 when the bench could not measure.

    \b
    Examples:
      k2 bench list
      k2 bench feed
      k2 bench latency --rates 500 --venues kraken --seconds 60 --json --out latency.json --svg latency.svg
      k2 bench all --out all.json
    """


def _common(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables."),
        click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Also write the JSON object here."),
        click.option("--raw", type=click.Path(path_type=Path, dir_okay=False), help="Keep each sample (.gz: packed)."),
        click.option("--dir", "parent", type=click.Path(path_type=Path, exists=True, file_okay=False),
                     help="Folder to work in: the disk that is measured (default: the system's temporary folder)."),
        click.option("--keep", is_flag=True, help="Leave the bench's folder behind."),
    ):  # fmt: skip
        command = option(command)
    return command


@bench.command("list")
@click.option("--json", "as_json", is_flag=True, help="JSON lines.")
def listing(as_json: bool) -> None:
    """Name the benches."""
    emit(("bench", "measures"), [(name, find(name).summary) for name in NAMES + LONG], as_json)


@bench.command("all")
@_common
@click.pass_obj
def everything(
    config: Config, as_json: bool, out: Path | None, raw: Path | None, parent: Path | None, keep: bool
) -> None:
    """Run every bench but the long ones (history) with its own parameters, one after the other."""
    outcomes = {}
    for name in NAMES:
        try:
            outcomes[name] = _measure(config, name, find(name).Parameters(), parent, keep)
        except LabError as error:
            note(f"k2 bench {name}: {error}")
            outcomes[name] = Outcome({"error": str(error)}, [equal("measured", "no", "yes")])
    found = report(
        {name: msgspec.to_builtins(find(name).Parameters()) for name in outcomes},
        {name: outcome.results for name, outcome in outcomes.items()},
        [
            check._replace(name=f"{name}: {check.name}")
            for name, outcome in outcomes.items()
            for check in outcome.checks
        ],
    )
    pictures = [picture for outcome in outcomes.values() for picture in outcome.pictures]
    samples = {f"{name}: {key}": series for name, outcome in outcomes.items() for key, series in outcome.raw.items()}
    _tell(found, pictures, samples, as_json, out, raw)


def _command(name: str) -> click.Command:
    """The subcommand of one bench."""
    found = find(name)

    def measure(
        as_json: bool, out: Path | None, raw: Path | None, parent: Path | None, keep: bool, **given: Any
    ) -> None:
        config: Config = click.get_current_context().obj
        files: dict[str, Path | None] = {kind: given.pop(kind) for kind in found.pages}
        parameters = msgspec.convert(given, found.Parameters)
        try:
            outcome = _measure(config, name, parameters, parent, keep)
        except LabError as error:
            note(f"k2 bench {name}: {error}")
            sys.exit(COULD_NOT)
        figures = report({"bench": name, **msgspec.to_builtins(parameters)}, outcome.results, outcome.checks)
        for kind, file in files.items():
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(found.pages[kind](figures))
        _tell(figures, outcome.pictures, outcome.raw, as_json, out, raw)

    common = reversed(getattr(_common(measure), "__click_params__", []))
    pages = [click.Option([f"--{kind}"], type=click.Path(path_type=Path, dir_okay=False),
                          help=f"Write {_KINDS.get(kind, kind)} here.") for kind in found.pages]  # fmt: skip
    return click.Command(name, callback=measure, params=[*_options(found.Parameters), *pages, *common], help=found.text)


def _options(parameters: type[msgspec.Struct]) -> list[click.Parameter]:
    found: list[click.Parameter] = []
    for field in msgspec.structs.fields(parameters):
        kind, *notes = get_args(field.type) if get_origin(field.type) is Annotated else (field.type,)
        note_ = next((n.description for n in notes), "")
        several = get_origin(kind) is tuple
        plain = get_args(kind)[0] if several else kind
        shown = ",".join(map(str, field.default)) if several else field.default
        found.append(
            click.Option(
                ["--" + field.name.replace("_", "-"), field.name],
                type=_List(plain) if several else plain,
                default=shown, show_default=True, help=note_,
            )
        )  # fmt: skip
    return found


class _List(click.ParamType[tuple[Any, ...]]):
    """Values with commas between them."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return tuple(self.kind(word) for word in value.split(",")) if isinstance(value, str) else value
        except ValueError:
            self.fail(f"{value!r} is not a list of {self.kind.__name__} with commas between them", param, ctx)


def _measure(config: Config, name: str, parameters: Any, parent: Path | None, keep: bool) -> Outcome:
    """Run one bench; SIGTERM ends it as Ctrl-C does, so that it cleans up. Raises LabError."""
    usual = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with Lab(config, lambda line: note(f"{name}: {line}"), parent, keep) as lab:
            return find(name).run(lab, parameters)
    finally:
        signal.signal(signal.SIGTERM, usual)


def _tell(
    found: dict[str, Any], pictures: Any, samples: Any, as_json: bool, out: Path | None, raw: Path | None
) -> None:
    text = msgspec.json.format(msgspec.json.encode(found))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(text + b"\n")
    if raw is not None:
        raw.parent.mkdir(parents=True, exist_ok=True)
        data = msgspec.json.encode(samples)
        raw.write_bytes(gzip.compress(data) if raw.suffix == ".gz" else data)
    if as_json:
        click.echo(text)
    else:
        for picture in pictures:
            _draw(picture)
        _draw(
            Picture("Checks", ("check", "value", "unit", "target", "ok"), [list(c.values()) for c in found["checks"]])
        )
    sys.exit(0 if passed(found) else 1)


def _draw(picture: Picture) -> None:
    table = Table(*picture.columns, title=picture.title, title_justify="left", header_style="bold", box=None)
    for row in picture.rows:
        table.add_row(*("" if cell is None else _cell(cell) for cell in row))
    console().print(table)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "[green]ok[/]" if value else "[bold red]not ok[/]"
    return f"{value:,}" if isinstance(value, int) else str(value)


for _name in NAMES + LONG:
    bench.add_command(_command(_name))
