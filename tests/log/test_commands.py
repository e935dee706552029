"""`k2 streams` and `k2 tail` on a small log."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.patience import PATIENCE_S

from k2.cli import main
from k2.core.codec import (
    GAPS_STREAM,
    encode_frame,
    encode_gap,
    encode_trade,
    frames_stream,
    trades_stream,
)
from k2.core.types import Frame, Gap, Trade
from k2.log import Entry, Position
from k2.log.lmdb import LmdbLog

START = 1_700_000_000_000_000_000


def trade(i: int, symbol: str) -> bytes:
    native = symbol.replace("-", "")
    ts = START + i * 1_000_000
    return encode_trade(Trade("binance", symbol, native, 100 + i, "67123.10", "0.5", "sell", ts, ts + 5, "live"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twenty trades in turn of two symbols with their frames, one gap, and a consumer five trades behind."""
    log = LmdbLog(tmp_path / "log", 1 << 30)
    for i in range(0, 20, 2):
        frames = [encode_frame(Frame(START + j, "ws", "c1", "", b'{"t":%d,"x":"\xff"}' % j)) for j in (i, i + 1)]
        trades = [trade(i, "BTC-USDT"), trade(i + 1, "ETH-USDT")]
        log.append(
            [
                Entry(frames_stream("binance"), ["", ""], frames),
                Entry(trades_stream("binance"), ["BTC-USDT", "ETH-USDT"], trades),
            ]
        )
    gap = Gap("binance", "BTC-USDT", 7, 9, "unavailable", "the exchange keeps no trades so old", START, START)
    log.append([Entry(GAPS_STREAM, ["BTC-USDT"], [encode_gap(gap)])])
    log.commit("loader", {trades_stream("binance"): Position(15)})
    log.close()
    return tmp_path


def k2(data: Path, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["--data", str(data), *arguments])
    assert result.exit_code == code, result.output
    return result


def rows(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_streams_as_json(data: Path) -> None:
    found = {row["stream"]: row for row in rows(k2(data, "streams", "--once", "--json"))}
    assert list(found) == [GAPS_STREAM, trades_stream("binance"), frames_stream("binance")]
    row = found[trades_stream("binance")]
    assert (row["start"], row["end"], row["records"], row["rate"], row["lag"]) == (0, 20, 20, None, {"loader": 5})
    assert found[frames_stream("binance")]["lag"] == {}


def test_streams_in_a_pipe_has_a_header_and_a_rate(data: Path) -> None:
    lines = k2(data, "streams").stdout.splitlines()
    assert lines[0].split("\t") == ["stream", "start", "end", "records", "bytes", "rate", "age", "lag"]
    trades = next(line.split("\t") for line in lines if line.startswith(trades_stream("binance") + "\t"))
    assert (trades[5], trades[7]) == ("0.0", "loader 5")


def test_streams_of_an_empty_log_makes_nothing(tmp_path: Path) -> None:
    assert "no streams yet" in k2(tmp_path, "streams").stderr
    assert list(tmp_path.iterdir()) == []


def test_check_and_repair(data: Path) -> None:
    assert [row["ok"] for row in rows(k2(data, "streams", "--check", "--json"))] == [True, True, True]
    assert "is whole: nothing was changed" in k2(data, "streams", "--repair", "binance").stdout
    file = data / "log" / trades_stream("binance") / "data.mdb"
    content = file.read_bytes()
    file.write_bytes(content.replace(trade(8, "BTC-USDT"), trade(8, "BTC-USDT").replace(b"sell", b"buy!")))
    bad = [row for row in rows(k2(data, "streams", "--check", "--json", code=1)) if not row["ok"]]
    assert [(row["stream"], row["valid_end"]) for row in bad] == [(trades_stream("binance"), 8)]
    assert "k2 streams --repair" in str(bad[0]["damage"])
    said = k2(data, "streams", "--repair", "binance").stdout
    assert "offsets 10 to 20 are whole and kept" in said
    assert ".damaged-1" in said
    k2(data, "streams", "--check")


def test_damage_found_at_opening_is_reported_by_check(data: Path) -> None:
    file = data / "log" / trades_stream("binance") / "data.mdb"
    file.write_bytes(file.read_bytes()[:9000])
    (row,) = rows(k2(data, "streams", "--check", "--json", code=1))
    assert (row["stream"], row["ok"]) == (trades_stream("binance"), False)


def test_repair_of_an_unknown_stream_is_an_error(data: Path) -> None:
    assert "there is no stream nowhere" in k2(data, "streams", "--repair", "nowhere", code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "offsets"),
    [
        ([], list(range(10, 20))),
        (["-n", "3"], [17, 18, 19]),
        (["-n", "0"], []),
        (["-n", "99"], list(range(20))),
        (["-n", "3", "--key", "ETH-USDT"], [15, 17, 19]),
        (["--from", "18"], [18, 19]),
        (["--from", "0", "-n", "2", "--key", "ETH-USDT"], [1, 3]),
        (["--from", "20"], []),
    ],
)
def test_tail_chooses_records(data: Path, arguments: list[str], offsets: list[int]) -> None:
    assert [row["offset"] for row in rows(k2(data, "tail", "binance", "--json", *arguments))] == offsets


def test_tail_shows_trades_gaps_and_frames_readably(data: Path) -> None:
    (line,) = k2(data, "tail", trades_stream("binance"), "-n", "1").stdout.splitlines()
    assert line.split() == ["19", "2023-11-14T22:13:20.019000Z", "ETH-USDT", "sell", "67123.10", "0.5", "#119", "live"]
    (line,) = k2(data, "tail", "gaps").stdout.splitlines()
    assert "unavailable 7 to 9  the exchange keeps no trades so old" in line
    (line,) = k2(data, "tail", "binance.raw", "-n", "1").stdout.splitlines()
    assert line.split(None, 4)[2:] == ["ws", "c1", r'{"t":19,"x":"\xff"}']
    (row,) = rows(k2(data, "tail", "binance.raw", "-n", "1", "--json"))
    assert row["record"] == {
        "recv_ts": START + 19,
        "kind": "ws",
        "connection": "c1",
        "request": "",
        "payload": r'{"t":19,"x":"\xff"}',
    }


def test_tail_names_the_nearest_stream(data: Path) -> None:
    assert "did you mean binance?" in k2(data, "tail", "binanse", code=1).stderr
    assert "ends at offset 20: --from 99" in k2(data, "tail", "binance", "--from", "99", code=1).stderr
    assert "no records yet" in k2(data, "tail", "kraken").stderr


def test_tail_follows_until_interrupted(data: Path) -> None:
    command = [sys.executable, "-m", "k2", "--data", str(data), "tail", "binance", "-n", "1", "-f", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["offset"] == 19
    log = LmdbLog(data / "log", 1 << 30)
    log.append([Entry(trades_stream("binance"), ["BTC-USDT"], [trade(20, "BTC-USDT")])])
    log.close()
    assert json.loads(process.stdout.readline())["record"]["trade_id"] == 120
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, said) == (0, "")
