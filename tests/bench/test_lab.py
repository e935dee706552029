import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from tests.patience import PATIENCE_S

from k2.config import Config, load
from k2.ops.bench.lab import Lab, LabError, environment, free_port

ECHO = "import sys\nfor line in sys.stdin: print(line.strip(), flush=True)"
HOLD = """
import sys, time
from pathlib import Path
from k2.config import Config
from k2.ops.bench.lab import Lab
with Lab(Config(), print, Path(sys.argv[1])) as lab:
    process = lab.k2(lab.config("one"), "sim", ["sim", "--paused"])
    lab.ready(lab.config("one"), process)
    print(process.child.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def lab(tmp_path):
    with Lab(Config(), lambda line: None, tmp_path) as lab:
        yield lab


def echo(lab):
    return lab._start("echo", ["-c", ECHO], environment(lab.base), lab.folder, speaks=True)


def test_leaving_stops_processes_and_removes_the_folder(tmp_path):
    with Lab(Config(), lambda line: None, tmp_path) as lab:
        process = echo(lab)
        process.tell({"a": 1})
        assert process.hear(10) == {"a": 1}
        folder = lab.folder
    assert process.child.poll() is not None
    assert not folder.exists()


def test_a_failure_leaves_nothing_either(tmp_path):
    def fail():
        with Lab(Config(), lambda line: None, tmp_path) as lab:
            fail.process = echo(lab)
            raise LabError("no figure")

    with pytest.raises(LabError):
        fail()
    assert fail.process.child.poll() is not None
    assert not list(tmp_path.iterdir())


def test_keep_leaves_the_folder_and_says_where(tmp_path):
    said = []
    with Lab(Config(), said.append, tmp_path, keep=True) as lab:
        pass
    assert lab.folder.is_dir()
    assert str(lab.folder) in said[-1]


def test_waiting_ends_when_a_process_ends_and_names_its_last_words(lab):
    lab._start("broken", ["-c", "raise SystemExit('no port was free')"], environment(lab.base), lab.folder, speaks=True)
    with pytest.raises(LabError, match=r"broken ended with exit code 1: no port was free"):
        lab.until(lambda: False, "a wonder", timeout=10)


def test_waiting_ends_in_time(lab):
    with pytest.raises(LabError, match="a wonder"):
        lab.until(lambda: False, "a wonder", timeout=0.05)


def test_a_partner_that_says_nothing_is_an_error(lab):
    with pytest.raises(LabError, match="echo said nothing"):
        echo(lab).hear(0.05)


def test_a_process_that_ignores_the_signal_is_killed(lab, monkeypatch):
    monkeypatch.setattr("k2.ops.bench.lab.STOP_WITHIN", 0.3)
    code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('{}', flush=True)\ntime.sleep(60)"
    process = lab._start("deaf", ["-c", code], environment(lab.base), lab.folder, speaks=True)
    process.hear(10)
    lab.stop(process)
    assert process.child.returncode == -signal.SIGKILL


def test_a_process_gets_the_configuration_whole(lab, monkeypatch):
    monkeypatch.setenv("K2_FEED_LINGER_MS", "99")
    config = lab.config("one", feed={"linger_ms": 7.5})
    environ = environment(config)
    again = load(environ={name: value for name, value in environ.items() if name.startswith("K2_")})
    assert again == config
    assert again.feed.linger_ms == 7.5
    assert again.data_dir.parent == lab.folder


def test_ports_differ_from_a_running_platforms(lab):
    first, second = lab.config("one"), lab.config("two")
    ports = [c.store.port for c in (first, second)] + [c.sim.ws_port for c in (first, second)]
    assert Config().store.port not in ports
    assert all(ports)


def test_a_free_port_can_be_taken():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free_port()))


def test_a_killed_bench_leaves_no_process(tmp_path):
    bench = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    try:
        child = psutil.Process(int(bench.stdout.readline()))
    finally:
        bench.kill()
        bench.wait()
        bench.stdout.close()
    deadline = time.monotonic() + PATIENCE_S
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the simulator outlived its bench"
        time.sleep(0.05)
