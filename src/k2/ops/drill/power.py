"""The power goes: processes end, and of what they wrote only that is left which they had synced."""

import time
from contextlib import suppress

from k2.log import LogError
from k2.ops.drill import Drill, DrillError
from k2.ops.drill.flow import Spans, stored
from k2.ops.drill.proof import Place, of_log
from k2.ops.drill.rehearsal import Setup
from k2.ops.drill.stage import Stage
from k2.ops.drill.subscriber import Subscriber
from k2.ops.drill.volume import Volume
from k2.store import StoreError
from k2.wire import open_log, open_store

VOLUME_MB = 4096
LINGER_S = 0.3  # what readers are given after the disk is gone counts as well
GONE_WITHIN_S = 15.0


class Power:
    """The whole data folder on an ext4 whose journal and cache are lost. Readers remember what they were given: a
    subscriber of the live stream, and whoever asks the store."""

    def __init__(self) -> None:
        self.volume: Volume | None = None

    def prepare(self, setup: Setup) -> None:
        self.volume = setup.cleanup.enter_context(Volume(setup.config.data_dir, setup.folder / "disk.ext4", VOLUME_MB))
        setup.change(tier={"every_s": 3.0})  # so that an offload is as likely as not to be in its midst

    def act(self, stage: Stage) -> None:
        volume, platform = self.volume, stage.platform
        assert volume is not None
        web = platform.config.web
        with Subscriber(f"http://{web.host}:{web.port}") as subscriber:
            stage.wait("the subscriber to be given trades", lambda: subscriber.ids, 30.0)
            time.sleep(stage.rng.uniform(2.0, 5.0))
            with stage.failing():
                shown = self._shown(stage)
                volume.lose_power()
                until = time.monotonic() + LINGER_S
                while time.monotonic() < until:
                    with suppress(StoreError):
                        shown = self._shown(stage)
                platform.kill_all()
                stage.wait("every process to be gone", lambda: not platform.living_below(volume.at), GONE_WITHIN_S)
                stage.signals.let_go()
                volume.unmount()
                volume.mount()
                self._compare(stage, subscriber, shown)
                stage.signals.follow(open_log(platform.config))
                platform.up()

    @staticmethod
    def _shown(stage: Stage) -> Spans:
        store = open_store(stage.platform.config)
        try:
            return stored(store)
        finally:
            store.close()

    @staticmethod
    def _compare(stage: Stage, subscriber: Subscriber, shown: Spans) -> None:
        """Whatever anybody was ever given is in the log: nobody saw what the loss took back."""
        held = _in_log(stage)
        given = sum(ids.count for ids in subscriber.ids.values())
        taken_back = [
            f"{symbol[0]} {symbol[1]} {first}..{last}"
            for symbol, ids in subscriber.ids.items()
            for pair in ids.to_list()
            for first, last in held.ids[symbol].holes(*pair)
        ] + [
            f"{symbol[0]} {symbol[1]} {first}..{last} (store)"
            for symbol, span in shown.items()
            for first, last in held.ids[symbol].holes(span.first, span.last)
        ]
        kept = sum(ids.count for ids in held.ids.values())
        seen = sum(span.distinct for span in shown.values())
        stage.note(f"the log kept {kept:,} trades; a subscriber had been given {given:,}, the store had shown {seen:,}")
        if held.twice:
            stage.fault(f"the log has {held.twice} trades twice after the loss")
        if taken_back:
            stage.fault(f"readers had seen what the log lost: {', '.join(taken_back[:5])}")


def _in_log(stage: Stage) -> Place:
    try:
        log = open_log(stage.platform.config)
        try:
            return of_log(log)
        finally:
            log.close()
    except LogError as error:
        raise DrillError(f"the log cannot be read after the loss: {error}") from None


_power = Power()

DRILLS = (
    Drill(
        name="power-loss",
        summary="the power goes: every process ends, what was not synced is gone (ext4, its journal not flushed)",
        expectation="the log holds every trade that anybody was ever shown (log before publish), the store and the cold"
        " tier come up whole or are filled again, what the exchanges traded meanwhile is healed",
        prepare=_power.prepare,
        act=_power.act,
        seen_by=("down:*", "silent:*"),
        needs=("root", "linux", "namespaces", "ext4"),
        cold=True,
    ),
)
