"""What the supervisor and the consumers measure for alerts."""

import json
import signal
from pathlib import Path

import pytest

from k2.config import Config
from k2.log import Entry
from k2.log.lag import Lag
from k2.log.memory import MemoryLog
from k2.ops import outcome
from k2.ops.measures import EXIT, OUT_OF_MEMORY, SIGNAL, ending
from k2.ops.targets import Targets, targets_file
from k2.ops.watch.notices import Book

STREAM = "market.crypto.trades.kraken"


def test_lag_is_counted_in_records_and_in_time() -> None:
    log = MemoryLog()
    lag = Lag(log, STREAM, dict, clock=lambda: 0.0)
    assert (lag.records(), lag.seconds()) == (0.0, 0.0)
    for _ in range(2):
        log.append([Entry(STREAM, ["BTC-USD"] * 5, [b"{}"] * 5)])
    first, second = (batch.append_ts / 1e9 for batch in log.read(STREAM, 0))
    for at, records, since in ((0, 10.0, first), (7, 3.0, second)):
        behind = Lag(log, STREAM, lambda at=at: {STREAM: at}, clock=lambda: second + 60)
        assert (behind.records(), behind.seconds()) == (records, pytest.approx(second + 60 - since))
    assert Lag(log, STREAM, lambda: {STREAM: 10}).seconds() == 0.0


def test_lag_of_a_log_that_does_not_answer_is_no_number() -> None:
    log = MemoryLog()
    log.append([Entry(STREAM, ["BTC-USD"], [b"{}"])])
    lag = Lag(log, STREAM, dict)
    log.close()
    assert lag.records() != lag.records()


@pytest.mark.parametrize(
    ("code", "words", "how"),
    [
        (1, "k2 load: the store is gone", EXIT),
        (-signal.SIGKILL, "", SIGNAL),
        (1, "MemoryError", OUT_OF_MEMORY),
        (1, "std::bad_alloc was thrown", OUT_OF_MEMORY),
    ],
)
def test_how_a_process_ended(code: int, words: str, how: str) -> None:
    assert ending(code, words) == how


def test_targets_keep_a_process_that_died_and_follow_its_port(tmp_path: Path) -> None:
    targets = Targets(Config(data=str(tmp_path)))
    targets.update({"store": 9405, "web": 0})
    targets.update({"store": 0, "web": 9409})
    targets.update({"store": 40001})
    found = json.loads(targets_file(tmp_path / "run").read_text())
    assert {one["labels"]["service"]: one["targets"] for one in found} == {
        "store": ["127.0.0.1:40001"],
        "web": ["127.0.0.1:9409"],
    }


def _found(missing: int, ok: bool) -> dict[str, object]:
    symbol = {"exchange": "kraken", "missing": [[5, 4 + missing]] if missing else [], "duplicates": 0}
    return {"results": {"symbols": [symbol]}, "checks": [{"name": "missing trades", "ok": ok}]}


def test_a_proof_of_a_part_does_not_hide_one_of_the_whole(tmp_path: Path) -> None:
    assert outcome.read(tmp_path) == outcome.Outcomes()
    outcome.leave(tmp_path, _found(3, False), whole=True)
    outcome.leave(tmp_path, _found(0, True), whole=False)
    known = outcome.read(tmp_path)
    assert known.whole
    assert known.part
    assert (known.whole.ok, known.whole.missing, known.part.ok) == (False, {"kraken": 3}, True)
    outcome.leave(tmp_path, _found(0, True), whole=True)
    assert outcome.read(tmp_path).part is None


def _message(status: str, **labels: str) -> dict[str, object]:
    return {"receiver": "page-feeds", "alerts": [{"status": status, "labels": labels, "annotations": {}}]}


def test_the_book_keeps_changes_and_not_repetitions() -> None:
    book = Book()
    for status in ("firing", "firing", "resolved", "resolved", "firing"):
        book.add(_message(status, alertname="GapOpen", exchange="kraken"))
    assert [notice.firing for notice in book.notices()] == [True, False, True]
    assert book.first("GapOpen", 0.0, False, {"exchange": "kraken"}, 0.0) == book.notices()[1]
    assert book.first("GapOpen", 0.0, True, {"exchange": "binance"}, 0.0) is None
