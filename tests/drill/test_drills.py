"""Drills of each kind, for real: nothing is lost, nothing is there twice, and it was seen. How fast that was is told by
`k2 drill`, not by tests."""

from pathlib import Path

import pytest

from k2.config import Config
from k2.ops.bench.lab import Lab
from k2.ops.drill import drills
from k2.ops.drill.rounds import Options, rehearse
from k2.ops.drill.verdict import Outcome

KINDS = ("loader-killed", "store-frozen", "service-down", "platform-killed", "archiver-killed", "rest-down")


def play(name: str, folder: Path) -> Outcome:
    said: list[str] = []
    with Lab(Config(), said.append, folder) as lab:
        found = rehearse(lab, drills()[name], Options(rounds=1, rate=150.0), said.append)
    print("\n".join(said))
    return found


def proven(found: Outcome) -> None:
    late = [reason for reason in found.reasons if "recovered after" in reason or "to be spared" in reason]
    assert found.reasons == late
    assert found.made > 100
    assert {
        name: (place["lost"], place["twice"], place["strange"]) for name, place in found.places.items()
    } == dict.fromkeys(found.places, (0, 0, 0))
    assert found.rounds[0].detected_s is not None


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", KINDS)
def test_drill(name: str, tmp_path: Path) -> None:
    proven(play(name, tmp_path))


@pytest.mark.peers
@pytest.mark.timeout(400)
def test_the_machines_own_clock_steps(tmp_path: Path) -> None:
    proven(play("clock-stepped-back", tmp_path))
