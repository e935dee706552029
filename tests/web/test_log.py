"""The log console: every record is found, in order, and a search that ends early says where to go on."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.patience import PATIENCE_S
from tests.web.serving import Served

from k2.core.codec import encode_frame, frames_stream, trades_stream
from k2.core.types import Frame
from k2.log import Entry, Log
from k2.log.lmdb import LmdbLog
from k2.log.memory import MemoryLog
from k2.web import records
from k2.web.records import Found, Wanted, backwards, onwards, readable
from k2.web.streams import first_at

STREAM = "market.test"


def filled(keys: list[str], batch: int) -> MemoryLog:
    """A log whose record i has the key keys[i] and says its number, `batch` records an append."""
    log = MemoryLog()
    values = [f"{{n {i}}}".encode() for i in range(len(keys))]
    for at in range(0, len(keys), batch):
        log.append([Entry(STREAM, keys[at : at + batch], values[at : at + batch])])
    return log


@given(st.lists(st.sampled_from("ab"), max_size=60), st.integers(1, 9), st.integers(1, 7), st.integers(1, 40))
def test_pages_in_either_direction_show_every_match_once(keys: list[str], batch: int, limit: int, scan: int) -> None:
    log = filled(keys, batch)
    matching = [i for i, key in enumerate(keys) if key == "a"]
    wanted = Wanted("a", b"{n", limit, scan)

    def walk(down: bool) -> Iterator[Found]:
        at, complete = len(keys) if down else 0, False
        while not complete:
            found = (backwards if down else onwards)(log, STREAM, at, wanted)
            assert len(found.records) <= limit
            assert found.scanned <= scan
            assert found.complete or found.next != at, "a page that goes nowhere"
            at, complete = found.next, found.complete
            yield found

    assert [record.offset for page in walk(False) for record in page.records] == matching
    assert [record.offset for page in walk(True) for record in page.records] == matching[::-1]


def test_an_answer_is_bounded_in_bytes_and_goes_on_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "ANSWER_BYTES", 100)
    log = MemoryLog()
    log.append([Entry(STREAM, [""] * 9, [bytes([65 + i]) * 60 for i in range(9)])])
    newest = backwards(log, STREAM, 9, Wanted())
    assert [record.offset for record in newest.records] == [8]
    assert (newest.next, newest.complete) == (8, False)
    oldest = onwards(log, STREAM, 0, Wanted())
    assert [record.offset for record in oldest.records] == [0, 1]
    assert (oldest.next, oldest.complete) == (2, False)


@pytest.mark.parametrize("at", [-1, 0, 1, 4, 7, 50, 99, 100, 101])
def test_a_time_leads_to_its_first_record(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LmdbLog(tmp_path)
    for moment in range(0, 101, 2):
        monkeypatch.setattr(time, "time_ns", lambda moment=moment: moment)
        log.append([Entry(STREAM, [""] * 20, [b"x"] * 20)])
    assert first_at(log, STREAM, 0, 1020, at) == min(1020, max(0, (at + 1) // 2 * 20))
    log.close()


def test_frames_are_text_where_they_can_be() -> None:
    stream = frames_stream("kraken")

    def shown(payload: bytes, **how: bool) -> records.Message:
        value = encode_frame(Frame(1, "rest", "rest", "200 /trades", payload))
        return readable(stream, records.Record(7, 2, "", value), **how)

    text = shown('{"é": 1}'.encode())
    assert (text.kind, text.record["payload"], text.record["encoding"]) == ("frame", '{"é": 1}', "text")
    assert text.record["recv_ts"] == "1970-01-01T00:00:00.000000001Z"
    assert text.record["request"] == "200 /trades"
    assert shown(b"\xff\x00").record["payload"] == "/wA="
    assert shown(b"\xff\x00").record["encoding"] == "base64"
    long = shown(b"x" * 100_000)
    assert (len(long.record["payload"]), long.cut, long.size > 100_000) == (records.PAYLOAD_SHOWN, True, True)
    assert shown(b"x" * 100_000, whole=True).cut is False
    assert shown(b"plain", text=True).record == "plain"


def test_what_is_no_record_of_its_stream_is_shown_all_the_same() -> None:
    for stream in (trades_stream("kraken"), frames_stream("kraken"), "market.crypto.gaps", "other"):
        message = readable(stream, records.Record(0, 0, "k", b"\x01junk"))
        assert (message.kind, message.record) == ("other", "\x01junk")


def test_the_streams(served: Served) -> None:
    log: Log = served.web.log
    deadline = time.monotonic() + PATIENCE_S
    while len(log.committed("loader")) < 4:  # visible before they are committed
        assert time.monotonic() < deadline
        time.sleep(0.05)
    answer = served.get("/v1/log/streams")
    assert answer.status == 200
    found = {one["stream"]: one for one in answer.json()["data"]}
    for info in log.streams():
        one = found[info.stream]
        assert (one["start"], one["end"], one["records"]) == (info.start, info.end, info.end - info.start)
        assert one["bytes"] == info.size
    assert found["market.crypto.gaps"]["kind"] == "gaps"
    trades = found["market.crypto.trades.kraken"]
    assert (trades["kind"], trades["exchange"], trades["partitions"]) == ("trades", "kraken", 1)
    (loader,) = [one for one in trades["consumers"] if one["consumer"] == "loader"]
    assert loader["offset"] + loader["lag"] == trades["end"]
    assert loader["checkpoint"] is False


def test_the_newest_and_the_page_before_it(served: Served) -> None:
    end = served.web.log.bounds("market.crypto.trades.coinbase")[1]
    newest = served.get("/v1/log/messages?stream=coinbase&tail=3").json()
    assert newest["order"] == "newest first"
    assert [one["offset"] for one in newest["data"]] == [end - 1, end - 2, end - 3]
    older = served.get(f"/v1/log/messages?stream=coinbase&before={newest['next']}&limit=2").json()
    assert [one["offset"] for one in older["data"]] == [end - 4, end - 5]


def test_a_trade_is_the_object_or_the_very_text_of_the_log(served: Served) -> None:
    (batch, *_) = served.web.log.read("market.crypto.trades.kraken", 5, 1)
    path = "/v1/log/messages?stream=market.crypto.trades.kraken&offset=5&limit=1"
    (message,) = served.get(path).json()["data"]
    assert message["record"] == json.loads(batch.values[0])
    assert batch.values[0] in served.get(path).body, "byte for byte"
    assert (message["kind"], message["key"]) == ("trade", "BTC-USD")
    (text,) = served.get(f"{path}&text=true").json()["data"]
    assert text["record"] == batch.values[0].decode()


def test_search_by_key_and_contents_says_how_far_it_came(served: Served) -> None:
    of_eth = served.get("/v1/log/messages?stream=binance&offset=0&key=ETH-USDT&limit=5").json()
    assert {one["key"] for one in of_eth["data"]} == {"ETH-USDT"}
    assert len(of_eth["data"]) == 5
    assert of_eth["complete"] is False
    one = served.get('/v1/log/messages?stream=binance&key=ETH-USDT&contains="trade_id":77,').json()
    assert [message["record"]["trade_id"] for message in one["data"]] == [77]
    assert one["complete"] is True
    assert one["next"] is None
    cut = served.get("/v1/log/messages?stream=binance&contains=nothing+such&scan=100").json()
    assert (cut["data"], cut["scanned"], cut["complete"]) == ([], 100, False)
    assert cut["next"] == cut["end"] - 100


def test_gaps_and_frames(served: Served) -> None:
    gaps = served.get("/v1/log/messages?stream=gaps&key=BTC-USD&contains=unavailable").json()["data"]
    assert [(gap["kind"], gap["record"]["missing"]) for gap in gaps] == [("gap", [[201, 205]])]
    (frame,) = served.get("/v1/log/messages?stream=binance.raw&offset=0&limit=1").json()["data"]
    assert frame["kind"] == "frame"
    assert json.loads(frame["record"]["payload"])["exchange"] == "binance"


def test_a_time_in_the_past_shows_what_was_appended_since(served: Served) -> None:
    everything = served.get("/v1/log/messages?stream=kraken&time=-1d&limit=1").json()
    assert (everything["order"], everything["data"][0]["offset"]) == ("oldest first", 0)
    nothing = served.get("/v1/log/messages?stream=kraken&time=now").json()
    assert (nothing["data"], nothing["complete"], nothing["next"]) == ([], True, nothing["end"])


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("stream=binanc", 404, "did you mean binance"),
        ("stream=../../etc/passwd", 404, "there are market.crypto"),
        ("stream=binance&time=yesterdayish", 400, "it is no time"),
        ("stream=binance&offset=1&before=2", 400, "offset and before"),
        ("stream=binance&offset=999999999", 400, "ends at offset"),
        ("stream=binance&limit=0", 400, "limit"),
        ("", 400, "stream"),
    ],
)
def test_what_cannot_be_answered_is_said(served: Served, query: str, status: int, words: str) -> None:
    answer = served.get(f"/v1/log/messages?{query}")
    assert answer.status == status
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert words in answer.body.decode()
