"""The files in deploy/ that are written from the alerts, and whether the ones that lie there are those."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from k2.ops.watch import examples, routing, rules, yamltext
from k2.ops.watch.watch import program

RULES, RULE_TESTS, PROMETHEUS, ALERTMANAGER = (
    "prometheus/k2.rules.yaml",
    "prometheus/k2.rules.test.yaml",
    "prometheus/prometheus.yaml",
    "alertmanager/alertmanager.yaml",
)
_WRITTEN = "Written by `k2 alerts write` from src/k2/ops/watch: change it there, not here."


class Checked(NamedTuple):
    """What one look at a file came to; `said` is what the checking program said."""

    what: str
    ok: bool
    said: str


def files() -> dict[str, str]:
    """Path in the folder -> text."""
    name = Path(RULES).name
    return {
        PROMETHEUS: yamltext.dump(
            rules.prometheus([name], ["targets/*.json"], ["localhost:9093"]),
            _WRITTEN + "\nTargets: link or mount the folder run/prometheus of a data folder here as `targets`;"
            "\n`k2 up` keeps what is in it up to date.",
        ),
        RULES: yamltext.dump(rules.rules(), _WRITTEN),
        RULE_TESTS: yamltext.dump(examples.rule_tests(name), f"{_WRITTEN}\nRun: promtool test rules {RULE_TESTS}"),
        ALERTMANAGER: yamltext.dump(
            routing.alertmanager(), f"{_WRITTEN}\nAddresses are examples. Secrets stand in files: {routing.SECRETS}/..."
        ),
    }


def write(folder: Path) -> list[Path]:
    """Write all of them. Raises OSError."""
    written = []
    for name, text in files().items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        written.append(file)
    return written


def check(folder: Path) -> Iterator[Checked]:
    """Compare the files with what would be written, then ask promtool and amtool. Raises WatchError without them."""
    for name, text in files().items():
        file = folder / name
        found = file.read_text() if file.is_file() else None
        said = "" if found == text else "it is not there" if found is None else "it is not what would be written"
        yield Checked(str(file), found == text, said)
    promtool, amtool = program("promtool"), program("amtool")
    yield _ask(promtool, "check", "config", "--syntax-only", str(folder / PROMETHEUS))
    yield _ask(promtool, "check", "rules", str(folder / RULES))
    yield _ask(promtool, "test", "rules", str(folder / RULE_TESTS))
    yield _ask(amtool, "check-config", str(folder / ALERTMANAGER))


def _ask(*command: str) -> Checked:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    words = " ".join([Path(command[0]).name, *command[1:]])
    return Checked(words, done.returncode == 0, "" if done.returncode == 0 else f"{done.stdout}{done.stderr}".strip())
