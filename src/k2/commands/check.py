"""`k2 check`: the effective configuration, and whether every part works."""

import sys
from typing import Any

import click
import msgspec

from k2.config import Config, masked, settings
from k2.ops.probe import probes
from k2.terminal import emit, note

MARKS = {True: "ok", None: "not now", False: "WRONG"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object: configuration and findings.")
@click.option("--offline", is_flag=True, help="Leave the exchanges alone.")
@click.pass_obj
def check(config: Config, as_json: bool, offline: bool) -> None:
    """Print the effective configuration (secrets masked) and probe every part.

    Exit code 1 if something is wrong; what merely does not run now is not wrong.

    \b
    Examples:
      k2 check
      K2_STORE_PORT=9000 k2 check --offline
    """
    tree = masked(config)
    found = [finding for finding in probes(config) if not (offline and finding.part.startswith("exchange "))]
    if as_json:
        click.echo(msgspec.json.encode({"configuration": tree, "findings": [finding._asdict() for finding in found]}))
    else:
        rows = []
        for setting in settings():
            value: Any = tree
            for key in setting.path:
                value = value[key]
            rows.append((".".join(setting.path), value if value != "" else "(default)"))
        emit(("setting", "value"), rows)
        note("")
        emit(("part", "", "what was found"), [(part, MARKS[ok], detail) for part, ok, detail in found])
    sys.exit(1 if any(finding.ok is False for finding in found) else 0)
