"""What Alertmanager has told, as a drill's round sees it."""

from pathlib import Path

import pytest

from k2.config import Config
from k2.ops.drill import DrillError
from k2.ops.drill.watched import Watched
from k2.ops.watch.watch import Watch, WatchError


def told(watch: Watch, status: str, *about: str, receiver: str = "pager", name: str = "FeedSilent") -> None:
    alerts = [{"status": status, "labels": {"alertname": name, "exchange": one}, "annotations": {}} for one in about]
    watch.book.add({"receiver": receiver, "alerts": alerts})


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    monkeypatch.setattr(Watch, "settle", lambda self, within: None)
    return Watch(Config(data=str(tmp_path)), tmp_path)


def test_an_alert_is_over_when_it_is_over_for_all_that_it_spoke_of(watch: Watch) -> None:
    told(watch, "firing", "coinbase")
    alerts = Watched(watch)
    alerts.begin()
    told(watch, "firing", "kraken", "binance")
    told(watch, "firing", "kraken", receiver="chat")
    told(watch, "firing", "", name="Watchdog")
    assert set(alerts.fired()) == {"FeedSilent"}
    told(watch, "resolved", "kraken", "binance")
    assert alerts.cleared() == {}
    told(watch, "resolved", "kraken", receiver="chat")
    assert alerts.cleared()["FeedSilent"] >= alerts.fired()["FeedSilent"]
    alerts.begin()
    assert alerts.fired() == {}


def test_what_stood_before_is_no_result(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    def stands(self: Watch, within: float) -> None:
        raise WatchError("GapOpen firing")

    monkeypatch.setattr(Watch, "settle", stands)
    with pytest.raises(DrillError, match="GapOpen firing"):
        Watched(watch).begin()
