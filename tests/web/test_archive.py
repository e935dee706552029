"""The cold tier as the API tells it: the same that PyIceberg says of it, and the last audit's verdict."""

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.web.serving import Served, WebThread, trade

from k2.config import EXCHANGES
from k2.core.codec import encode_trade, trades_stream
from k2.log import Entry
from k2.log.lmdb import LmdbLog
from k2.tier import verdict
from k2.tier.catalog import open_catalog
from k2.tier.offload.archiver import Archiver
from k2.tier.past.history import snapshots as history
from k2.tier.prove.audit import Audit, Compared, Finding
from k2.web.cold import Snapshot, archiving_rate

STREAM = trades_stream("kraken")


def audit(data: Path) -> None:
    environ = {"PATH": "/usr/bin:/bin", "K2_METRICS_PORT": "0"}
    command = [sys.executable, "-m", "k2", "--data", str(data), "archive", "audit"]
    subprocess.run(command, env=environ, cwd=data, capture_output=True, check=True, timeout=60)


def put(data: Path, first: int, last: int) -> None:
    log = LmdbLog(data / "log")
    records = [encode_trade(trade("kraken", "BTC-USD", number)) for number in range(first, last + 1)]
    log.append([Entry(STREAM, ["BTC-USD"] * len(records), records)])
    log.close()


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder: 100 trades archived in two offloads and audited, 7 more in the log."""
    data = tmp_path_factory.mktemp("archived")
    for first, last in ((1, 60), (61, 100)):
        put(data, first, last)
        log = LmdbLog(data / "log")
        Archiver(log, open_catalog(data / "cold"), EXCHANGES).run()
        log.close()
    audit(data)
    put(data, 101, 107)
    return data


@pytest.fixture(scope="module")
def web(served: Served, archived: Path) -> WebThread:
    return served.another(archived)


def ask(web: WebThread, path: str) -> Any:
    answer = web.get(path)
    assert answer.status == 200, answer.body
    return answer.json()


def test_snapshots_are_those_that_pyiceberg_tells(web: WebThread, archived: Path) -> None:
    told = ask(web, "/v1/snapshots?table=trades")
    expected = history(open_catalog(archived / "cold"), "trades")[::-1]
    assert len(expected) == 2
    for one, want in zip(told["data"], expected, strict=True):
        assert one["snapshot_id"] == str(want.snapshot_id)
        assert datetime.fromisoformat(one["time"]) == datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=want.time)
        for name in ("operation", "rows", "added_rows", "removed_rows", "files", "added_files", "removed_files"):
            assert one[name] == getattr(want, name), name
        assert (one["bytes"], one["offsets"], one["current"]) == (want.bytes, dict(want.offsets), want.current)
    assert [one["rows"] for one in told["data"]] == [100, 60]


def test_snapshots_of_all_tables_are_bounded(web: WebThread) -> None:
    everything = ask(web, "/v1/snapshots")
    assert everything["more"] == 0
    assert {one["table"] for one in everything["data"]} == {"trades"}
    first = ask(web, "/v1/snapshots?limit=1")
    assert (first["data"], first["more"]) == (everything["data"][:1], len(everything["data"]) - 1)
    assert web.get("/v1/snapshots?table=tradez").status == 400


def test_the_archive_says_how_large_it_is_and_what_it_lacks(web: WebThread, archived: Path) -> None:
    found = ask(web, "/v1/archive")
    tables = {one["table"]: one for one in found["tables"]}
    assert {"trades", "frames", "gaps"} <= set(tables)
    trades = tables["trades"]
    files = [file.stat().st_size for file in archived.glob("cold/warehouse/cold/trades/data/**/*.parquet")]
    assert (trades["rows"], trades["files"], trades["bytes"]) == (100, len(files), sum(files))
    assert found["bytes_per_trade"] == round(sum(files) / 100, 2)
    assert (trades["lag"], found["lag"]) == (7, 7)
    assert trades["lag_s"] > 0
    assert trades["offsets"][STREAM] == 100
    assert trades["trouble"] == ""
    assert found["last_offload"] == trades["last_commit"]
    assert found["last_maintenance"] is None


def test_the_last_audit_and_its_verdict(web: WebThread, archived: Path) -> None:
    last = ask(web, "/v1/archive")["last_audit"]
    assert (last["ok"], last["against"], last["rows"], last["findings"]) == (True, "log", 100, {})
    one = Audit("log", {}, [], 0.1)
    verdict.leave(archived / "cold", verdict.of(one, "binance", None, None, 1_767_312_000_000))
    found = ask(web, "/v1/archive")
    assert found["last_audit"] == last, "one exchange says nothing of the rest"
    assert found["last_partial_audit"]["time"] == "2026-01-02T00:00:00.000Z"
    assert found["last_partial_audit"]["exchange"] == "binance"


def test_an_archive_that_another_log_filled_says_so(served: Served, archived: Path, tmp_path: Path) -> None:
    (tmp_path / "cold").symlink_to(archived / "cold")
    put(tmp_path, 1, 3)
    found = ask(served.another(tmp_path), "/v1/archive")
    (trades,) = [one for one in found["tables"] if one["table"] == "trades"]
    assert "do not belong together" in trades["trouble"]


def test_nothing_archived_yet(served: Served, tmp_path: Path) -> None:
    web = served.another(tmp_path / "new")
    found = ask(web, "/v1/archive")
    assert [(one["table"], one["rows"], one["snapshot_id"]) for one in found["tables"]] == [
        ("frames", 0, None), ("gaps", 0, None), ("trades", 0, None),
    ]  # fmt: skip
    assert (found["bytes_per_trade"], found["last_offload"], found["last_audit"]) == (None, None, None)
    assert ask(web, "/v1/snapshots") == {"data": [], "more": 0}


def test_a_cold_tier_that_cannot_be_read_is_a_problem_with_a_remedy(served: Served, tmp_path: Path) -> None:
    (tmp_path / "cold").mkdir()
    (tmp_path / "cold" / "catalog.db").write_bytes(b"no database" * 100)
    answer = served.another(tmp_path).get("/v1/archive")
    assert answer.status == 503
    assert "catalog.db" in answer.json()["detail"]


def test_a_verdict_is_remembered_with_its_first_findings(tmp_path: Path) -> None:
    findings = [Finding("hole", "trades", "kraken", "BTC-USD", 0, 1, f"id {i} is missing") for i in range(30)]
    found = Audit("hot", {"trades": Compared(5, {}, 10, 9)}, findings, 1.5)
    verdict.leave(tmp_path / "cold", verdict.of(found, None, "btc-usd", date(2026, 1, 2), 1_000))
    known = verdict.read(tmp_path / "cold")
    assert known.whole is None
    assert known.part is not None
    assert (known.part.ok, known.part.symbol, known.part.day) == (False, "BTC-USD", "2026-01-02")
    assert known.part.findings == {"hole": 30}
    assert known.part.texts[0] == "id 0 is missing"
    assert len(known.part.texts) == verdict.TEXTS
    assert [file.name for file in (tmp_path / "cold").iterdir()] == [verdict.FILE], "no part of a file stays"


def test_a_verdict_that_is_damaged_is_none(tmp_path: Path) -> None:
    (tmp_path / verdict.FILE).write_text('{"whole": {"at": "yester')
    assert verdict.read(tmp_path) == verdict.Verdicts()


def test_the_rate_of_archiving_is_that_between_offloads() -> None:
    def offload(seconds: int, rows: int, operation: str = "append") -> Snapshot:
        at = (datetime(2026, 1, 2, tzinfo=UTC) + timedelta(seconds=seconds)).isoformat()
        return Snapshot("trades", "1", at, operation, 0, rows, 0, 0, 0, 0, 0, {STREAM: 1}, False)

    since = datetime(2026, 1, 2, tzinfo=UTC)
    assert archiving_rate([offload(0, 999), offload(60, 600), offload(30, 300, "replace")], since) == 10.0
    assert archiving_rate([offload(0, 999)], since) is None
    assert archiving_rate([offload(-900, 9), offload(10, 5)], since) is None, "the older one does not count"
