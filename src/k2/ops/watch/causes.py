"""A small true cause for every alert: what `k2 alerts prove` does to a platform of its own.

Drills break more, and count every trade afterwards; here it is only asked whether somebody is told. Some of it cannot
be undone within the time (trades that are given up stay lost), which is why it is no drill.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from k2.config import EXCHANGES
from k2.ops.drill import DrillError
from k2.ops.drill.rehearsal import Rehearsal
from k2.store import Store
from k2.wire import open_store

LOST_FRAMES = {"probability": 0.2}
COMMAND_WITHIN_S = 180.0
PROOFS = 4
FILL_MB_PER_S = 40
AWAY = "cold.away"


Act = Callable[[Rehearsal], AbstractContextManager[None]]


@dataclass(frozen=True)
class Cause:
    """While `act` is entered, these alerts must come to fire; once it is left, they must clear. `what`: in words.

    `root`: it has to be run as root, with the platform on a small disk of its own.
    """

    what: str
    alerts: tuple[str, ...]
    act: Act
    root: bool = False


def _order(*orders: tuple[str, dict[str, Any]], exchange: str = "all") -> Act:
    @contextmanager
    def act(platform: Rehearsal) -> Iterator[None]:
        for fault, fields in orders:
            platform.order(fault, exchange, **fields)
        try:
            yield
        finally:
            platform.clear()

    return act


@contextmanager
def nothing(_: Rehearsal) -> Iterator[None]:
    yield


def _frozen(service: str) -> Act:
    @contextmanager
    def act(platform: Rehearsal) -> Iterator[None]:
        platform.freeze(service)
        try:
            yield
        finally:
            platform.thaw(service)

    return act


class _Killer:
    """Kills a service again and again in the background, as soon as its process lives."""

    def __init__(self, platform: Rehearsal, service: str) -> None:
        self._file = platform.config.run_dir / f"{service}.json"
        self._platform, self._service = platform, service
        script = (
            "import json,os,signal,sys,time\n"
            "from pathlib import Path\n"
            "while True:\n"
            "    try: os.kill(json.loads(Path(sys.argv[1]).read_text())['pid'], signal.SIGKILL)\n"
            "    except (OSError, ValueError): pass\n"
            "    time.sleep(0.05)\n"
        )
        self._process = subprocess.Popen([sys.executable, "-c", script, str(self._file)])

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def _dying(platform: Rehearsal, service: str) -> Iterator[None]:
    killer = _Killer(platform, service)
    try:
        yield
    finally:
        killer.end()


def _dying_again(service: str) -> Act:
    return lambda platform: _dying(platform, service)


@contextmanager
def _restarting(platform: Rehearsal) -> Iterator[None]:
    for _ in range(3):
        platform.wait("web to run", lambda: "web" in platform.pids(), 60.0)
        with suppress(DrillError, ProcessLookupError):
            platform.kill("web")
        time.sleep(0.3)
    platform.wait("web to run", lambda: "web" in platform.pids(), 60.0)
    yield


@contextmanager
def _cold_away(platform: Rehearsal) -> Iterator[None]:
    """A file stands where the folder of the cold tier was."""
    cold = platform.config.cold_dir
    cold.rename(cold.with_name(AWAY))
    cold.write_text("")
    try:
        yield
    finally:
        cold.unlink()
        cold.with_name(AWAY).rename(cold)


@contextmanager
def _offload_frozen(platform: Rehearsal) -> Iterator[None]:
    """Whatever offload the archiver starts is stopped by SIGSTOP."""
    frozen: set[int] = set()
    archiver = psutil.Process(platform.pid("archiver"))

    def freeze() -> bool:
        for child in archiver.children():
            with suppress(psutil.Error):
                child.suspend()
                frozen.add(child.pid)
        return bool(frozen)

    platform.wait("an offload to begin", freeze, 90.0, every=0.01)
    try:
        yield
    finally:
        for pid in frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextmanager
def _cold_file_gone(platform: Rehearsal) -> Iterator[None]:
    """A data file of the cold tier is taken away; an audit is made before and after it is put back."""
    _k2(platform, "archive")
    file = max(_files(platform.config.cold_dir / "warehouse"), key=lambda one: one.stat().st_size)
    hidden = file.with_suffix(".hidden")
    exchange = next(name for name in EXCHANGES if name in str(file.relative_to(platform.config.cold_dir)))
    file.rename(hidden)
    try:
        _k2(platform, "archive", "audit", "--exchange", exchange)
        yield
    finally:
        hidden.rename(file)
        _prove_again(platform, "archive", "audit", "--exchange", exchange)


def _files(folder: Path) -> list[Path]:
    found = [file for file in folder.rglob("*.parquet") if "trades" in str(file)]
    if not found:
        raise DrillError(f"{folder} holds no trades yet")
    return found


@contextmanager
def _trades_gone(platform: Rehearsal) -> Iterator[None]:
    """Half of a symbol's trades are deleted from the store behind everybody's back; `k2 verify` is run before and after
    they are put back. Its own repetitions make this the slowest cause."""
    store = open_store(platform.config)
    # Of minutes that are over: the loader computes the candle of the present one anew while they are away.
    some = (
        "exchange = 'coinbase' AND symbol = 'DOGE-USD' AND trade_id % 2 = 0"
        " AND exchange_ts < toStartOfMinute(now()) - INTERVAL 1 MINUTE"
    )
    try:
        there = f"SELECT count() FROM k2.silver_base WHERE {some}"
        platform.wait("trades of minutes that are over", lambda: int(store.rows(there)[0][0]) > 10, 240.0, every=1.0)
        store.execute(f"CREATE TABLE k2.put_aside ENGINE = Memory AS SELECT * FROM k2.silver_base WHERE {some}")
        _delete(store, f"{some} AND trade_id IN (SELECT trade_id FROM k2.put_aside)")
        try:
            _k2(platform, "verify", "--exchange", "coinbase", "--symbol", "DOGE-USD")
            yield
        finally:
            store.execute("INSERT INTO k2.silver_base SELECT * FROM k2.put_aside")
            store.execute("DROP TABLE k2.put_aside")
            _prove_again(platform, "verify", "--exchange", "coinbase", "--symbol", "DOGE-USD")
    finally:
        store.close()


def _delete(store: Store, condition: str) -> None:
    store.execute(f"ALTER TABLE k2.silver_base DELETE WHERE {condition} SETTINGS mutations_sync = 1")


@contextmanager
def _filling(platform: Rehearsal) -> Iterator[None]:
    """Something else fills the disk of the data folder, steadily."""
    script = (
        "import sys,time\n"
        "with open(sys.argv[1], 'wb', 0) as sink:\n"
        "    while True:\n"
        f"        sink.write(bytes({FILL_MB_PER_S} << 18)); time.sleep(0.25)\n"
    )
    file = platform.config.data_dir.parent / "filler"
    process = subprocess.Popen([sys.executable, "-c", script, str(file)], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()
        file.unlink(missing_ok=True)


@contextmanager
def _all_dead(platform: Rehearsal) -> Iterator[None]:
    platform.kill_all()
    try:
        yield
    finally:
        platform.up()


def _prove_again(platform: Rehearsal, *arguments: str) -> None:
    """Until it finds nothing any more: what is on its way just then may be held against it. Raises DrillError."""
    for _ in range(PROOFS):
        code, said = _k2(platform, *arguments)
        if code == 0:
            return
    raise DrillError(f"`k2 {' '.join(arguments)}` still ends with {code} after all was put back: {said}")


def _k2(platform: Rehearsal, *arguments: str) -> tuple[int, str]:
    """Run a command on the platform's data folder; its exit code and the end of what it said. Raises DrillError."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "k2", *arguments], env=platform.environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=COMMAND_WITHIN_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DrillError(f"`k2 {' '.join(arguments)}` took longer than {COMMAND_WITHIN_S:.0f} s") from None
    return done.returncode, done.stdout.strip()[-400:]


