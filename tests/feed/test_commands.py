"""`k2 feed` and `k2 replay` as people run them."""

import json
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner
from feed_kit import trade_frame

from k2.cli import main
from k2.core.codec import encode_frames
from k2.core.sequence import Sequences
from k2.core.session import Decoder
from k2.exchanges import venue
from k2.feed.lock import only_one
from k2.log import Entry
from k2.log.lmdb import LmdbLog

TRADES = "market.crypto.trades.binance"


def recorded(data: Path, forged: bool = False) -> None:
    frames = [trade_frame(number) for number in (1, 2, 5)]
    out = Decoder(venue("binance"), Sequences("binance")).run(frames)
    values = [value.replace(b"61837", b"61838") for value in out.values] if forged else out.values
    log = LmdbLog(data / "log", 1 << 30)
    log.append([Entry(TRADES + ".raw", [""] * 3, encode_frames(frames)), Entry(TRADES, out.keys, values)])
    log.close()


def test_replay_of_what_was_recorded_is_identical(tmp_path: Path) -> None:
    recorded(tmp_path)
    result = CliRunner().invoke(main, ["--data", str(tmp_path), "replay", "binance"])
    assert result.exit_code == 0
    assert result.output == "binance: 3 frames gave 3 trades: identical\n"


def test_replay_shows_the_first_differences_and_fails(tmp_path: Path) -> None:
    recorded(tmp_path, forged=True)
    result = CliRunner().invoke(main, ["--data", str(tmp_path), "replay", "binance", "--json"])
    assert result.exit_code == 1
    told = json.loads(result.output)
    assert (told["identical"], told["different"]) == (False, 3)
    assert "61838" in told["differences"][0]["recorded"]
    assert "61837" in told["differences"][0]["replayed"]


def test_a_second_handler_on_the_same_data_names_the_first(tmp_path: Path) -> None:
    with only_one(tmp_path / "run", "feed-handler-kraken"):
        done = subprocess.run(
            [sys.executable, "-m", "k2", "--data", str(tmp_path), "feed", "kraken"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert "another feed-handler-kraken" in done.stderr
    assert "pid" in done.stderr


def test_a_plain_address_beyond_this_machine_is_refused(tmp_path: Path) -> None:
    (tmp_path / "k2.toml").write_text('[exchanges.kraken]\nws_url = "ws://stream.example.com/v2"\n')
    done = subprocess.run(
        [sys.executable, "-m", "k2", "--config", str(tmp_path / "k2.toml"), "--data", str(tmp_path), "feed", "kraken"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "write wss://" in done.stderr
