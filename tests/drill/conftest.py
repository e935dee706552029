"""A toy platform, and short patience for what a round waits for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.drill.toy import Toy

from k2.ops.drill import flow, rounds, signals, stage


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    monkeypatch.setattr(flow, "FRESH_S", 0.2)
    monkeypatch.setattr(flow, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(signals, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(stage, "STEADY_S", 0.7)
    monkeypatch.setattr(rounds, "RECOVER_WITHIN_S", 30.0)
    monkeypatch.setattr(rounds, "DETECT_WITHIN_S", 0.5)
    found = Toy(tmp_path)
    yield found
    found.close()
