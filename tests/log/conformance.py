"""What every backend of `k2.log.Log` does. A new backend joins by being a parameter of the fixture `log`."""

import asyncio
import select
import threading
import time
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.patience import PATIENCE_S

from k2.log import Batch, Ear, Entry, Log, LogError, OffsetOutOfRange, Position

S = "market.crypto.trades.test"
RAW = S + ".raw"


def entry(values: Sequence[bytes], stream: str = S, key: str = "BTC-USDT") -> Entry:
    return Entry(stream, [key] * len(values), list(values))


def flat(batches: Sequence[Batch]) -> list[tuple[int, str, bytes]]:
    return [
        (batch.offset + i, key, value)
        for batch in batches
        for i, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True))
    ]


def read_all(log: Log, stream: str = S, offset: int = 0, max_bytes: int = 4 << 20) -> list[tuple[int, str, bytes]]:
    found: list[tuple[int, str, bytes]] = []
    while batches := log.read(stream, offset, max_bytes):
        assert batches[0].offset == offset
        found += flat(batches)
        offset = batches[-1].end
    return found


def test_a_stream_that_does_not_exist_is_empty_and_stays_nonexistent(log: Log) -> None:
    assert log.bounds(S) == (0, 0)
    assert log.read(S, 0) == []
    assert log.check(S) == 0
    assert log.retain(S, 0, 0, time.time_ns()) == 0
    assert not log.wait({S: 0}, 0.01)
    assert log.streams() == []


def test_offsets_begin_at_zero_and_count_records(log: Log) -> None:
    assert log.append([entry([b"a", b"b"])]) == {S: 0}
    assert log.append([entry([b"c"])]) == {S: 2}
    assert log.bounds(S) == (0, 3)
    assert read_all(log) == [(0, "BTC-USDT", b"a"), (1, "BTC-USDT", b"b"), (2, "BTC-USDT", b"c")]


def test_a_batch_is_read_as_it_was_appended_and_cut_at_the_offset(log: Log) -> None:
    before = time.time_ns()
    log.append([Entry(S, ["X", "", "Y"], [b"0", b"", b"2"])])
    (whole,) = log.read(S, 0)
    assert (list(whole.keys), list(whole.values), whole.end) == (["X", "", "Y"], [b"0", b"", b"2"], 3)
    assert before <= whole.append_ts <= time.time_ns()
    (rest,) = log.read(S, 2)
    assert (rest.offset, list(rest.keys), list(rest.values)) == (2, ["Y"], [b"2"])
    assert rest.append_ts == whole.append_ts


def test_one_append_may_feed_many_streams_and_one_stream_twice(log: Log) -> None:
    log.append([entry([b"old"])])
    offsets = log.append(
        [entry([b"f"], RAW, ""), entry([b"a", b"b"]), entry([b"g"], "market.crypto.gaps"), entry([b"c"])]
    )
    assert offsets == {RAW: 0, S: 1, "market.crypto.gaps": 0}
    assert [value for _, _, value in read_all(log)] == [b"old", b"a", b"b", b"c"]
    assert read_all(log, RAW) == [(0, "", b"f")]


def test_appending_nothing_gives_the_end_and_makes_no_stream(log: Log) -> None:
    assert log.append([]) == {}
    assert log.append([entry([])]) == {S: 0}
    assert log.streams() == []
    log.append([entry([b"a"])])
    assert log.append([entry([]), entry([b"f"], RAW)]) == {S: 1, RAW: 0}


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (Entry("no/slash", ["k"], [b"v"]), ValueError),
        (Entry("", ["k"], [b"v"]), ValueError),
        (Entry("..", ["k"], [b"v"]), ValueError),
        (Entry(S + ".damaged-1", ["k"], [b"v"]), ValueError),
        (Entry(S, ["k", "l"], [b"v"]), ValueError),
        (Entry(S, ["k"], ["text"]), TypeError),  # type: ignore[list-item]
        (Entry(S, [None], [b"v"]), TypeError),  # type: ignore[list-item]
    ],
)
def test_what_could_not_be_read_back_is_refused_whole(log: Log, bad: Entry, error: type[Exception]) -> None:
    with pytest.raises(error):
        log.append([entry([b"good"]), bad])
    assert log.bounds(S) == (0, 0)


def test_read_gives_about_max_bytes_but_always_something(log: Log) -> None:
    for i in range(10):
        log.append([entry([bytes([i]) * 1000])])
    assert len(log.read(S, 0, 1)) == 1
    assert 2 <= len(log.read(S, 0, 4000)) <= 4
    assert [value[0] for _, _, value in read_all(log, max_bytes=2500)] == list(range(10))


