"""A bench without a browser says so: it neither fails nor passes in silence."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from k2.ops.bench import serve_browser, serve_page


def test_no_browser_is_told_with_what_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = serve_browser.measure("http://127.0.0.1:9/", 1, tmp_path / "profile")
    assert told["browser"] is None
    assert "apt-get install chromium" in told["why"]


def test_a_browser_that_ends_at_once_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    told = serve_browser.measure("http://127.0.0.1:9/", 1, tmp_path / "profile")
    assert told["browser"] is None
    assert "exit code 3" in told["why"]


def measured(told: dict[str, Any], tmp_path: Path) -> tuple[Any, list[str]]:
    said: list[str] = []
    partner = SimpleNamespace(hear=lambda timeout: told)
    lab = SimpleNamespace(say=said.append, folder=tmp_path, partner=lambda *_, **__: partner, stop=lambda *_: None)
    config = SimpleNamespace(web_url="http://127.0.0.1:9")
    rig = SimpleNamespace(rate=lambda _: None, drain=lambda: None, config=config)
    return serve_page.measure(lab, rig, 500, 2), said  # type: ignore[arg-type]


def test_what_was_not_measured_stands_in_results_table_and_progress(tmp_path: Path) -> None:
    found, said = measured({"browser": None, "why": "no browser: none here"}, tmp_path)
    assert found.results == {"browser": None, "not_measured": "no browser: none here"}
    assert found.checks == []
    assert "not measured: no browser" in found.picture.rows[0][0]
    assert "not measured: no browser" in said[-1]


def test_the_page_is_held_to_a_second(tmp_path: Path) -> None:
    loads = [{"shown": 200.0, "candles": candles, "parsed": 90.0, "loaded": 300.0} for candles in (900.0, 1100.0)]
    found, _ = measured({"browser": "Chromium", "loads": loads}, tmp_path)
    assert found.results["shown_ms"]["p50"] == 200.0
    assert [check.ok for check in found.checks] == [True, found.results["candles_ms"]["p50"] <= 1000]
    assert found.results["candles_ms"]["max"] == 1100.0
