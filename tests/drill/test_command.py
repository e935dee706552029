"""`k2 drill`: what it lists, and what it does where something is missing."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from k2.cli import main
from k2.ops.drill import drills
from k2.ops.drill.needs import NEEDS, Need
from k2.ops.drill.proof import Count
from k2.ops.drill.rounds import Options
from k2.ops.drill.table import markdown, page, report_of, rows
from k2.ops.drill.verdict import Round, judge, not_run
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


def test_the_page_tells_every_drill() -> None:
    one, other = drills()["store-killed"], drills()["clock-stepped-back"]
    played = Round(
        number=1, cause_s=0, detected_s=0.25, detected_by="down:store", flowing_s=1.5, recovered_s=7.0, load=9
    )
    places = {"log": Count(9, 9, 0, 0, 0, []), "store": Count(9, 8, 1, 0, 0, ["kraken BTC-USD 7..7"])}
    outcomes = [judge(one, [played], places, [], "", 1.0, watched=False), not_run(other, ["faketime: install it"])]
    written = page(report_of("all", outcomes, Options(rounds=1)))
    assert (
        "| `store-killed` | kill -9 of the store | 0.2/0.2 | 1.5/1.5 | 7.0/7.0 | 1 | 0 | not watched | failed |"
        in written
    )
    assert "- round 1: recovered after 7.0 s, not within 5 s" in written
    assert "- store: 1 lost, 0 twice, 0 strange of 9 (kraken BTC-USD 7..7)" in written
    assert "- needs faketime: install it" in written
    assert one.expectation in written
