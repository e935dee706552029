from array import array

import pytest

from k2 import trace
from k2.trace import Noted


@pytest.fixture(autouse=True)
def off_again():
    yield
    trace.stop()


def test_nothing_is_noted_unless_started(tmp_path):
    trace.start("")
    trace.note("logged", "a", 0, 1, 2, 3)
    assert not trace.on()
    assert trace.read(tmp_path, "logged") == {}


def test_batches_are_read_back_by_stage_and_name(tmp_path):
    trace.start(str(tmp_path / "trace"))
    trace.note("logged", "market.crypto.trades.kraken", 0, 3, 100, 200)
    trace.note("sent", "kraken/BTC-USD/0", 7, 1, 1, 2)
    trace.note("logged", "market.crypto.trades.kraken", 3, 1, 300, 400)
    trace.note("logged", "market.crypto.trades.kraken", 4, 0, 500, 600)  # no records, no note
    assert trace.read(tmp_path / "trace", "logged") == {
        "market.crypto.trades.kraken": [Noted(0, 3, 100, 200), Noted(3, 1, 300, 400)]
    }
    assert trace.read(tmp_path / "trace", "sent") == {"kraken/BTC-USD/0": [Noted(7, 1, 1, 2)]}


def test_a_torn_end_is_left_out_and_processes_add_up(tmp_path):
    (tmp_path / "loaded").mkdir()
    (tmp_path / "loaded" / "s.11").write_bytes(array("q", [1, 2, 3, 4]).tobytes() + b"torn")
    (tmp_path / "loaded" / "s.7").write_bytes(array("q", [5, 6, 7, 8]).tobytes())
    assert trace.read(tmp_path, "loaded") == {"s": [Noted(1, 2, 3, 4), Noted(5, 6, 7, 8)]}


def test_a_trace_that_cannot_be_written_ends_and_disturbs_nobody(tmp_path, caplog):
    trace.start(str(tmp_path))
    (tmp_path / "logged").write_text("in the way")
    trace.note("logged", "s", 0, 1, 2, 3)
    assert not trace.on()
    assert "the trace ends here" in caplog.text
