import gzip
import json
import signal
import subprocess
import sys
import time

import msgspec
import pytest
from click.testing import CliRunner
from tests.patience import PATIENCE_S

from k2.commands import bench as command
from k2.config import Config
from k2.ops.bench import LONG, NAMES, Bench, Outcome, Picture, find
from k2.ops.bench.lab import LabError
from k2.ops.report import at_most


class Parameters(msgspec.Struct, frozen=True):
    rates: tuple[int, ...] = (1, 2)


def call(arguments, monkeypatch, run):
    """`k2 bench log ...` with another bench in its place."""
    monkeypatch.setattr(command, "find", lambda name: Bench(name, "Nothing.", Parameters, run))
    return CliRunner().invoke(command.bench, arguments, obj=Config())


def outcome(value):
    return Outcome(
        {"value": value},
        [at_most("value", value, 5, "ms")],
        [Picture("Value", ("v",), [[value]])],
        {"samples": [value, value]},
    )


@pytest.mark.parametrize(("value", "code"), [(5, 0), (6, 1)])
def test_the_exit_code_is_zero_only_when_every_check_is_ok(monkeypatch, value, code):
    result = call(["log", "--json"], monkeypatch, lambda lab, parameters: outcome(value))
    assert result.exit_code == code
    found = json.loads(result.stdout)
    assert list(found) == ["commit", "machine", "parameters", "results", "checks"]
    assert found["checks"][0]["ok"] is (code == 0)
    assert found["results"] == {"value": value}


def test_all_runs_every_bench_and_fails_with_one(monkeypatch):
    values = dict(zip(NAMES, range(1, 20), strict=False))
    seen = []

    def run(lab, parameters):
        seen.append(lab.folder)
        return outcome(len(seen))

    result = call(["all", "--json"], monkeypatch, run)
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [check["name"] for check in found["checks"]] == [f"{name}: value" for name in values]
    assert [check["ok"] for check in found["checks"]] == [number <= 5 for number in values.values()]
    assert not any(folder.exists() for folder in seen)


def test_a_bench_that_could_not_measure_exits_with_two(monkeypatch):
    def run(lab, parameters):
        raise LabError("store ended with exit code 1: no memory")

    result = call(["log", "--json"], monkeypatch, run)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "store ended" in result.stderr


def test_all_goes_on_after_a_bench_that_could_not_measure(monkeypatch):
    def run(lab, parameters):
        if running:
            running.clear()
            raise LabError("no port")
        return outcome(1)

    running = ["the first"]
    result = call(["all", "--json"], monkeypatch, run)
    checks = json.loads(result.stdout)["checks"]
    assert result.exit_code == 1
    assert checks[0] == {"name": f"{NAMES[0]}: measured", "value": "no", "unit": "", "target": "= yes", "ok": False}
    assert len(checks) == len(NAMES)
    assert all(check["ok"] for check in checks[1:])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_bench_and_leaves_nothing(tmp_path, number):
    arguments = [sys.executable, "-m", "k2", "bench", "log", "--seconds", "60", "--dir", str(tmp_path)]
    bench = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    deadline = time.monotonic() + PATIENCE_S
    while not list(tmp_path.glob("k2-bench-*/log-1")):
        assert time.monotonic() < deadline, "the bench did not begin"
        time.sleep(0.02)
    bench.send_signal(number)
    stdout, _ = bench.communicate(timeout=PATIENCE_S)
    assert bench.returncode not in (0, None)
    assert stdout == b""
    assert not list(tmp_path.iterdir())


def test_out_and_raw_are_written(monkeypatch, tmp_path):
    arguments = ["log", "--json", "--out", str(tmp_path / "a" / "o.json"), "--raw", str(tmp_path / "r.json.gz")]
    result = call(arguments, monkeypatch, lambda lab, parameters: outcome(3))
    assert json.loads((tmp_path / "a" / "o.json").read_text()) == json.loads(result.stdout)
    assert json.loads(gzip.decompress((tmp_path / "r.json.gz").read_bytes())) == {"samples": [3, 3]}


def test_parameters_are_options():
    result = CliRunner().invoke(command.bench, ["log", "--batches", "1,x"], obj=Config())
    assert result.exit_code == 2
    assert "'1,x' is not a list" in result.stderr


def test_without_json_there_are_tables(monkeypatch):
    result = call(["log"], monkeypatch, lambda lab, parameters: outcome(3))
    assert "Checks" in result.stdout
    assert "<= 5" in result.stdout


def test_the_list_names_every_bench():
    result = CliRunner().invoke(command.bench, ["list", "--json"], obj=Config())
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["bench"] for row in rows] == [*NAMES, *LONG]
    assert all(row["measures"] == find(row["bench"]).summary for row in rows)


@pytest.mark.parametrize("name", NAMES + LONG)
def test_every_option_of_a_bench_is_explained(name):
    for option in command.bench.commands[name].params:
        assert option.help, f"k2 bench {name} --{option.name} says nothing"


def test_a_bench_that_has_pages_writes_them_of_its_report(monkeypatch, tmp_path):
    pages = {"markdown": lambda report: f"# {report['results']['value']}", "svg": lambda report: "<svg/>"}
    one = Bench("log", "Nothing.", Parameters, lambda lab, parameters: outcome(3), pages)
    monkeypatch.setattr(command, "find", lambda name: one)
    arguments = ["--markdown", str(tmp_path / "new" / "a.md"), "--json"]
    result = CliRunner().invoke(command._command("log"), arguments, obj=Config())
    assert result.exit_code == 0, result.output
    assert (tmp_path / "new" / "a.md").read_text() == "# 3"
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["a.md"]
