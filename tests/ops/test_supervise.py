"""The supervisor with stand-in processes that say when they start and stop, and misbehave when told to."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from tests.patience import PATIENCE_S

from k2.ops.supervise import Service, Supervisor, last_words

STAND_IN = """
import json, os, signal, sys, time
run, name, *ways = sys.argv[1:]

def tell(what):
    with open(os.path.join(run, "events"), "a") as events:
        events.write(f"{what} {name}\\n")

def leave(*_):
    tell("stopped")
    sys.exit(0)

tell("started")
if "crash" in ways:
    print(f"{name} has no disk", file=sys.stderr)
    sys.exit(3)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in ways else leave)
if "slow" in ways:
    time.sleep(0.3)
if "mute" not in ways:
    with open(os.path.join(run, name + ".part"), "w") as file:
        json.dump({"service": name, "pid": os.getpid(), "metrics_port": 0, "started": time.time()}, file)
    os.replace(os.path.join(run, name + ".part"), os.path.join(run, name + ".json"))
    tell("ready")
while True:
    time.sleep(0.05)
"""


class Stage:
    """A run folder, and a supervisor over services given as (name, ways, after, stop order)."""

    def __init__(self, folder: Path) -> None:
        self.run = folder / "run"
        self.run.mkdir()
        self.script = folder / "stand_in.py"
        self.script.write_text(STAND_IN)
        self.said: list[str] = []

    def supervisor(self, *services: tuple[str, Sequence[str], Sequence[str], int]) -> Supervisor:
        made = [
            Service(name, [str(self.run), name, *ways], after=after, stop_order=order)
            for name, ways, after, order in services
        ]
        return Supervisor(made, self.run, {}, self.said.append, program=(sys.executable, str(self.script)))

    @property
    def events(self) -> list[str]:
        file = self.run / "events"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def until(condition: object, within: float = PATIENCE_S) -> None:
    assert callable(condition)
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.02)


def test_a_service_starts_when_what_it_needs_is_ready_and_they_stop_in_order(stage: Stage) -> None:
    async def play() -> list[str]:
        supervisor = stage.supervisor(
            ("feed", (), ("store", "sim"), 0),
            ("loader", (), ("store",), 1),
            ("store", ("slow",), (), 2),
            ("sim", (), (), 3),
        )
        supervisor.start()
        await supervisor.wait_ready()
        assert {service.state for service in supervisor.services.values()} == {"running"}
        return await supervisor.stop()

    assert asyncio.run(play()) == []
    events = stage.events
    assert events.index("ready store") < events.index("started loader")
    assert max(events.index("ready store"), events.index("ready sim")) < events.index("started feed")
    assert [event for event in events if event.startswith("stopped")] == [
        "stopped feed", "stopped loader", "stopped store", "stopped sim",
    ]  # fmt: skip


def test_what_is_killed_comes_back_and_the_person_is_told(stage: Stage) -> None:
    async def play() -> None:
        supervisor = stage.supervisor(("feed", (), (), 0))
        supervisor.start()
        await supervisor.wait_ready()
        service = supervisor.services["feed"]
        first = service.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: service.restarts == 1 and service.state == "running")
        assert service.pid not in (None, first)
        assert stage.events.count("ready feed") == 2
        assert await supervisor.stop() == []

    asyncio.run(play())
    assert "feed ended (killed by SIGKILL)" in stage.said[0]


def test_a_process_that_cannot_start_is_tried_again_ever_more_slowly_with_its_reason(stage: Stage) -> None:
    async def play() -> None:
        supervisor = stage.supervisor(("loader", ("crash",), (), 0), ("feed", (), ("loader",), 0))
        supervisor.start()
        await until(lambda: len(stage.said) >= 4)
        assert supervisor.services["feed"].state == "waiting"
        await supervisor.stop()

    asyncio.run(play())
    pauses = [float(re.findall(r"in ([\d.]+) s", line)[0]) for line in stage.said]
    assert all(later > earlier for earlier, later in pairwise(pauses))
    assert all("loader ended (exit code 3)" in line and "loader has no disk" in line for line in stage.said)
    assert "started feed" not in stage.events


def test_a_process_that_does_not_heed_the_signal_is_killed_and_takes_nobodys_turn(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k2.ops.supervise.STOP_WITHIN", 11.0)
    monkeypatch.setattr("k2.ops.supervise.TURN_KEPT", 10.0)

    async def play() -> list[str]:
        supervisor = stage.supervisor(("feed", ("deaf",), (), 0), ("store", (), (), 1))
        supervisor.start()
        await supervisor.wait_ready()
        return await supervisor.stop()

    assert asyncio.run(play()) == ["feed"]
    assert "stopped store" in stage.events, "the one that does heed it got its turn"


def test_stopping_while_a_process_is_being_started_leaves_none(stage: Stage) -> None:
    async def play() -> None:
        supervisor = stage.supervisor(("store", ("mute",), (), 1), ("feed", (), ("store",), 0))
        supervisor.start()
        await asyncio.sleep(0)
        await supervisor.stop()

    asyncio.run(play())
    left = [p for p in psutil.process_iter(["cmdline"]) if str(stage.script) in (p.info["cmdline"] or [])]
    assert left == []


def test_who_is_not_ready_is_named(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2.ops.supervise.READY_WITHIN", 0.5)

    async def play() -> None:
        supervisor = stage.supervisor(("store", ("mute",), (), 1), ("sim", (), (), 0))
        supervisor.start()
        try:
            with pytest.raises(TimeoutError, match=r"not ready within .* store; see .*err"):
                await supervisor.wait_ready()
        finally:
            await supervisor.stop()

    asyncio.run(play())


def test_last_words_are_those_of_this_life(tmp_path: Path) -> None:
    file = tmp_path / "store.err"
    assert last_words(file, 0.0) == ""
    file.write_text("old trouble\nnewest trouble\n\n")
    assert last_words(file, time.time() - 60) == "newest trouble"
    assert last_words(file, time.time() + 60) == "", "an earlier life wrote it"


def test_a_supervised_process_ends_with_its_supervisor_even_by_kill_9(tmp_path: Path) -> None:
    """The real child entry point; the supervisor is a process that holds the child's standard input and dies."""
    lingering = (
        "import runpy, sys, k2.cli, time\n"
        "k2.cli.main = lambda: time.sleep(60)\n"
        "sys.argv = ['child']\n"
        "runpy.run_module('k2.child', run_name='__main__')\n"
    )
    parent = subprocess.Popen(
        [
            sys.executable, "-c",
            "import subprocess, sys, time\n"
            "p = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdin=subprocess.PIPE)\n"
            "print(p.pid, flush=True)\n"
            "time.sleep(60)",
            lingering,
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    orphan = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.5)
    assert orphan.is_running()
    parent.kill()
    parent.wait()
    gone, alive = psutil.wait_procs([orphan], timeout=PATIENCE_S)
    assert (len(gone), alive) == (1, [])
