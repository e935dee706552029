"""A history as it goes: logged slice by slice, offloaded, maintained, and killed on the way."""

import random
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlparse

import msgspec
from msgspec import Meta

from k2.config import Config
from k2.log import Log
from k2.ops.bench.history_market import History
from k2.ops.bench.history_runs import Moment, Run, run
from k2.ops.bench.lab import Lab, LabError
from k2.ops.bench.samples import middle
from k2.wire import open_log, read_heads

MB = 1 << 20
RETRY_AFTER = 5.0
REFUSED_AT_MOST = 200  # runs of maintenance: the lease of one that was killed has to run out first
AT_ONCE = {"orphan_hours": 1e-4, "snapshot_days": 1e-6}  # the last maintenance removes all that may go


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    trades: Annotated[int, Meta(description="Trades of the whole history.")] = 20_000_000
    hours: Annotated[float, Meta(description="Its length; a sixteenth lies before the first midnight.")] = 48.0
    slice_minutes: Annotated[float, Meta(description="Length of what is logged between two offloads.")] = 15.0
    kills: Annotated[int, Meta(description="Offloads that are killed, at random slices and moments.")] = 20
    maintain_hours: Annotated[float, Meta(description="Hours of history between two maintenances.")] = 24.0
    maintenance_kills: Annotated[int, Meta(description="Kills of each maintenance.")] = 3
    seed: Annotated[int, Meta(description="Seed of all that is random.")] = 1


class Story:
    """The run of a history: its log, its children, and what was noted of them."""

    def __init__(self, lab: Lab, parameters: Parameters) -> None:
        self.lab, self.parameters = lab, parameters
        self.config = lab.config("history")
        self.log: Log = open_log(self.config)
        self.rng = random.Random(f"kills:{parameters.seed}")
        self.history = History(
            parameters.trades, parameters.hours, parameters.slice_minutes, parameters.seed, self.config.instruments_file
        )
        slices = self.history.slices
        self.planned = Counter(self.rng.choices(range(slices), k=parameters.kills))
        self.offloads: list[Run] = []
        self.maintenances: list[Run] = []
        self.upkeep: list[dict[str, Any]] = []
        self.generated_s = 0.0
        self.records = 0

    def whole(self) -> list[Run]:
        """Offloads that nobody killed."""
        return [one for one in self.offloads if not one.step]

    def play(self) -> None:
        """All slices, offloaded and maintained. Raises LabError."""
        slices, every = self.history.slices, self.parameters.maintain_hours
        width = self.parameters.hours / slices
        for slice_ in range(slices):
            began = time.monotonic()
            self.records += self.history.append(self.log, slice_)
            self.generated_s += time.monotonic() - began
            self._offload(slice_)
            if slice_ + 1 == slices:
                self._maintain(self._with(**AT_ONCE))
            elif (slice_ + 1) * width // every > slice_ * width // every:
                self._maintain(self.config)
            if (slice_ + 1) % max(1, slices // 12) == 0:
                killed = len(self.offloads) - len(self.whole())
                self.lab.say(
                    f"{slice_ + 1} of {slices} slices, {self.history.truth.trades:,} trades, {killed} killed,"
                    f" offload {middle([one.seconds for one in self.whole()])} s (p50)"
                )

    def _with(self, **tier: float) -> Config:
        return msgspec.structs.replace(self.config, tier=msgspec.structs.replace(self.config.tier, **tier))

    def _offload(self, slice_: int) -> None:
        """Offload until nobody kills it. A child quicker than its killer leaves that kill to the next slice."""
        kills = self.planned[slice_]
        while True:
            found = run(self.lab, self.config, ["archive", "--json"], self._moment() if kills else None)
            self.offloads.append(found)
            if not found.step:
                break
            kills -= 1
        if not found.ok:
            raise LabError(f"`k2 archive` of slice {slice_} ended with {found.code}: {found.words}")
        self.planned[slice_ + 1] += kills

    def _moment(self) -> Moment:
        if self.rng.random() < 0.5:
            return Moment(self.rng.uniform(0.0, 0.4), at_work=True)
        usual = [one.seconds for one in self.whole()[-9:]]
        return Moment(self.rng.uniform(0.05, min(3.0, middle(usual) if usual else 2.0)), at_work=False)

    def _maintain(self, config: Config) -> None:
        """Maintain until it is done, whoever is killed on the way."""
        before, began = self.shape(), time.monotonic()
        kills, first = self.parameters.maintenance_kills, len(self.maintenances)
        refused = 0
        while True:
            moment = Moment(self.rng.uniform(0.05, 3.0 * 1.6**first), self.rng.random() < 0.5) if kills > 0 else None
            found = run(self.lab, config, ["archive", "maintain", "--json"], moment)
            self.maintenances.append(found)
            first, kills = first + 1, kills - bool(found.step)
            if found.ok:
                break
            if not found.step:
                refused += 1
                if found.code != 1 or refused > REFUSED_AT_MOST:
                    raise LabError(f"`k2 archive maintain` ended with {found.code}: {found.words}")
                time.sleep(RETRY_AFTER)
        after = self.shape()
        self.upkeep.append(
            {
                "trades": after["rows"],
                "files_before": before["files"],
                "files_after": after["files"],
                "bytes_per_trade_before": before["bytes_per_trade"],
                "bytes_per_trade_after": after["bytes_per_trade"],
                "folder_mb_before": before["folder_mb"],
                "folder_mb_after": after["folder_mb"],
                "last_run_s": round(found.seconds, 3),
                "all_runs_s": round(time.monotonic() - began, 3),
                "refused": refused,
            }
        )
        self.lab.say(f"maintained: {before['files']} files, then {after['files']}; {found.seconds:.1f} s")

    def shape(self) -> dict[str, Any]:
        """The current files of cold.trades, and all bytes under the cold folder."""
        total = sum(file.stat().st_size for file in self.config.cold_dir.rglob("*") if file.is_file())
        head = read_heads(self.config)["trades"]
        metadata = msgspec.json.decode(Path(unquote(urlparse(head.metadata_location).path)).read_bytes())
        summary = next(s["summary"] for s in metadata["snapshots"] if s["snapshot-id"] == head.snapshot_id)
        size = int(summary["total-files-size"])
        return {
            "rows": head.rows,
            "files": int(summary["total-data-files"]),
            "bytes_per_trade": round(size / max(1, head.rows), 3),
            "folder_mb": round(total / MB, 1),
            "snapshots": len(metadata["snapshots"]),
        }
