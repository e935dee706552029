"""`k2 drill`: what it lists, and what it does where something is missing."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from k2.cli import main
from k2.ops.drill import drills
from k2.ops.drill.needs import NEEDS, Need
from k2.ops.drill.table import markdown, rows
from k2.ops.watch.alerts import ALERTS


def test_every_drill_says_what_it_is() -> None:
    for name, one in drills().items():
        assert one.summary, name
        assert one.expectation, name
        assert one.seen_by, name
        assert set(one.needs) <= NEEDS.keys(), name
        assert set(one.alerts) <= ALERTS.keys(), name


def test_list() -> None:
    listed = CliRunner().invoke(main, ["drill", "list", "--json"])
    assert [json.loads(line)["drill"] for line in listed.output.splitlines()] == list(drills())


def test_an_unknown_name_is_an_error_that_names_the_known() -> None:
    found = CliRunner().invoke(main, ["drill", "meteorite"])
    assert found.exit_code == 2
    assert "store-killed" in found.output


@pytest.mark.parametrize(("more", "code"), [([], 3), (["--allow-missing"], 0)])
def test_what_lacks_something_is_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: list[str], code: int
) -> None:
    monkeypatch.setitem(NEEDS, "faketime", Need(lambda: False, "install it"))
    out = tmp_path / "drill.json"
    asked = ["drill", "clock-stepped-back", "--no-alerts", "--dir", str(tmp_path), "--out", str(out), *more]
    found = CliRunner().invoke(main, asked)
    assert found.exit_code == code, found.output
    written = json.loads(out.read_text())
    assert written["results"]["drills"][0]["reasons"] == ["needs faketime: install it"]
    assert rows(written)[0][-1] == "not run"
    assert "| `clock-stepped-back` |" in markdown(written)[-1]
