"""The look at the platform: pages as they are read, rates and quantiles between two looks."""

from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from k2 import metrics
from k2.config import Config, MetricsConfig
from k2.ops.vitals import Observer

PAGE = """\
# HELP k2_a_total Escapes.
# TYPE k2_a_total counter
k2_a_total{b="x, y",a="says \\"hi\\" \\\\ "} 3.0

k2_plain 1e+05
k2_unknown NaN
k2_edge_bucket{le="+Inf"} +Inf
"""


def test_a_page_is_read_as_the_reference_parser_reads_it() -> None:
    metrics.FRAMES.labels("page").inc(3)
    for page in (PAGE, generate_latest().decode()):
        families = text_string_to_metric_families(page)
        samples = [sample for family in families for sample in family.samples]
        wanted = {(sample.name, tuple(sorted(sample.labels.items()))): str(sample.value) for sample in samples}
        for _ in ("read", "from memory"):
            assert {series: str(value) for series, value in metrics.parse(page).items()} == wanted
        assert len(wanted) >= 4


def test_what_is_no_page_is_refused() -> None:
    with pytest.raises(ValueError, match="no"):
        metrics.parse("no page at all")


def test_a_look_tells_rates_and_quantiles_since_the_one_before(tmp_path: Path) -> None:
    config = Config(data=str(tmp_path), metrics=MetricsConfig(port=0))
    metrics.serve(config, "feed-handler-vitals")
    metrics.CONNECTED.labels("vitals").set(1)
    metrics.TRADES.labels("vitals", "live").inc(7)
    metrics.LAST_TRADE.labels("vitals", "BTC-USDT").set(10)
    metrics.LAST_TRADE.labels("vitals", "ETH-USDT").set(20)
    stage = metrics.STAGE.labels("vitals_stage", "vitals")
    stage.observe(5.0)
    metrics.LAG.labels("vitals", "unreadable").set(float("nan"))
    metrics.LAG.labels("vitals", "readable").set(3)
    observer = Observer(config.run_dir)
    first = observer.look()
    assert first.lags["vitals"] == {"readable": 3}
    metrics.TRADES.labels("vitals", "live").inc(100)
    for _ in range(10):
        stage.observe(0.0005)
    second = observer.look()
    (venue,) = [venue for venue in second.venues if venue.exchange == "vitals"]
    (process,) = second.processes
    assert (process.service, process.answers, process.memory > 0) == ("feed-handler-vitals", True, True)
    assert (venue.connected, venue.trades, venue.last_trade, venue.clock_offset) == (True, 107, 20.0, None)
    assert venue.rate == pytest.approx(100 / (second.at - first.at))
    assert second.stages["vitals_stage"][1] <= 0.001


def test_a_process_that_is_gone_or_deaf_is_told_apart(tmp_path: Path) -> None:
    config = Config(data=str(tmp_path))
    metrics.write_status(config, "loader", 1)  # nobody answers on that port
    (tmp_path / "run" / "store.json").write_text('{"service": "store", "pid": 4194304, "metrics_port": 1}')
    (process,) = Observer(config.run_dir).look().processes
    assert (process.service, process.answers) == ("loader", False)
