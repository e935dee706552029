"""The `k2` command: verbs are found here, and imported only when they are used."""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from k2 import __version__
from k2.config import ConfigError, load

VERBS = {
    "demo": "k2.commands.run",
    "up": "k2.commands.run",
    "status": "k2.commands.run",
    "check": "k2.commands.check",
    "feed": "k2.commands.feed",
    "replay": "k2.commands.feed",
    "load": "k2.commands.load",
    "store": "k2.commands.store",
    "sql": "k2.commands.store",
    "sim": "k2.commands.sim",
    "streams": "k2.commands.log",
    "tail": "k2.commands.log",
    "trades": "k2.commands.read",
    "candles": "k2.commands.read",
    "gaps": "k2.commands.read",
    "verify": "k2.commands.verify",
    "web": "k2.commands.web",
    "keys": "k2.commands.keys",
    "archive": "k2.commands.archive",
    "restore": "k2.commands.restore",
    "rederive": "k2.commands.restore",
    "export": "k2.commands.export",
    "completion": "k2.commands.completion",
    "bench": "k2.commands.bench",
    "burnin": "k2.commands.burnin",
    "drill": "k2.commands.drill",
    "alerts": "k2.commands.alerts",
}
# Verbs whose files are the person's own. All others write into the data folder only, where nobody else may look.
FOR_THE_PERSON = frozenset(("export", "bench", "burnin", "drill", "alerts", "completion"))


class _Verbs(click.Group):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`--data DIR` and `--config FILE` are understood before and after the verb."""
        front: list[str] = []
        rest: list[str] = []
        queue = list(args)
        while queue:
            arg = queue.pop(0)
            if arg in ("--data", "--config") and queue:
                front += [arg, queue.pop(0)]
            elif arg.startswith(("--data=", "--config=")):
                front.append(arg)
            else:
                rest.append(arg)
        return super().parse_args(ctx, front + rest)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = getattr(import_module(VERBS[cmd_name]), cmd_name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs by their names alone: nothing is imported for them."""
        verbs = [CompletionItem(name) for name in VERBS if name.startswith(incomplete)]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], list(VERBS), n=1)
            ctx.fail(f"no verb {args[0]!r}" + (f"; did you mean {close[0]}?" if close else ""))
        return super().resolve_command(ctx, args)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--data", metavar="DIR", help="Folder that holds everything K2 writes (also K2_DATA).")
@click.option("--config", "file", type=click.Path(path_type=Path), help="Settings file (default: k2.toml here).")
@click.version_option(__version__, prog_name="k2")
@click.pass_context
def main(ctx: click.Context, data: str | None, file: Path | None) -> None:
    """Capture every crypto trade, keep it, serve it, and prove that none is missing.

    \b
    Try it without any exchange:    k2 demo
    Capture the real exchanges:     k2 up
    Prove that nothing is missing:  k2 verify
    """
    if ctx.invoked_subcommand not in FOR_THE_PERSON:
        os.umask(0o077)
    if file:
        os.environ["K2_CONFIG"] = str(file.absolute())  # the processes that we start read it as well
    try:
        ctx.obj = load(file, data=data)
    except ConfigError as error:
        click.echo(f"k2: {error}", err=True)
        sys.exit(2)
