"""From samples to the verdict, and to the page that tells it."""

from xml.etree import ElementTree

import msgspec
import pytest
from tests.burnin.samples import BEGAN, EVERY

from k2.config import BudgetConfig
from k2.ops.burnin import BurninError
from k2.ops.burnin.folder import Folder
from k2.ops.burnin.outcome import outcome, write
from k2.ops.burnin.page import PICTURES
from k2.ops.report import passed

BUDGET = BudgetConfig()


def failed(found):
    return [check["name"] for check in found["checks"] if not check["ok"]]


def process(found, name):
    return next(one for one in found["results"]["processes"] if one["process"] == name)


def test_a_quiet_run_passes(recorded):
    found = outcome(recorded(), BUDGET)
    assert failed(found) == []
    assert passed(found)
    results = found["results"]
    assert results["seconds_run"] == 7200
    assert results["made_per_s"] == 500.0
    assert process(found, "store")["cpu_percent"] == pytest.approx(2.0)
    assert process(found, "store")["rss_mb_max"] == 45.0  # the peak between the looks
    assert results["all"]["cpu_percent"] == pytest.approx(12.0)  # six services; simulator and observer are no part
    assert results["all"]["rss_mb_max"] == 240.0
    assert len(results["windows"]) == 24
    assert {one["verdict"] for one in results["growth"]} == {"no slope", "not judged"}


def test_a_leak_is_a_failed_check(recorded):
    def leak(row):
        grown = int((row.at - BEGAN) * 1_000)  # 86 MB in a day
        return row._replace(own=row.own + grown) if row.service == "web" else row

    assert failed(outcome(recorded(change=leak), BUDGET)) == ["growth in 24 h of own memory: web"]


def test_growth_below_the_bound_is_none(recorded):
    def leak(row):
        return row._replace(own=row.own + int((row.at - BEGAN) * 400)) if row.service == "web" else row

    assert failed(outcome(recorded(change=leak), BUDGET)) == []


def test_open_files_that_grow_are_seen(recorded):
    def leak(row):
        return row._replace(files=row.files + int((row.at - BEGAN) / 600)) if row.service == "store" else row

    assert failed(outcome(recorded(change=leak), BUDGET)) == ["growth in 24 h of open files: store"]


def test_a_short_run_judges_no_slope(recorded):
    def leak(row):
        return row._replace(own=row.own + int((row.at - BEGAN) * 100_000))

    found = outcome(recorded(hours=0.5, change=leak), BUDGET)
    assert {one["verdict"] for one in found["results"]["growth"]} == {"too short to tell", "not judged"}
    assert failed(found) == []


def test_budgets_are_held(recorded):
    def heavy(row):
        if row.service == "store":
            return row._replace(rss=950_000_000, peak=960_000_000)
        return row._replace(cpu_s=row.cpu_s * 30) if row.service == "loader" else row

    assert failed(outcome(recorded(change=heavy), BUDGET)) == [
        "resident memory, most: store",
        "resident memory, most: all that stay",
        "CPU: loader",
        "CPU: all",
    ]


def test_a_job_counts_by_itself_and_not_among_those_that_stay(recorded):
    folder = recorded()
    rows = folder.processes()
    job = [row._replace(service="job", pid=9, rss=700_000_000) for row in rows if row.service == "web"][:30]
    text = folder.samples.read_text()
    lines = [",".join(map(str, row)) for row in job]
    merged = sorted([*text.splitlines()[1:], *lines], key=lambda line: float(line.split(",")[0]))
    folder.samples.write_text("\n".join([text.splitlines()[0], *merged]) + "\n")
    found = outcome(folder, BUDGET)
    assert failed(found) == ["resident memory, most: job"]
    assert found["results"]["all"]["rss_mb_max"] == 240.0
    assert found["results"]["all"]["with_jobs_rss_mb_max"] == 940.0


def test_a_restart_is_counted(recorded):
    def again(row):
        later = row.at > BEGAN + 3600
        return row._replace(pid=5, cpu_s=row.cpu_s - 72) if later and row.service == "loader" else row

    found = outcome(recorded(change=again), BUDGET)
    assert found["results"]["restarts"] == {"loader": 1}
    assert failed(found) == ["restarts"]
    assert process(found, "loader")["cpu_percent"] == pytest.approx(2.0)


def test_an_interruption_is_shown_and_no_sample_is_made_up(recorded):
    first, back = BEGAN + 1800, BEGAN + 3600

    def session(row):
        number = int(row.at >= back)
        return row._replace(session=number, **({"pid": row.pid + 50} if number and hasattr(row, "pid") else {}))

    def look(row):
        return None if first < row.at < back else session(row)

    folder = recorded(change=session, look=look, sessions=2)
    folder.state.sessions[0].how = ""  # it was killed
    found = outcome(folder, BUDGET)
    results = found["results"]
    assert results["gaps"] == [{"from_s": 1800.0, "to_s": 3600.0, "session": 0}]
    assert results["restarts"] == {}
    assert results["seconds_run"] == 5400
    assert failed(found) == ["hours run"]
    curve, step = results["curves"]["rss_mb"]["store"], results["curves"]["step_s"]
    missing = [index * step for index, value in enumerate(curve) if value is None]
    assert 1800 < min(missing) < max(missing) < 3600
    assert len(missing) > 25
    assert not [window for window in results["windows"] if 1800 < window["from_s"] < 3600]
    write(found, folder.path)
    assert (
        "0:30:00 to 1:00:00 after the start: no samples (session 1 ended: killed)"
        in (folder.path / "burnin.md").read_text()
    )


def test_lost_trades_and_an_unfinished_run_do_not_pass(recorded):
    folder = recorded(proof=None)
    assert "trades lost" in failed(outcome(folder, BUDGET))
    folder.state.proof = {"truth": {"made": 5, "stored": 4, "lost": 1, "twice": 0, "invented": 0},
                          "verify": {"exit_code": 1}}  # fmt: skip
    assert failed(outcome(folder, BUDGET)) == ["trades lost", "k2 verify, exit code"]


def test_late_looks_are_gaps(recorded):
    found = outcome(recorded(look=lambda row: None if 600 < row.at - BEGAN < 700 else row), BUDGET)
    assert found["results"]["gaps"] == [{"from_s": 600.0, "to_s": 720.0, "session": None}]


def test_the_report_is_written_whole(recorded):
    folder = recorded()
    found = outcome(folder, BUDGET)
    write(found, folder.path)
    assert msgspec.json.decode((folder.path / "burnin.json").read_bytes()) == msgspec.json.decode(
        msgspec.json.encode(found)
    )
    page = (folder.path / "burnin.md").read_text()
    for name in PICTURES:
        assert f"({name})" in page
        assert ElementTree.parse(folder.path / name).getroot().tag.endswith("svg")


def test_without_samples_it_says_what_to_do(recorded):
    folder = recorded(look=lambda row: None)
    with pytest.raises(BurninError, match="--resume"):
        outcome(Folder.open(folder.path), BUDGET)


def test_windows_of_a_run_of_seconds_scale(recorded):
    found = outcome(recorded(hours=0.1), BUDGET)
    assert found["results"]["window_s"] == 60.0
    assert found["results"]["warm_up_s"] == 90.0
    assert len(found["results"]["windows"]) == 6
    assert found["results"]["every_s"] == EVERY
