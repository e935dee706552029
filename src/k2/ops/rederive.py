"""Trades and candles anew from the archived frames, into a data folder of their own, and what came of it.

The frames go through the feed's decoder into a new log, which a store and a loader of that folder load as always; there
it is proven, and compared with the trades that the cold tier has. The old folder is only read.
"""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from k2.config import EXCHANGES, Config, settings, variable
from k2.exchanges import venue
from k2.feed.lock import only_one
from k2.log import Log
from k2.ops.contrast import COLUMNS, Contrast, contrast
from k2.ops.derivation import Derivation, Derived
from k2.ops.platform import LOADER, STORE
from k2.ops.ports import free_port
from k2.ops.report import Check, at_least, equal, report
from k2.ops.supervise import Service, Supervisor
from k2.ops.verify import Result, verify
from k2.wire import open_catalog, open_log, open_store, read_heads

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from k2.tier.past.scan import Span

NOTES = "rederive.json"  # in the new folder: what it is, and how it ended
UNFINISHED = "unfinished"

Say = Callable[[str], None]
T = TypeVar("T")


class CannotRederiveError(Exception):
    """There was nothing to rederive from or nowhere to put it; the text says why and what to do."""


class Step(NamedTuple):
    """Frames of an exchange that are decoded, and about how many there are."""

    exchange: str
    done: int
    total: int


class Wanted(NamedTuple):
    """Which frames: times are receive times in ns, `until` is exclusive; None: all."""

    exchanges: tuple[str, ...] = EXCHANGES
    since: int | None = None
    until: int | None = None


def rederive(
    config: Config,
    into: Path,
    wanted: Wanted | None = None,
    changes_expected: bool = False,
    say: Say = lambda _: None,
    on_progress: Callable[[Step], object] = lambda _: None,
) -> Result:
    """Rebuild `into` from the frames that `config`'s cold tier has. Returns the report of all checks.

    With `changes_expected`, trades that are new or have changed are told, but fail no check; one that is missing does.
    Raises CannotRederiveError, CannotVerifyError, TierError, LogError, StoreError, ConfigError.
    """
    wanted = wanted or Wanted()
    tables = _tables(config)
    with _new_folder(config, into) as target:
        log = open_log(target)
        try:
            derived = {name: _derive(log, tables, name, wanted, say, on_progress) for name in wanted.exchanges}
        finally:
            log.close()
        frames = sum(one.frames for one in derived.values())
        if not frames:
            raise CannotRederiveError(
                "the cold tier has no frames of these exchanges and times: there is nothing to do"
            )
        say("loading what the frames gave, to prove it")
        only = wanted.exchanges[0] if len(wanted.exchanges) == 1 else None

        def prove() -> tuple[Result, dict[str, Contrast]]:
            proof = verify(target, only, say=say)
            return proof, {name: _contrast(target, tables, name, wanted, one) for name, one in derived.items()}

        proof, contrasts = _with_store(target, prove, say)
        found = _report(wanted, derived, contrasts, proof, changes_expected)
        (into / NOTES).write_bytes(msgspec.json.format(msgspec.json.encode(found)))
        return found


def _tables(config: Config) -> "dict[str, Table]":
    if not {"trades", "frames", "gaps"} <= read_heads(config).keys():
        raise CannotRederiveError(
            f"the cold tier of {config.data_dir} lacks trades, frames or gaps: fill it with `k2 archive`, or name"
            " another folder with --data"
        )
    from k2.tier.catalog import tables_of

    return tables_of(open_catalog(config))


@contextmanager
def _new_folder(config: Config, into: Path) -> Iterator[Config]:
    """The configuration of the new folder. What an earlier run left unfinished there goes first."""
    into = into.absolute()
    notes = into / NOTES
    if into.is_relative_to(config.data_dir):
        raise CannotRederiveError(f"{into} lies in the old one, {config.data_dir}: name a folder beside it")
    if into.exists() and any(into.iterdir()) and not _unfinished(notes):
        raise CannotRederiveError(f"{into} is not empty: name a new folder, for nothing is ever rederived in place")
    target = msgspec.structs.replace(
        config,
        data=str(into),
        store=msgspec.structs.replace(config.store, port=free_port(config.store.host)),
        metrics=msgspec.structs.replace(config.metrics, port=0),
    )
    with only_one(target.run_dir, "rederive"):
        for folder in (target.log_dir, target.store_dir):
            shutil.rmtree(folder, ignore_errors=True)
        notes.write_bytes(msgspec.json.encode({"state": UNFINISHED, "from": str(config.data_dir)}))
        yield target