def test_reading_past_the_end_is_an_error_and_at_the_end_is_not(log: Log) -> None:
    log.append([entry([b"a"])])
    assert log.read(S, 1) == []
    with pytest.raises(LogError, match="ends at offset 1, but 2"):
        log.read(S, 2)


def test_large_records_and_large_appends_come_back_whole(log: Log) -> None:
    large = [bytes([i]) * (700_000 + i) for i in range(5)]
    log.append([entry([b"small", *large, b"small"])])
    assert [value for _, _, value in read_all(log)] == [b"small", *large, b"small"]
    assert log.read(S, 3)[0].values[0] == large[2]
    assert log.check(S) == 7


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(
        st.lists(st.tuples(st.sampled_from(["", "A", "B"]), st.binary(max_size=40)), max_size=6), max_size=8
    ),
    max_bytes=st.sampled_from([1, 100, 1 << 20]),
    data=st.data(),
)
def test_however_records_are_batched_every_offset_reads_the_same(
    log: Log, batches: list[list[tuple[str, bytes]]], max_bytes: int, data: st.DataObject
) -> None:
    stream = f"h{time.monotonic_ns()}"
    records = [record for batch in batches for record in batch]
    for batch in batches:
        log.append([Entry(stream, [key for key, _ in batch], [value for _, value in batch])])
    assert log.bounds(stream) == (0, len(records))
    start = data.draw(st.integers(0, len(records)))
    found = read_all(log, stream, start, max_bytes)
    assert found == [(i, *record) for i, record in enumerate(records)][start:]
    assert log.check(stream) == len(records)


