"""Documentation is an artefact under test: what the code offers is described, and no link leads nowhere."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from prometheus_client.metrics import MetricWrapperBase
from tests.patience import PATIENCE_S

from k2 import metrics, reference
from k2.cli import VERBS, main
from k2.config import settings
from k2.store.migrate import migrations

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def _read(name: str) -> str:
    return (ROOT / name).read_text()


def _verb(name: str) -> click.Command:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return command


@pytest.fixture(scope="module")
def renewed() -> dict[str, str]:
    """What `make docs` would write now, told by a process of its own: a command remembers how it was called before."""
    code = "import json; from k2.reference import PAGES; print(json.dumps({k: v() for k, v in PAGES.items()}))"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, timeout=PATIENCE_S, cwd=ROOT
    )
    pages: dict[str, str] = json.loads(done.stdout)
    return pages


@pytest.mark.parametrize("page", reference.PAGES)
def test_reference_is_what_the_code_says(page: str, renewed: dict[str, str]) -> None:
    assert _read(f"docs/{page}") == renewed[page], f"docs/{page} is behind the code: run `make docs`"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb: str) -> None:
    text = _verb(verb).help or ""
    assert f"k2 {verb}" in text or "k2 --data" in text, f"`k2 {verb} --help` has no example"


def test_every_setting_says_what_it_means() -> None:
    assert not [setting.path for setting in settings() if not setting.description]


def _metrics() -> Iterator[tuple[str, MetricWrapperBase]]:
    for name, value in vars(metrics).items():
        if isinstance(value, MetricWrapperBase):
            yield name, value


def test_every_metric_is_used() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py") if path.name != "metrics.py")
    own = _read("src/k2/metrics.py")
    unused = [name for name, _ in _metrics() if not re.search(rf"\b{name}\b", code) and own.count(name) < 2]
    assert not unused, f"declared but never set: {unused}"


def test_every_table_and_view_is_documented() -> None:
    page = _read("docs/SCHEMA.md")
    made = re.compile(r"CREATE (?:OR REPLACE )?(?:TABLE|VIEW) (?:IF NOT EXISTS )?(?:k2\.)?(\w+)", re.IGNORECASE)
    names = {name for one in migrations() for statement in one.statements() for name in made.findall(statement)}
    assert {"silver_trades", "bronze_frames", "gaps", "trades", "ohlcv_1m", "ohlcv_1d"} <= names
    assert not [name for name in sorted(names) if f"`{name}`" not in page]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_dead_link(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), f"{page.name} links to {target}, which does not exist"
        if anchor and found.suffix == ".md":
            headings = {_anchor(line) for line in found.read_text().splitlines() if line.startswith("#")}
            assert anchor in headings, f"{page.name} links to {target}, and {found.name} has no such heading"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower()).replace(" ", "-")


def test_every_decision_is_listed() -> None:
    listed = _read("docs/decisions/README.md")
    assert not [p.name for p in ROOT.glob("docs/decisions/0*.md") if p.name not in listed]


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "make test" in _read("README.md")
    assert re.search(r"^make test$", _read(".ci/run"), re.MULTILINE)
