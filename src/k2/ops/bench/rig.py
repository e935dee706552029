"""The whole platform in a lab: simulator, feed handlers, log, loader and store, each in its process, as `k2 demo` runs
them, with what a bench needs to steer it and to hold it to the truth."""

import json
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.error import URLError
from urllib.request import Request, urlopen

import msgspec

from k2.config import EXCHANGES, Config, instruments
from k2.core.codec import trades_stream
from k2.log import Log
from k2.ops.bench.lab import Lab, LabError, Process
from k2.ops.platform import demo, demo_environment
from k2.sim.truth import RECORD, SIZE, truth_dir
from k2.store import Store, StoreError
from k2.wire import open_log, open_store

DRAIN_WITHIN = 120.0


class Ids(NamedTuple):
    """The trades of one symbol: how many, their least and greatest id, and their ids' sum."""

    number: int
    first: int
    last: int
    total: int


Symbol = tuple[str, str, int]  # exchange, symbol, epoch


class Rig:
    """A running platform. Use it as a context manager."""

    def __init__(
        self, lab: Lab, name: str, rate: float, trace: Path | None = None, venues: Collection[str] = EXCHANGES
    ) -> None:
        """`rate`: the simulator's trades a second at first, over all `venues`. `trace`: a folder for the times of every
        trade (`k2.trace`)."""
        self.lab = lab
        config = lab.config(name, sim={"rate": rate}, metrics={"trace": str(trace or "")})
        self.config = _to_simulator(config, venues)
        self.processes: dict[str, Process] = {}
        services = demo(self.config, [])
        for service in services:
            lab.ready(self.config, *(self.processes[earlier] for earlier in service.after))
            self.processes[service.name] = lab.k2(self.config, service.name, service.arguments)
        lab.ready(self.config, *self.processes.values())
        self.stop_order = [s.name for s in sorted(services, key=lambda service: service.stop_order)]
        self.log: Log = open_log(self.config)
        self.store: Store = open_store(self.config)
        lab.until(self._subscribed, "the feed handlers to subscribe")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.store.close()
        self.log.close()
        self.lab.stop(*(self.processes[name] for name in self.stop_order))

    @property
    def platform(self) -> dict[str, Process]:
        """The processes but for the simulator."""
        return {name: process for name, process in self.processes.items() if name != "sim"}

    def sim(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The simulator's answer to a control request. Raises LabError."""
        url = f"http://{self.config.sim.host}:{self.config.sim.rest_port}/control/{path}"
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(Request(url, data, {"Content-Type": "application/json"}), timeout=10) as answer:
                said: dict[str, Any] = json.load(answer)
                return said
        except (URLError, OSError, ValueError) as error:
            raise LabError(f"the simulator does not answer {url}: {error}") from None

    def rate(self, trades_per_s: float) -> None:
        """Set the simulator's rate."""
        self.sim("rate", {"rate": trades_per_s})

    def drain(self) -> None:
        """Stop the simulator's trading and wait until every trade that it made is visible in the store."""
        self.rate(0)
        time.sleep(0.1)
        made = int(self.sim("status")["made"])
        self.lab.until(lambda: self.visible() >= made, f"{made:,} trades to be visible", DRAIN_WITHIN, every=0.05)

    def visible(self) -> int:
        """How many rows `silver_trades` shows."""
        try:
            ((count,),) = self.store.rows("SELECT count() FROM k2.silver_trades")
        except StoreError as error:
            raise LabError(f"the store refused to count: {error}") from None
        return int(count)

    def appended(self) -> int:
        """How many trades the log holds."""
        return sum(self.log.bounds(trades_stream(name))[1] for name in EXCHANGES)

    def committed(self) -> int:
        """How many of the log's trades the loader has settled in the store for good."""
        positions = self.log.committed("loader")
        return sum(positions[s].offset for s in map(trades_stream, EXCHANGES) if s in positions)

    def stored(self) -> tuple[dict[Symbol, Ids], int]:
        """What `silver_trades` holds: the distinct trades by symbol, and how many rows are duplicates."""
        rows = self.store.rows(
            "SELECT exchange, symbol, epoch, count(), uniqExact(trade_id), min(trade_id), max(trade_id), sum(trade_id) "
            "FROM k2.silver_trades GROUP BY exchange, symbol, epoch"
        )
        found = {(str(r[0]), str(r[1]), int(r[2])): Ids(int(r[4]), int(r[5]), int(r[6]), int(r[7])) for r in rows}
        return found, sum(int(row[3]) - int(row[4]) for row in rows)

    def _subscribed(self) -> bool:
        exchanges = self.sim("status")["exchanges"].values()
        return all(exchange["subscribed"] >= len(exchange["symbols"]) for exchange in exchanges)


def truth(data: Path, since: int = 0, before: int = 1 << 63) -> dict[Symbol, Ids]:
    """What the simulator of a data folder made between two exchange times (ns)."""
    found: dict[Symbol, Ids] = {}
    for symbol, records in _tapes(data):
        ids = [record[0] for record in records if since <= record[1] < before]
        if ids:
            found[symbol] = Ids(len(ids), min(ids), max(ids), sum(ids))
    return found


def missing(made: dict[Symbol, Ids], stored: dict[Symbol, Ids]) -> int:
    """How many trades of the truth the store lacks; a symbol whose ids differ at equal number counts as one."""
    return sum(
        max(ids.number - (have.number if have else 0), int(ids != have))
        for symbol, ids in made.items()
        for have in (stored.get(symbol),)
    )


def _to_simulator(config: Config, venues: Collection[str]) -> Config:
    """The same configuration with these venues' feed handlers turned to its simulator, and no others."""
    urls = demo_environment(config)
    changed = {
        name: msgspec.structs.replace(
            config.exchange(name),
            ws_url=urls[f"K2_EXCHANGES_{name.upper()}_WS_URL"],
            rest_url=urls[f"K2_EXCHANGES_{name.upper()}_REST_URL"],
            enabled=name in venues,
        )
        for name in EXCHANGES
    }
    if set(venues) != set(EXCHANGES):
        listed = [
            f"{name} = {json.dumps(symbols)}"
            for name, symbols in instruments(config.instruments_file).items()
            if name in venues
        ]
        file = config.data_dir / "instruments.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(listed) + "\n")
        config = msgspec.structs.replace(config, instruments=str(file))
    return msgspec.structs.replace(config, exchanges=msgspec.structs.replace(config.exchanges, **changed))


def _tapes(data: Path) -> Iterator[tuple[Symbol, list[tuple[int, ...]]]]:
    for file in sorted(truth_dir(data).glob("*/*.trades")):
        symbol, epoch, _ = file.name.split(".")
        content = file.read_bytes()
        whole = content[: len(content) // SIZE * SIZE]
        yield (file.parent.name, symbol, int(epoch)), list(RECORD.iter_unpack(whole))
