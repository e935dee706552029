"""Every alert is whole: a rule on metrics that somebody exports, a test story, a cause, a runbook, and its files."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from k2 import metrics
from k2.ops.drill import drills
from k2.ops.watch import deploy, routing, rules, yamltext
from k2.ops.watch.alerts import ALERTS, Alert
from k2.ops.watch.causes import CAUSES
from k2.ops.watch.examples import EXAMPLES
from k2.ops.watch.rules import Pace

ROOT = Path(__file__).parents[2]
OURS = {"up", "ALERTS"}  # Prometheus's own
WORDS = {"and", "or", "unless", "by", "on", "without", "ignoring", "bool"}
each_alert = pytest.mark.parametrize("alert", ALERTS.values(), ids=lambda alert: alert.name)


def names(expression: str) -> set[str]:
    """The metrics that a PromQL expression asks for."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)", "", bare)
    words = re.findall(r"([a-zA-Z_:][\w:]*)\s*(\()?", bare)
    return {word for word, call in words if not call and word not in WORDS}


def exported() -> Iterator[str]:
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
            yield from (family.name + suffix for suffix in suffixes)


def test_names_are_found() -> None:
    asked = 'sum by (a, b) (rate(x_total{c="d y"}[5m])) > 1 and on (e) max_over_time(z[1m]) or vector(0) * 7'
    assert names(asked) == {"x_total", "z"}


@each_alert
def test_alert_asks_only_for_what_is_exported(alert: Alert) -> None:
    known = {*exported(), *OURS}
    assert not {name for name in names(rules.ON_DUTY.expression(alert.expr)) - known if not name.startswith("process_")}


@each_alert
def test_alert_has_a_story_a_cause_and_a_runbook(alert: Alert) -> None:
    assert [example.alert for example in EXAMPLES].count(alert.name) == 1, "a story in examples.py"
    assert alert.name in {name for cause in CAUSES for name in cause.alerts}, "a cause in causes.py"
    page = ROOT / alert.runbook
    assert page.is_file(), f"{alert.runbook} is to be written"
    assert page.read_text().startswith(f"# {alert.name}\n")


@each_alert
def test_drills_of_an_alert_exist(alert: Alert) -> None:
    assert set(alert.drills) <= drills().keys()


@each_alert
def test_alert_speaks_of_what_its_labels_say(alert: Alert) -> None:
    """A label in the text that the expression does not have would be an empty place in a page at night."""
    used = set(re.findall(r"\$labels\.(\w+)", alert.summary + alert.description))
    kept = {label.strip() for found in re.findall(r"\bby \(([^)]*)\)", alert.expr) for label in found.split(",")}
    assert used <= kept


@pytest.mark.parametrize("name", deploy.files())
def test_committed_files_are_what_is_written(name: str) -> None:
    file = ROOT / "deploy" / name
    assert file.read_text() == deploy.files()[name], f"deploy/{name} is behind the code: run `k2 alerts write deploy`"


def test_what_is_written_is_yaml_and_means_the_same() -> None:
    for document in (
        rules.rules(),
        routing.alertmanager(),
        {"a": ["no", "", "1", "x: y", 'it\'s "so"', 'q"', None, 1.5]},
    ):
        assert yaml.safe_load(yamltext.dump(document, "a comment\nof two lines")) == document


def test_times_are_divided_and_never_too_short() -> None:
    pace = Pace(60, 3)
    assert pace.expression("rate(x[<10m>]) > <1h in s> or y > <1m in s>") == "rate(x[10000ms]) > 60 or y > 3"
    assert [pace.hold(one) for one in ("0s", "30s", "1m", "5m")] == ["0ms", "1500ms", "3000ms", "5000ms"]
    assert rules.ON_DUTY.expression("rate(x[<10m>]) > <1h in s>") == "rate(x[10m]) > 3600"


def test_secrets_stand_in_files() -> None:
    text = deploy.files()[deploy.ALERTMANAGER]
    for line in text.splitlines():
        assert not re.search(
            r"(password|token|secret|credentials|api_url|routing_key)\b(?!_file)[^#]*:", line.split("#")[0]
        )
    assert text.count(f"{routing.SECRETS}/") >= 3