def _unfinished(notes: Path) -> bool:
    try:
        return bool(msgspec.json.decode(notes.read_bytes())["state"] == UNFINISHED)
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return False


def _derive(
    log: Log, tables: "dict[str, Table]", exchange: str, wanted: Wanted, say: Say, on_progress: Callable[[Step], object]
) -> Derived:
    from k2.tier.past import scan
    from k2.tier.past.known import Known, known, sequences

    span = _span(tables, exchange, wanted)
    if span is None:
        return Derived()
    say(f"{exchange}: reading what was known when its first frame arrived")
    ledger = scan.gaps(tables["gaps"], exchange)
    before = known(tables["trades"], scan.Span(exchange, until=span.since))
    after = Known({}, {}, {})
    if wanted.until is not None:
        after = known(tables["trades"], scan.Span(exchange, since=wanted.until))
    derivation = Derivation(log, venue(exchange), sequences(exchange, before, ledger))
    total = scan.count(tables["frames"], span)
    for frames in scan.frames(tables["frames"], span):
        derivation.feed(frames)
        on_progress(Step(exchange, derivation.done.frames, total))
    if derivation.done.frames:
        derivation.finish((before.ids, after.ids), ledger)
    return derivation.done


def _span(tables: "dict[str, Table]", exchange: str, wanted: Wanted) -> "Span | None":
    """Of the exchange's frames; None: there are none. Trades that were received before have no frame."""
    from k2.tier.past.scan import Span, first_received

    first = first_received(tables["frames"], exchange)
    return None if first is None else Span(exchange, max(first, wanted.since or first), wanted.until)


def _contrast(target: Config, tables: "dict[str, Table]", exchange: str, wanted: Wanted, derived: Derived) -> Contrast:
    """Against the archived trades that came with the frames that were decoded."""
    from k2.tier.past import scan

    span = _span(tables, exchange, wanted)
    if span is None or not derived.frames:
        return Contrast()
    span = span._replace(until=derived.last_recv_ts + 1)
    store = open_store(target)
    try:
        return contrast(store, exchange, scan.arrow_streams(tables["trades"], span, COLUMNS))
    finally:
        store.close()


def _with_store(config: Config, ask: Callable[[], T], say: Say) -> T:
    """Run a store and a loader of the folder while `ask` asks them, in a thread of its own."""
    services = [
        Service("store", ["store"], stop_order=STORE),
        Service("loader", ["load"], after=("store",), stop_order=LOADER),
    ]

    async def run() -> T:
        supervisor = Supervisor(services, config.run_dir, environment(config), say)
        supervisor.start()
        try:
            await supervisor.wait_ready()
            return await asyncio.to_thread(ask)
        except TimeoutError as error:
            raise CannotRederiveError(f"the store of {config.data_dir} did not start: {error}") from error
        finally:
            await supervisor.stop()

    return asyncio.run(run())


def environment(config: Config) -> dict[str, str]:
    """The environment variables under which another process has this very configuration."""
    found = {}
    for setting in settings():
        value: Any = config
        for name in setting.path:
            value = getattr(value, name)
        found[variable(setting.path)] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


def _report(
    wanted: Wanted, derived: dict[str, Derived], contrasts: dict[str, Contrast], proof: Result, changes_expected: bool
) -> Result:
    total = Contrast()
    for one in contrasts.values():
        total = total.plus(one)
    checks = [
        at_least("frames decoded", sum(one.frames for one in derived.values()), 1, ""),
        equal("archived trades that the frames no longer give", total.missing, 0),
    ]
    if not changes_expected:
        checks += [
            equal("trades that differ from the archived ones", total.changed, 0),
            equal("trades that are not in the archive", total.new, 0),
        ]
    results = {
        "state": "finished",
        "derived": {name: one._asdict() for name, one in derived.items()},
        "contrast": {name: _plain(one) for name, one in contrasts.items()},
        "verify": proof["results"],
    }
    checks += [Check(**check) for check in proof["checks"]]
    return report({**wanted._asdict(), "changes_expected": changes_expected}, results, checks)


def _plain(found: Contrast) -> dict[str, Any]:
    return {**found._asdict(), "shown": [one._asdict() for one in found.shown]}