def test_concurrent_appends_get_distinct_offsets_and_keep_their_own_order(log: Log) -> None:
    seen: dict[int, list[int]] = {}

    def write(who: int) -> None:
        seen[who] = [log.append([entry([b"%d:%d" % (who, i), b"-"])])[S] for i in range(30)]

    threads = [threading.Thread(target=write, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values = {offset: value for offset, _, value in read_all(log)}
    assert len(values) == 360
    for who, offsets in seen.items():
        assert offsets == sorted(offsets)
        assert [values[offset] for offset in offsets] == [b"%d:%d" % (who, i) for i in range(30)]
    assert log.check(S) == 360


def test_wait_returns_at_once_for_what_is_there_and_false_after_the_timeout(log: Log) -> None:
    log.append([entry([b"a", b"b"])])
    assert log.wait({S: 1}, 0)
    assert log.wait({"other": 0, S: 0}, 60)
    assert not log.wait({S: 2, "other": 0}, 0.02)


@pytest.mark.parametrize("exists", [True, False])
def test_wait_wakes_for_an_append(log: Log, exists: bool) -> None:
    if exists:
        log.append([entry([b"a"])])
    end = log.bounds(S)[1]
    timer = threading.Timer(0.05, log.append, [[entry([b"b"])]])
    timer.start()
    assert log.wait({S: end, RAW: 0}, 60)
    timer.join()
    assert log.read(S, end)[0].values == [b"b"]


def test_many_threads_may_wait_at_once(log: Log) -> None:
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda: answers.append(log.wait({S: 0}, 60))) for _ in range(5)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    log.append([entry([b"a"])])
    for thread in threads:
        thread.join(PATIENCE_S)
    assert answers == [True] * 5


def test_close_ends_a_wait_and_what_comes_after_is_an_error(log: Log) -> None:
    log.append([entry([b"a"])])
    timer = threading.Timer(0.05, log.close)
    timer.start()
    assert not log.wait({S: 1, "other": 0}, 60)
    timer.join()
    log.close()
    for call in (
        lambda: log.append([entry([b"b"])]),
        lambda: log.read(S, 0),
        lambda: log.wait({S: 0}, 1),
        lambda: log.commit("c", {S: Position(1)}),
        log.streams,
        log.consumers,
    ):
        with pytest.raises(LogError, match="was closed"):
            call()


def test_positions_are_kept_by_consumer_and_stream(log: Log) -> None:
    assert log.committed("loader") == {}
    log.commit("loader", {S: Position(3, b"state"), RAW: Position(1)})
    log.commit("archiver", {S: Position(9)})
    log.commit("loader", {S: Position(4, b"\0later")})
    assert log.committed("loader") == {S: Position(4, b"\0later"), RAW: Position(1)}
    assert log.consumers() == {"archiver": {S: Position(9)}, "loader": log.committed("loader")}


def test_streams_are_listed_by_name_with_their_figures(log: Log) -> None:
    log.append([entry([b"a" * 100]), entry([b"b"], RAW), entry([b"c"], "z")])
    log.append([entry([b"a" * 100])])
    infos = log.streams()
    assert [(info.stream, info.start, info.end) for info in infos] == [(S, 0, 2), (RAW, 0, 1), ("z", 0, 1)]
    assert infos[0].size >= 200 > infos[1].size > 0
    assert infos[0].last_ts == log.read(S, 1)[0].append_ts


def test_retention_by_age_keeps_what_is_younger(log: Log) -> None:
    for i in range(6):
        log.append([entry([b"%d" % i, b"x"])])
    border = log.read(S, 6)[0].append_ts
    assert log.retain(S, 1.0, None, border + 10**9) == 6
    assert log.bounds(S) == (6, 12)
    assert [offset for offset, _, _ in read_all(log, offset=6)] == list(range(6, 12))
    with pytest.raises(OffsetOutOfRange, match="begins at offset 6") as caught:
        log.read(S, 5)
    assert caught.value.start == 6
    assert log.check(S) == 12


def test_retention_by_size_leaves_no_more_than_that(log: Log) -> None:
    for _ in range(20):
        log.append([entry([b"x" * 1000])])
    start = log.retain(S, None, 5500, time.time_ns())
    assert log.streams()[0].size <= 5500
    assert start == log.bounds(S)[0] == 15
    assert log.retain(S, None, None, time.time_ns()) == 15


def test_retention_stops_before_what_a_consumer_has_yet_to_read(log: Log) -> None:
    for _ in range(10):
        log.append([entry([b"a", b"b"])])
    log.commit("slow", {S: Position(7)})
    log.commit("fast", {S: Position(20)})
    log.commit("elsewhere", {RAW: Position(0)})
    assert log.retain(S, 0, 0, time.time_ns() + 1) == 6
    assert log.read(S, 7)[0].values == [b"b"]
    log.commit("slow", {S: Position(20)})
    assert log.retain(S, 0, 0, time.time_ns() + 1) == 20


def test_a_stream_that_was_emptied_goes_on_where_it_was(log: Log) -> None:
    log.append([entry([b"a", b"b"])])
    last_ts = log.streams()[0].last_ts
    assert log.retain(S, 0, None, time.time_ns() + 1) == 2
    assert log.bounds(S) == (2, 2)
    assert log.read(S, 2) == []
    assert log.check(S) == 2
    assert [(info.size, info.last_ts) for info in log.streams()] == [(0, last_ts)]
    assert not log.wait({S: 2}, 0.01)
    assert log.retain(S, 0, 0, time.time_ns() + 1) == 2
    assert log.append([entry([b"c"])]) == {S: 2}
    assert log.append([entry([b"d"])]) == {S: 3}
    assert read_all(log, offset=2) == [(2, "BTC-USDT", b"c"), (3, "BTC-USDT", b"d")]
    assert log.check(S) == 4


async def until_heard(ear: Ear) -> None:
    """Wait in an event loop for a ring."""
    loop, rang = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(ear.fileno(), rang.set)
    try:
        await asyncio.wait_for(rang.wait(), 60)
    finally:
        loop.remove_reader(ear.fileno())


def test_an_ear_hears_of_what_read_now_then_has(log: Log) -> None:
    async def follow() -> list[tuple[int, str, bytes]]:
        log.append([entry([b"a"])])
        log.read(S, 0)  # from now on nobody has to be waited for
        ear = log.listen(S)
        assert ear is not None
        found, at = [], 1
        for value in (b"b", b"c"):
            await asyncio.to_thread(log.append, [entry([value])])
            await until_heard(ear)
            ear.hear()
            batches = log.read_now(S, at, 1 << 20)
            assert batches is not None
            found += flat(batches)
            at = batches[-1].end
        assert not select.select([ear], [], [], 0)[0]
        assert log.read_now(S, at, 1 << 20) == []
        ear.close()
        ear.close()
        log.append([entry([b"d"])])  # nobody hears it, and nothing is wrong with that
        return found

    assert asyncio.run(follow()) == [(1, "BTC-USDT", b"b"), (2, "BTC-USDT", b"c")]


def test_read_now_refuses_as_read_does(log: Log) -> None:
    log.append([entry([b"a"])])
    log.append([entry([b"b"])])
    log.retain(S, None, 0, time.time_ns())
    assert log.read(S, 2) == []
    with pytest.raises(OffsetOutOfRange):
        log.read_now(S, 0, 100)
    with pytest.raises(LogError):
        log.read_now(S, 3, 100)
