"""The real programs: promtool and amtool on the committed files, Prometheus and Alertmanager on a platform."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from k2.config import EXCHANGES, Config, instruments, load
from k2.ops.bench.lab import Lab
from k2.ops.watch import deploy
from k2.ops.watch.alerts import ALERTS, Alert
from k2.ops.watch.notices import Notice
from k2.ops.watch.prove import prove, report_of
from k2.ops.watch.routing import receiver_of
from k2.ops.watch.watch import Watch

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]
DEPLOY = Path(__file__).parents[2] / "deploy"


def test_committed_files_pass_the_tools_of_prometheus_and_alertmanager() -> None:
    assert [one for one in deploy.check(DEPLOY) if not one.ok] == []


def test_a_story_can_fail(tmp_path: Path) -> None:
    """Were a rule's threshold another, its story would say so."""
    deploy.write(tmp_path)
    rules = tmp_path / deploy.RULES
    rules.write_text(
        rules.read_text().replace("k2_archive_failures_in_a_row) > 2", "k2_archive_failures_in_a_row) > 5")
    )
    tested = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / deploy.RULE_TESTS)], capture_output=True, text=True, check=False
    )
    assert tested.returncode != 0
    assert "OffloadFailure" in tested.stdout + tested.stderr


@pytest.mark.parametrize("alert", ALERTS.values(), ids=lambda alert: alert.name)
def test_alert_is_routed_by_severity_and_team(alert: Alert) -> None:
    labels = [f"alertname={alert.name}", f"severity={alert.severity}", f"team={alert.team}", f"scope={alert.scope}"]
    command = ["amtool", "config", "routes", "test", f"--config.file={DEPLOY / deploy.ALERTMANAGER}", *labels]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert said == [receiver_of(alert)]


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """Nobody runs: only what a test posts is told, but for PlatformDown, which has every reason to fire."""
    folder = tmp_path_factory.mktemp("watch")
    with Watch(Config(data=str(folder / "data")), folder / "watch") as one:
        yield one


def post(watch: Watch, *alerts: tuple[str, dict[str, str]]) -> None:
    body = [
        {"labels": {"alertname": name, "severity": ALERTS[name].severity, "team": ALERTS[name].team, **more}}
        for name, more in alerts
    ]
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(f"{watch.alertmanager_url}/api/v2/alerts", json.dumps(body).encode(), headers), timeout=10):
        return


def told(watch: Watch, since: float) -> set[str]:
    """Names of the alerts that were told once a last one, posted now, has come through."""
    post(watch, ("VerifyFailed", {"mark": str(since)}))
    watch.wait_fired("VerifyFailed", since, 30, mark=str(since))
    return {notice.name for notice in watch.book.notices(since)} - {"Watchdog", "VerifyFailed"}


def test_dead_platform_is_one_page(watch: Watch) -> None:
    since = watch.now()
    assert watch.wait_fired("PlatformDown", 0, 60).receiver == "page-platform"
    everything = instruments(Config().instruments_file)
    symbols = [(venue, symbol) for venue in EXCHANGES for symbol in everything[venue]]
    assert len(symbols) == 34
    post(watch, *(("SymbolSilent", {"exchange": venue, "symbol": symbol}) for venue, symbol in symbols))
    post(watch, *((name, {"exchange": venue}) for name in ("FeedSilent", "FeedHandlerDown") for venue in EXCHANGES))
    post(watch, *(("ServiceDown", {"service": name, "instance": "a"}) for name in ("store", "loader", "web")))
    post(watch, ("StoreInsertFailure", {}), ("TradesLost", {"exchange": "kraken"}))
    assert told(watch, since) <= {"PlatformDown", "TradesLost"}
    assert watch.fired("TradesLost", since), "what was found before is still news"


def test_what_is_lost_silences_that_it_was_missing_at_that_venue_only(watch: Watch) -> None:
    post(watch, ("TradesLost", {"exchange": "binance"}))
    watch.wait_fired("TradesLost", 0, 30, exchange="binance")
    since = watch.now()
    post(watch, ("GapOpen", {"exchange": "binance"}), ("GapOpen", {"exchange": "coinbase"}))
    found: Notice = watch.wait_fired("GapOpen", since, 30)
    told(watch, since)
    assert found.labels["exchange"] == "coinbase"
    assert watch.fired("GapOpen", since, exchange="binance") is None


def test_silenced_alert_is_not_told(watch: Watch) -> None:
    watch.silence("AuditFailed", 600, "known, being mended")
    since = watch.now()
    post(watch, ("AuditFailed", {}))
    assert "AuditFailed" not in told(watch, since)


def test_alerts_fire_on_a_platform_are_received_and_clear(tmp_path: Path) -> None:
    """All of them: `k2 alerts prove`. Here one of a venue, one of a service, and the one that always fires."""
    said: list[str] = []
    began = time.monotonic()
    with Lab(load(environ={}), said.append, tmp_path) as lab:
        proofs = prove(lab, ["Watchdog", "FeedFaults", "ServiceDown"], said.append)
    found = report_of(proofs)
    assert all(check["ok"] for check in found["checks"]), (said, time.monotonic() - began)
    assert {proof.alert for proof in proofs} == {"Watchdog", "FeedFaults", "ServiceDown"}