CAUSES = (
    Cause("nothing at all", ("Watchdog",), nothing),
    Cause(
        "frames of Binance are lost, and its REST interface has no trades",
        ("GapUnhealable", "TradesLost"),
        _order(("drop", {"probability": 0.2, "count": 3}), ("rest-empty", {}), exchange="binance"),
    ),
    Cause("every socket stays open and nothing comes", ("FeedSilent",), _order(("silent", {}))),
    Cause(
        "Kraken sends heartbeats and no trades", ("FeedHandlerDown",),
        _order(("silent-channel", {}), exchange="kraken"),
    ),
    Cause(
        "Coinbase closes every connection", ("FeedReconnectLoop",),
        _order(("close-loop", {}), ("close", {}), exchange="coinbase"),
    ),
    Cause(
        "Kraken mixes garbage into its stream", ("FeedFaults",),
        _order(("junk", {"probability": 0.6}), exchange="kraken"),
    ),
    Cause(
        "a fifth of Coinbase's frames is lost while its REST interface answers 429", ("GapOpen", "BackfillRefused"),
        _order(("drop", LOST_FRAMES), ("rest-429", {"amount": 1}), exchange="coinbase"),
    ),
    Cause(
        "Coinbase's clock is five seconds behind", ("ClockSkew",),
        _order(("clock-skew", {"amount": -5}), exchange="coinbase"),
    ),
    Cause(
        "no frame of Kraken's BTC-USD comes through", ("SymbolSilent",),
        _order(("drop", {"probability": 1.0, "symbol": "BTC-USD"}), exchange="kraken"),
    ),
    Cause("the store is stopped by SIGSTOP", ("CandleDelay", "ConsumerLagHigh"), _frozen("store")),
    Cause("the store is killed whenever it comes back", ("StoreInsertFailure",), _dying_again("store")),
    Cause("the web process is killed three times", ("ServiceRestarting",), _restarting),
    Cause("the web process is killed whenever it comes back", ("ServiceDown",), _dying_again("web")),
    Cause("the web process is stopped by SIGSTOP", ("ScrapeDown",), _frozen("web")),
    Cause("the process that offloads is stopped by SIGSTOP", ("OffloadLag",), _offload_frozen),
    Cause("the folder of the cold tier cannot be opened", ("OffloadFailure",), _cold_away),
    Cause("a data file of the cold tier is missing", ("AuditFailed",), _cold_file_gone),
    Cause("trades were deleted from the store", ("VerifyFailed",), _trades_gone),
    Cause("something fills the disk of the data folder", ("DiskFilling",), _filling, root=True),
    Cause("every process is killed at once", ("PlatformDown",), _all_dead),
)  # fmt: skip
