"""The word that each process leaves of itself in the run folder."""

import json
import subprocess
import sys
from pathlib import Path

from k2.config import load
from k2.metrics import read_status, write_status


def test_a_living_process_is_found_whatever_the_clock_does(tmp_path: Path) -> None:
    config = load(environ={"K2_DATA": str(tmp_path)})
    write_status(config, "loader", 9404, url="http://here")
    file = config.run_dir / "loader.json"
    word = json.loads(file.read_text())
    for step in (-86_400.0, 86_400.0):
        file.write_text(json.dumps({**word, "started": word["started"] + step}))
        assert read_status(config.run_dir)["loader"]["url"] == "http://here"


def test_the_dead_are_not_found_nor_who_has_their_pid_now(tmp_path: Path) -> None:
    config = load(environ={"K2_DATA": str(tmp_path)})
    write_status(config, "loader", 9404)
    file = config.run_dir / "loader.json"
    word = json.loads(file.read_text())
    file.write_text(json.dumps({**word, "born": word["born"] - 1}))
    assert read_status(config.run_dir) == {}
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
        file.write_text(json.dumps({**word, "pid": ended.pid}))
        assert read_status(config.run_dir) == {}
    file.write_text("{")
    assert read_status(config.run_dir) == {}
