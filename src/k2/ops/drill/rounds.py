"""One drill from beginning to end: start the platform, break it so many times, count every trade, judge."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from k2.core.islands import Islands
from k2.ops.bench.lab import Lab, LabError
from k2.ops.drill import Drill, DrillError
from k2.ops.drill.flow import ASK_WITHIN_S, Flow, Tapes, stored
from k2.ops.drill.needs import missing
from k2.ops.drill.proof import Count, compare, of_log, of_table
from k2.ops.drill.rehearsal import Rehearsal, setup
from k2.ops.drill.runbook import RESOLUTION, Ran
from k2.ops.drill.signals import Signals
from k2.ops.drill.stage import ALERT_WITHIN_S, Alerts, Stage
from k2.ops.drill.verdict import Outcome, Round, judge, not_run
from k2.ops.drill.watched import watching
from k2.ops.verify import CannotVerifyError, verify
from k2.store import StoreError
from k2.store.clickhouse import ClickHouseStore
from k2.wire import open_log, open_store

RECOVER_WITHIN_S = 90.0
DETECT_WITHIN_S = 10.0  # beyond recovery: what was not seen by then was not seen
SETTLE_WITHIN_S = 60.0
CLEAR_WITHIN_S = 60.0
ARCHIVE_WITHIN_S = 90.0

Say = Callable[[str], None]


class Options(msgspec.Struct, frozen=True):
    """How drills are run. `rate`: trades a second over all exchanges; `watch`: alerts, in the first round of
    each drill that is to fire some."""

    rounds: int = 3
    rate: float = 400.0
    runbooks: Path | None = None
    watch: bool = False


def rehearse(lab: Lab, drill: Drill, options: Options, say: Say) -> Outcome:
    """Run a drill. What hinders it is in the outcome; nothing of it is left running."""
    lacking = missing(drill.needs)
    if lacking:
        return not_run(drill, lacking)
    began = time.monotonic()
    say(f"expected: {drill.expectation}")
    rounds: list[Round] = []
    places: dict[str, Count] = {}
    checks: list[str] = []
    trouble = ""
    watch = options.watch and bool(drill.alerts)
    made = setup(lab, drill.name, options.rate)
    try:
        with made.cleanup:
            if drill.prepare is not None:
                drill.prepare(made)
            platform = Rehearsal(lab, made)
            with platform, _eyes(platform) as (flow, signals), _alerts(platform, watch) as alerts:
                for number in range(1, options.rounds + 1):
                    told = alerts if number == 1 else None
                    stage = Stage(drill, platform, flow, signals, say, number, told, options.runbooks)
                    rounds.append(one_round(stage))
                    say(f"round {number}: {rounds[-1].in_words()}")
                places, checks = count(platform, flow, drill.cold, say)
    except (DrillError, LabError, StoreError, CannotVerifyError) as error:
        trouble = str(error)
        say(f"broken off: {trouble}")
    return judge(drill, rounds, places, checks, trouble, time.monotonic() - began, watched=watch)


@contextmanager
def _eyes(platform: Rehearsal) -> Iterator[tuple[Flow, Signals]]:
    """Start the platform and look at it until the end."""
    platform.start()
    config, tapes = platform.config, Tapes(platform.exchange.data_dir)
    log = open_log(config)
    store = ClickHouseStore(config.store_url, config.store.user, config.store.password, ASK_WITHIN_S, "k2")
    flow = Flow(tapes.spans, lambda: stored(store))
    signals = Signals(config, platform.services, log)
    try:
        flow.start()
        signals.start()
        yield flow, signals
    finally:
        flow.end()
        signals.end()
        store.close()
        log.close()


@contextmanager
def _alerts(platform: Rehearsal, watch: bool) -> Iterator[Alerts | None]:
    if not watch:
        yield None
        return
    with watching(platform.config, platform.setup.folder / "watch") as alerts:
        yield alerts


def one_round(stage: Stage) -> Round:
    """Wait until all is well, break it, and measure. Raises DrillError."""
    if stage.steady() is None:
        wrong = {**stage.flow.timeline.wrong(), **stage.signals.timeline.wrong()}
        raise DrillError(f"the platform was not well before round {stage.number}: {wrong}")
    if stage.alerts is not None:
        stage.alerts.begin()
    stage.drill.act(stage)
    if not (stage.struck and stage.ended):
        raise DrillError(f"{stage.drill.name} broke nothing: its act never entered stage.failing()")
    stage.diagnose()
    since = stage.recovered(RECOVER_WITHIN_S)
    flowing, interrupted = stage.flow.newest.clean_since(), _interrupted(stage)
    stage.run_runbooks(RESOLUTION)
    fired, cleared = _await_alerts(stage)
    seen = _first_seen(stage)
    return Round(
        number=stage.number,
        cause_s=round(stage.ended - stage.struck, 3),
        detected_s=None if seen is None else round(max(0.0, seen.at - stage.struck), 3),
        detected_by="" if seen is None else f"{seen.name} ({seen.detail})",
        flowing_s=_since_end(stage, flowing),
        recovered_s=_since_end(stage, since),
        load=round(os.getloadavg()[0], 2),
        interrupted_s=interrupted,
        fired=fired,
        cleared=cleared,
        watched=stage.alerts is not None,
        commands=[_command(ran) for ran in stage.ran],
        notes=stage.notes,
        faults=stage.faults,
        signals=list(dict.fromkeys(signal.name for signal in stage.signals.since(stage.struck))),
    )


def _since_end(stage: Stage, at: float | None) -> float | None:
    return None if at is None else round(max(0.0, at - stage.ended), 3)


def _first_seen(stage: Stage) -> Any:
    deadline = time.monotonic() + DETECT_WITHIN_S
    while (seen := stage.signals.first(stage.struck, stage.drill.seen_by)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return seen


def _await_alerts(stage: Stage) -> tuple[dict[str, float], dict[str, float]]:
    """When the drill's alerts fired, after the strike, and cleared, after the end of the cause; others as they came."""
    if stage.alerts is None:
        return {}, {}
    wanted = set(stage.drill.alerts)
    _until(lambda: wanted <= stage.alerts.fired().keys(), ALERT_WITHIN_S)  # type: ignore[union-attr]
    _until(lambda: stage.alerts.fired().keys() <= stage.alerts.cleared().keys(), CLEAR_WITHIN_S)  # type: ignore[union-attr]
    return (
        {name: round(at - stage.struck, 3) for name, at in stage.alerts.fired().items()},
        {name: round(at - stage.ended, 3) for name, at in stage.alerts.cleared().items()},
    )


