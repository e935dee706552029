"""One round, on a toy: what was seen when, when it was over, what it says of itself, and how that is judged."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.drill.toy import OTHER, SYMBOL, Toy

from k2.ops.drill import Drill, DrillError, rounds
from k2.ops.drill.proof import Count
from k2.ops.drill.rounds import one_round
from k2.ops.drill.stage import Stage
from k2.ops.drill.verdict import FAILED, NOT_RUN, PASSED, Round, judge, not_run

DOWN_S = 0.7


def drill(act: Callable[[Stage], None], **more: Any) -> Drill:
    given = {"seen_by": ("down:worker", "supervisor:worker"), "runbooks": ("toy.md",), **more}
    return Drill(name="toy", summary="a toy breaks", expectation="it is mended", act=act, **given)


def play(toy: Toy, what: Drill, runbooks: Path | None = None, alerts: Any = None) -> Round:
    return one_round(Stage(what, toy.as_platform(), toy.flow, toy.signals, lambda _: None, 1, alerts, runbooks))


def verdict(what: Drill, *played: Round) -> tuple[str, list[str]]:
    found = judge(what, played, {"log": Count(9, 9, 0, 0, 0, [])}, [], "", 1.0, watched=False)
    return found.verdict, found.reasons


def die_for_a_while(toy: Toy) -> Callable[[Stage], None]:
    def act(stage: Stage) -> None:
        with stage.failing():
            toy.die()
            toy.supervisor_says('{"child": "worker", "exit_code": -9}')
            toy.dark_until = time.monotonic() + DOWN_S
            stage.hold(DOWN_S)
            toy.live()

    return act


def test_a_process_that_was_away_is_seen_and_is_back(toy: Toy) -> None:
    what = drill(die_for_a_while(toy))
    found = play(toy, what)
    assert found.detected_by.startswith(("down:worker", "supervisor:worker (exit code -9)"))
    assert found.cause_s >= DOWN_S
    assert found.recovered_s is not None
    assert set(found.interrupted_s) == {"binance", "kraken"}
    assert {"down:worker", "supervisor:worker"} <= set(found.signals)
    assert toy.flow.timeline.wrong() == {}


def test_what_goes_on_after_the_cause_counts_until_it_is_over(toy: Toy) -> None:
    def act(stage: Stage) -> None:
        with stage.failing():
            toy.die()
            toy.dark_until = time.monotonic() + DOWN_S
        time.sleep(DOWN_S)
        toy.live()

    found = play(toy, drill(act))
    assert found.recovered_s is not None
    assert found.recovered_s >= DOWN_S
    assert found.flowing_s is not None


def test_a_hole_that_is_never_healed_is_no_recovery(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "RECOVER_WITHIN_S", 2.0)

    def act(stage: Stage) -> None:
        with stage.failing():
            toy.lost.add(SYMBOL)
            stage.wait("the hole to be seen", toy.flow.timeline.wrong, 30)

    what = drill(act, seen_by=("ledger:*",))
    found = play(toy, what)
    assert found.recovered_s is None
    assert found.detected_s is None
    assert set(found.interrupted_s) == {SYMBOL[0]}
    assert toy.flow.newest.wrong() == {}
    assert verdict(what, found) == (FAILED, ["round 1: no signal of ledger:* was seen", "round 1: it did not recover"])


def test_who_was_to_be_spared_is_held_to_it(toy: Toy) -> None:
    def act(stage: Stage) -> None:
        with stage.failing():
            toy.lost.add(OTHER)
            stage.wait("the hole to be seen", toy.flow.timeline.wrong, 30)
            time.sleep(1.5)  # longer than what is forgiven
            toy.lost.clear()

    what = drill(act, seen_by=("*",), spares=(SYMBOL[0], OTHER[0]))
    _, reasons = verdict(what, play(toy, what))
    assert [reason for reason in reasons if "spared" in reason] == [r for r in reasons if OTHER[0] in r] != []


def test_runbooks_are_executed_during_and_after(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "toy.md").write_text(
        "# Toy\n\n```sh\necho not for drills; exit 1\n```\n\n"
        "```sh\n# drill: diagnosis\ntest -n \"$PATH\"; python -c 'import sys; print(sys.executable)'\n```\n\n"
        "```sh\n# drill: diagnosis another-drill\nexit 1\n```\n\n"
        "```sh\n# drill: resolution toy\necho it cannot be; false\necho never said\n```\n"
    )
    what = drill(die_for_a_while(toy))
    found = play(toy, what, tmp_path)
    assert [(ran["moment"], ran["ok"]) for ran in found.commands] == [("diagnosis", True), ("resolution", False)]
    name, reasons = verdict(what, found)
    assert name == FAILED
    assert "round 1: toy.md, resolution: it cannot be" in reasons
    assert Path(sys.executable).exists()


class Pager:
    """Alerts as they would come: the first one fires and clears, the second one only fires."""

    def begin(self) -> None:
        self.at = time.monotonic()

    def fired(self) -> dict[str, float]:
        return {"Quick": self.at, "Stubborn": self.at}

    def cleared(self) -> dict[str, float]:
        return {"Quick": self.at}


def test_alerts_must_clear(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "CLEAR_WITHIN_S", 0.2)
    what = drill(die_for_a_while(toy))
    found = play(toy, what, alerts=Pager())
    assert set(found.fired) == {"Quick", "Stubborn"}
    assert "round 1: alert Stubborn did not clear" in verdict(what, found)[1]


def test_an_act_that_breaks_nothing_is_told(toy: Toy) -> None:
    with pytest.raises(DrillError, match=r"never entered stage.failing"):
        play(toy, drill(lambda stage: None))


def test_verdict() -> None:
    what = drill(lambda stage: None)
    good = Round(number=1, cause_s=0, detected_s=0.1, detected_by="", flowing_s=0.2, recovered_s=4.9)
    late = Round(number=2, cause_s=0, detected_s=0.1, detected_by="", flowing_s=0.2, recovered_s=5.1)
    assert verdict(what, good) == (PASSED, [])
    assert verdict(what, good, late) == (FAILED, ["round 2: recovered after 5.1 s, not within 5 s"])
    whole, torn = Count(9, 9, 0, 0, 0, []), Count(9, 8, 1, 2, 0, ["kraken BTC-USD 7..7"])
    found = judge(what, [good, good], {"log": whole, "store": torn}, ["open gaps: 1"], "", 1.0, watched=False)
    assert (found.verdict, found.lost, found.twice) == (FAILED, 1, 2)
    assert found.recovered_s == {"median": 4.9, "worst": 4.9}
    assert found.reasons == [
        "store: 1 lost, 2 twice, 0 strange of 9 (kraken BTC-USD 7..7)",
        "k2 verify: open gaps: 1",
    ]
    assert not_run(what, ["root: run it as root"]).verdict == NOT_RUN
    assert judge(what, [], {}, [], "the port was taken", 1.0, watched=False).verdict == FAILED
