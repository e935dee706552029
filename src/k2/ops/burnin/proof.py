"""The check in the end: trading is paused, everything settles, then all data is held to the simulator's truth.

Three questions, each of a part that trusts none of the others: does the store show every trade that the simulator made
once (by trade id), does `k2 verify` prove the store from the log, does `k2 archive audit` prove the cold tier.
"""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from k2.config import EXCHANGES, Config
from k2.core.islands import Islands
from k2.ops.bench.lab import environment
from k2.ops.burnin import BurninError
from k2.ops.burnin.stage import Stage
from k2.ops.evidence import NOTHING, Counter, Scope, Stored, stored_trades
from k2.ops.platform import loaded
from k2.sim.truth import RECORD, SIZE, truth_dir
from k2.store import StoreError
from k2.wire import open_store, read_heads

SETTLE_WITHIN = 180.0
STILL_FOR = 3.0
SHOWN, SHOWN_CHARS = 5, 300  # findings of an audit that the report repeats

Say = Callable[[str], None]


def prove(stage: Stage, say: Say) -> dict[str, Any]:
    """What was found, as plain values. The stage runs, and runs on without trades. Raises BurninError."""
    began = time.monotonic()
    stage.control("pause", {})
    say("the market is paused; waiting until all is stored")
    try:
        asyncio.run(_settled(stage.config))
    except TimeoutError:
        raise BurninError(
            f"not all trades were stored within {SETTLE_WITHIN:.0f} s; see {stage.config.run_dir}"
        ) from None
    say("comparing the store with the simulator's truth, by trade id")
    found: dict[str, Any] = {"truth": against_truth(stage)}
    say("k2 verify: log against store, every id, every candle")
    found["verify"] = _verified(stage, say)
    if read_heads(stage.config):
        say("k2 archive audit: log against cold tier, record by record")
        found["audit"] = _audited(stage, say)
    found["seconds"] = round(time.monotonic() - began, 1)
    return found


async def _settled(config: Config) -> None:
    async with asyncio.timeout(SETTLE_WITHIN):
        await loaded(config, STILL_FOR)


def against_truth(stage: Stage) -> dict[str, int]:
    """Trades made, stored, lost (made but not stored), twice (stored more than once), invented (stored, never made)."""
    made = truth_ids(stage)
    stored: dict[Counter, Stored] = {}
    store = open_store(stage.config)
    try:
        for exchange in EXCHANGES:
            stored |= stored_trades(store, Scope((exchange,)), exchange, {})
    except StoreError as error:
        raise BurninError(f"the store could not say what it has: {error}") from None
    finally:
        store.close()
    lost = invented = twice = 0
    for counter in made.keys() | stored.keys():
        ids, have = made.get(counter, Islands()), stored.get(counter, NOTHING)
        lost += _lacks(ids, have.ids)
        invented += _lacks(have.ids, ids)
        twice += have.rows - have.ids.count
    return {
        "made": sum(ids.count for ids in made.values()),
        "stored": sum(have.ids.count for have in stored.values()),
        "lost": lost,
        "twice": twice,
        "invented": invented,
    }


def truth_ids(stage: Stage) -> dict[Counter, Islands]:
    """The ids of every trade that the simulator ever made, by exchange, symbol and epoch."""
    found: dict[Counter, Islands] = {}
    for file in sorted(truth_dir(stage.sim_config.data_dir).glob("*/*.trades")):
        symbol, epoch, _ = file.name.split(".")
        ids = Islands()
        with file.open("rb") as records:
            while block := records.read(SIZE * 65_536):
                for record in RECORD.iter_unpack(block[: len(block) // SIZE * SIZE]):
                    ids.add(record[0])
        if ids:
            found[file.parent.name, symbol, int(epoch)] = ids
    return found


def _lacks(wanted: Islands, have: Islands) -> int:
    """How many of the wanted ids are not there."""
    return sum(last - first + 1 for pair in wanted.to_list() for first, last in have.holes(*pair))


def _verified(stage: Stage, say: Say) -> dict[str, Any]:
    code, printed = _k2(stage.config, ["verify", "--json"], say)
    if code == 2:
        raise BurninError("`k2 verify` could not come to a verdict; its words are above")
    found = json.loads(printed)
    return {
        "exit_code": code,
        "trades": found["results"]["trades"],
        "candles": {name: one["checked"] for name, one in found["results"]["candles"].items()},
        "failed": [check["name"] for check in found["checks"] if not check["ok"]],
        "unavailable": sum(one["unavailable"] for one in found["results"]["symbols"]),
        "duplicates_in_log": sum(one["duplicates_in_log"] for one in found["results"]["symbols"]),
    }


def _audited(stage: Stage, say: Say) -> dict[str, Any]:
    code, printed = _k2(stage.config, ["archive", "audit", "--json"], say)
    try:
        failed = [json.dumps(one)[:SHOWN_CHARS] for one in json.loads(printed)["findings"][:SHOWN]]
    except (ValueError, KeyError):
        failed = ["it could not be answered: its words are above"]
    return {"exit_code": code, "failed": failed}


def _k2(config: Config, arguments: list[str], say: Say) -> tuple[int, bytes]:
    """One command on the platform's folder; it ends with us. Its exit code and standard output."""
    child = subprocess.Popen(
        [sys.executable, "-m", "k2.child", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(config),
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stderr is not None
    printed: list[bytes] = []
    reader = threading.Thread(target=lambda: printed.append(child.stdout.read()), daemon=True)  # type: ignore[union-attr]
    reader.start()
    with child:
        for line in child.stderr:
            say("  " + line.decode(errors="replace").rstrip())
        reader.join()
    return child.returncode, b"".join(printed)