def _until(done: Callable[[], bool], within: float) -> None:
    deadline = time.monotonic() + within
    while not done() and time.monotonic() < deadline:
        time.sleep(0.1)


def _interrupted(stage: Stage) -> dict[str, float]:
    """How long each exchange's flow was not whole, from the strike on."""
    found: dict[str, float] = {}
    for spell in stage.flow.timeline.spells(stage.struck):
        until = time.monotonic() if spell.until is None else spell.until
        found[spell.what] = round(found.get(spell.what, 0.0) + until - max(spell.since, stage.struck), 3)
    return found


def _command(ran: Ran) -> dict[str, Any]:
    return {**ran._asdict(), "seconds": round(ran.seconds, 3), "said": "" if ran.ok else ran.said}


def count(platform: Rehearsal, flow: Flow, cold: bool, say: Say) -> tuple[dict[str, Count], list[str]]:
    """Stop the trading, wait until all has arrived, and count every trade in every place; then `k2 verify`. Returns the
    places, and the names of verify's checks that failed. Raises DrillError, LabError, StoreError, CannotVerifyError."""
    platform.clear()
    platform.control("pause", {})
    settled = flow.timeline.looks
    _until(lambda: flow.timeline.looks > settled + 10 and flow.timeline.clean_since() is not None, SETTLE_WITHIN_S)
    tapes = Tapes(platform.exchange.data_dir).spans()
    made = {symbol: Islands([(span.first, span.last)]) for symbol, span in tapes.items()}
    say(f"counting {sum(ids.count for ids in made.values()):,} trades by id")
    log, store = open_log(platform.config), open_store(platform.config)
    try:
        places = {"log": compare(made, of_log(log, platform.exchanges))}
        places["store"] = compare(made, of_table(store, "k2.silver_trades"))
        seen_twice = max(places["store"].twice, flow.twice)
        places["store"] = places["store"]._replace(twice=seen_twice)
        if cold:
            archive(platform)
            places["cold"] = compare(made, of_table(store, "cold.trades"))
    finally:
        store.close()
        log.close()
    found = verify(platform.config)
    return places, [f"{one['name']}: {one['value']}" for one in found["checks"] if not one["ok"]]


def archive(platform: Rehearsal) -> dict[str, Any]:
    """Offload what the cold tier lacks. Raises DrillError."""
    for _ in range(10):  # the archiver's own offload may be at it: then this one steps back
        done = subprocess.run(
            [*platform.setup.under, sys.executable, "-m", "k2", "archive", "--json"], env=platform.environ,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=ARCHIVE_WITHIN_S, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            said: dict[str, Any] = json.loads(done.stdout)
            return said
        time.sleep(1.0)
    raise DrillError(f"`k2 archive` failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
