"""The command as a person runs it: begun, interrupted, killed, resumed, judged."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from click.testing import CliRunner
from tests.patience import PATIENCE_S

from k2.commands.burnin import burnin
from k2.config import Config
from k2.ops.burnin.folder import Folder

ROOMY = {
    "K2_BUDGET_MEMORY_MB_ALL": "100000",
    "K2_BUDGET_CPU_PERCENT_ALL": "100000",
    "K2_TIER_EVERY_S": "5",
}


def call(*words):
    return CliRunner().invoke(burnin, [str(word) for word in words], obj=Config())


def test_what_cannot_be_run_exits_with_two(tmp_path, recorded):
    folder = recorded(hours=0.05)
    begun = call("--dir", folder.path)
    assert (begun.exit_code, begun.stdout) == (2, "")
    assert f"k2 burnin --resume {folder.path}" in begun.stderr
    assert call("--resume", tmp_path).exit_code == 2


@pytest.mark.parametrize(("bound", "code"), [(900.0, 0), (100.0, 1)])
def test_the_report_is_made_anew_and_judged_by_the_budgets_of_now(recorded, bound, code):
    folder = recorded()
    config = Config()
    memory = type(config.budget.memory_mb)(all=bound)
    budget = type(config.budget)(memory_mb=memory)
    found = CliRunner().invoke(
        burnin, ["--report", str(folder.path), "--json"], obj=type(config)(budget=budget), catch_exceptions=False
    )
    assert found.exit_code == code
    report = json.loads(found.stdout)
    assert list(report) == ["commit", "machine", "parameters", "results", "checks"]
    assert report["commit"] == "c0ffee"
    assert json.loads((folder.path / "burnin.json").read_text()) == report


class Runs:
    """Burn-ins in one folder, one after the other. What still runs in the end is killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.words = folder.parent / "words"
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("K2_")} | ROOMY
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *words: str) -> None:
        with self.words.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "k2", "burnin", *words], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                env=self.environ, start_new_session=True,
            )  # fmt: skip

    def looks(self) -> int:
        file = self.folder / "platform.csv"
        return file.read_text().count("\n") - 1 if file.exists() else 0

    def until(self, what: str, done, within: float = 3 * PATIENCE_S) -> None:
        deadline = time.monotonic() + within
        while not done():
            assert time.monotonic() < deadline, f"{what}: not within {within:.0f} s\n{self.words.read_text()}"
            time.sleep(0.05)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "burnin-state.json").read_text())
        return found

    def shorten(self, seconds: float) -> None:
        """Leave so many seconds to run: what was asked for would take an hour."""
        folder = Folder.open(self.folder)
        hours = (folder.seconds_run() + seconds) / 3600
        folder.state.parameters = msgspec.structs.replace(folder.state.parameters, hours=hours)
        folder.save()

    def kill_supervisor(self) -> None:
        (supervisor,) = [child for child in psutil.Process(self.process.pid).children() if child.cmdline()[-1] == "up"]
        supervisor.kill()

    def left(self) -> list[str]:
        """Processes of the stage that still live, whoever their parent is."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("K2_DATA", "").startswith(str(self.folder)) and process.status() != "zombie":
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.until("the stage to leave", lambda: not self.left())


@pytest.fixture
def runs(tmp_path):
    found = Runs(tmp_path / "run")
    yield found
    found.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_interrupted_killed_and_resumed_it_loses_nothing_and_makes_nothing_up(runs):
    runs.start("--hours", "1", "--rate", "200", "--every", "0.5", "--dir", str(runs.folder))
    runs.until("looks", lambda: runs.looks() >= 5)
    assert runs.end(signal.SIGINT) == 130
    assert runs.left() == []
    before = runs.looks()

    runs.start("--resume", str(runs.folder))
    runs.until("looks after the interruption", lambda: runs.looks() >= before + 5)
    runs.kill_supervisor()
    runs.until("the supervisor's end to be noted", lambda: runs.state()["sessions"][1]["ends"])
    again = runs.looks()
    runs.until("looks at the platform that was started again", lambda: runs.looks() >= again + 5)
    runs.end(signal.SIGKILL)
    runs.until("what was left behind to end by itself", lambda: not runs.left())
    killed = runs.looks()
    runs.shorten(5.0)

    runs.start("--resume", str(runs.folder), "--json", "--out", str(runs.folder / "out.json"))
    runs.until("the end", lambda: runs.process.poll() is not None)
    report = json.loads((runs.folder / "out.json").read_text())
    checks = {check["name"]: check["ok"] for check in report["checks"]}
    assert runs.process.returncode == (0 if all(checks.values()) else 1)
    failed = {name for name, ok in checks.items() if not ok}
    assert "ends of the supervisor or the simulator" in failed
    assert not failed & {
        "hours run", "trades lost", "trades twice", "trades that were never made",
        "k2 verify, exit code", "k2 archive audit, exit code",
    }, report["results"]["proof"]  # fmt: skip
    results = report["results"]
    assert results["proof"]["truth"]["made"] > 0
    assert results["looks"] == runs.looks() > killed
    assert [session["how"] for session in results["sessions"]] == ["interrupted", "", "finished"]
    assert [gap["session"] for gap in results["gaps"] if gap["session"] is not None] == [0, 1]
    assert runs.left() == []
