from k2 import __version__
from k2.ops import report as form
from k2.ops.report import at_least, at_most, below, equal, filesystem, passed, report


def test_a_report_has_the_five_parts_in_order():
    found = report({"rate": 5}, {"p99_ms": 3.5}, [at_most("p99", 3.5, 25, "ms")])
    assert list(found) == ["commit", "machine", "parameters", "results", "checks"]
    assert found["checks"] == [{"name": "p99", "value": 3.5, "unit": "ms", "target": "<= 25", "ok": True}]
    assert {"cpu", "cores", "system", "python", "libraries"} <= set(found["machine"])
    assert found["commit"]
    assert passed(found)


def test_one_check_that_fails_fails_the_report():
    assert not passed(report({}, {}, [equal("lost", 0, 0), equal("twice", 1, 0)]))


def test_bounds():
    assert at_most("x", 12, 12, "us").ok
    assert not at_most("x", 12.0001, 12, "us").ok
    assert not below("x", 8, 8, "s").ok
    assert at_least("x", 40_000, 40_000, "1/s").ok
    assert not at_least("x", 39_999.9, 40_000, "1/s").ok


def test_no_figure_is_no_success():
    assert not at_most("x", None, 12, "us").ok
    assert not at_least("x", None, 1, "1/s").ok
    assert not equal("x", None, 0).ok


def test_a_rounded_value_never_hides_a_failure():
    check = at_most("x", 12.00001, 12, "us")
    assert (check.value, check.ok) == (12.0, False)


def test_without_git_the_version_stands_for_the_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(form, "__file__", str(tmp_path / "a" / "b" / "c" / "report.py"))
    form.commit.cache_clear()
    try:
        assert form.commit() == f"version {__version__}"
    finally:
        form.commit.cache_clear()


def test_the_file_system_of_a_folder_is_known(tmp_path):
    assert filesystem(tmp_path)
    assert filesystem(tmp_path / "not" / "there" / "yet") == filesystem(tmp_path)
