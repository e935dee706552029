"""The truth on disk: exact, in order, whole after any end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sim_client import config_for, running
from tests.patience import PATIENCE_S

from k2.commands.sim import sim as command
from k2.sim.truth import SIZE, Made, Tape, decimal_text, scaled, tape_file, truth, truth_dir


@given(st.integers(0, 1 << 63), st.integers(0, 30))
def test_decimal_text_is_exact(number: int, scale: int) -> None:
    assert scaled(decimal_text(number, scale)) == (number, scale)


@pytest.mark.parametrize("text", ["", ".", "1.", "-1", "1e5", "0x1", " 1", "1,0"])
def test_only_plain_decimals_are_scaled(text: str) -> None:
    with pytest.raises(ValueError, match="plain decimal"):
        scaled(text)


def _made(trade_id: int, exchange_ts: int = 0) -> Made:
    return Made(trade_id, exchange_ts, 6183763000000, 2000000, 8, 8, 1)


@given(st.lists(st.integers(1, 300), unique=True, min_size=1), st.lists(st.integers(0, 320), max_size=20))
def test_records_stand_in_order_and_are_found(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int], asked: list[int]
) -> None:
    tape = Tape(tmp_path_factory.mktemp("tape") / "X.0.trades")
    for trade_id in ids:
        assert tape.record(_made(trade_id, trade_id * 10))
        assert not tape.record(_made(trade_id, trade_id * 10))
    ascending = sorted(ids)
    assert [made.trade_id for made in tape.rows(0, 1000)] == ascending
    for wanted in asked:
        assert tape.index_of(wanted) == sum(trade_id < wanted for trade_id in ids)
        assert tape.index_after(wanted * 10) == sum(trade_id <= wanted for trade_id in ids)
    tape.close()


def test_a_torn_record_is_cut_off(tmp_path: Path) -> None:
    file = tape_file(truth_dir(tmp_path), "kraken", "BTC-USD", 0)
    tape = Tape(file)
    for trade_id in (7, 8):
        tape.record(_made(trade_id))
    tape.close()
    os.truncate(file, 2 * SIZE - 5)
    assert [trade.trade_id for trade in truth(tmp_path)] == [7]
    tape = Tape(file)
    tape.record(_made(8))
    tape.close()
    assert [(trade.trade_id, trade.price, trade.side) for trade in truth(tmp_path)] == [
        (7, "61837.63000000", "buy"),
        (8, "61837.63000000", "buy"),
    ]


def test_a_full_disk_keeps_whole_records_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tape = Tape(tmp_path / "X.0.trades")
    tape.record(_made(1))
    real = os.write

    def short(fd: int, data: bytes) -> int:
        if len(data) > 10:
            return real(fd, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("k2.sim.truth.os.write", short)
    with pytest.raises(OSError, match="No space"):
        tape.record(_made(2))
    monkeypatch.undo()
    tape.record(_made(2))
    assert [made.trade_id for made in tape.rows(0, 9)] == [1, 2]
    tape.close()


def test_a_restart_goes_on_with_the_ids_and_serves_the_past(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            first = await session.emit("binance", 30)
        async with running(tmp_path, paused=True) as session:
            second = await session.emit("binance", 5)
            assert second[0] == first[-1] + 1
            _, body, _ = await session.get(f"/binance/api/v3/historicalTrades?symbol=BTCUSDT&fromId={first[0]}")
            assert [row["id"] for row in json.loads(body)] == first + second
            times = [trade.exchange_ts for trade in session.true("binance")]
            assert times == sorted(times)

    asyncio.run(run())


def test_a_restart_goes_on_in_the_newest_epoch(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            await session.emit("kraken", 2)
            await session.fault("epoch", "kraken", symbol="BTC-USD")
            await session.until(lambda: session.sim.markets["kraken"].instruments[0].epoch)
            assert await session.emit("kraken", 2) == [1, 2]
        async with running(tmp_path, paused=True) as session:
            assert await session.emit("kraken", 1) == [3]

    asyncio.run(run())


def _start(data: Path, *arguments: str) -> tuple[subprocess.Popen[str], dict[str, int]]:
    config = config_for(data)
    environment = os.environ | {
        "K2_DATA": str(data), "K2_INSTRUMENTS": config.instruments, "K2_METRICS_PORT": "0",
        "K2_SIM_WS_PORT": "0", "K2_SIM_REST_PORT": "0",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "k2", "sim", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        raise AssertionError(process.communicate()[1])
    return process, json.loads(line)


def test_the_command_stops_at_once_and_in_order(tmp_path: Path) -> None:
    process, ports = _start(tmp_path, "--rate", "500")
    try:
        word = json.loads((tmp_path / "run" / "sim.json").read_text())
        assert {key: word[key] for key in ports} == ports
        with urlopen(f"http://127.0.0.1:{ports['rest_port']}/control/status", timeout=PATIENCE_S) as answer:
            assert json.load(answer)["rate"] == 500
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
        assert "stopped after" in errors
    finally:
        process.kill()
        process.wait()


def test_kill_9_loses_nothing_that_was_told(tmp_path: Path) -> None:
    process, ports = _start(tmp_path, "--rate", "20000")
    try:
        url = f"http://127.0.0.1:{ports['rest_port']}"
        told: list[int] = []
        end = time.monotonic() + 1
        while time.monotonic() < end:
            body = b'{"exchange":"coinbase","symbol":"DOGE-USD","count":3}'
            with urlopen(Request(f"{url}/control/emit", body), timeout=PATIENCE_S) as answer:
                told += json.load(answer)["ids"]
    finally:
        process.kill()
        process.wait()
    known = {trade.trade_id for trade in truth(tmp_path) if (trade.exchange, trade.symbol) == ("coinbase", "DOGE-USD")}
    assert set(told) <= known
    assert len(known) == max(known) - min(known) + 1


def test_exactly_so_many_and_then_the_end(tmp_path: Path) -> None:
    process, _ = _start(tmp_path, "--rate", "5000", "--count", "777", "--exit-when-drained")
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    assert sum(1 for _ in truth(tmp_path)) == 777


def test_the_truth_is_printed(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, paused=True) as session:
            await session.emit("kraken", 2)

    asyncio.run(run())
    config = config_for(tmp_path)
    (first, second) = truth(tmp_path)
    as_csv = CliRunner().invoke(command, ["--truth", "csv"], obj=config).stdout.splitlines()
    assert as_csv[0].startswith("exchange,symbol,epoch,trade_id,price")
    assert as_csv[1] == ",".join(map(str, first))
    as_json = CliRunner().invoke(command, ["--truth", "json"], obj=config).stdout.splitlines()
    assert json.loads(as_json[1]) == second._asdict()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--fault", "dropp:binance"], "dropp"),
        (["--burst", "0.5"], "0.5"),
        (["--rate", "-3"], "-3"),
        (["--cert", __file__], "--key"),
        (["--cert", __file__, "--key", __file__], "cannot be used"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], named: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(command, arguments, obj=config_for(tmp_path))
    assert done.exit_code == 2
    assert named in done.stderr


def test_status_without_a_simulator_says_how_to_start_one(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, ["--status"], obj=config_for(tmp_path))
    assert done.exit_code == 1
    assert "k2 sim" in done.stderr
