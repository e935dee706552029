"""The loop of a burn-in: start the stage, look at it every so often, write that down, and prove the data in the end."""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from k2.config import Config
from k2.ops.burnin import BurninError
from k2.ops.burnin.folder import Folder, PlatformRow, ProcessRow, Session, Sheet
from k2.ops.burnin.proof import prove
from k2.ops.burnin.sampler import OUTSIDE, Look, Sampler
from k2.ops.burnin.stage import Stage
from k2.ops.report import commit

FREE_AT_LEAST = 1 << 30  # bytes: below, the run is ended rather than the disk filled


class Progress(NamedTuple):
    """How far a run is, in seconds, and the newest look."""

    done: float
    wanted: float
    look: Look

    @property
    def left(self) -> float:
        return max(0.0, self.wanted - self.done)

    def line(self) -> str:
        """One line for a person."""
        vitals, row = self.look.vitals, self.look.platform
        memory = sum(process.rss for process in self.look.processes if process.service not in OUTSIDE)
        rate = sum(venue.rate for venue in vitals.venues)
        return (
            f"{clock(self.done)} of {clock(self.wanted)}, {clock(self.left)} left: {rate:,.0f} trades/s, "
            f"{memory / 1e6:,.0f} MB, {vitals.cpu:.0f} % of a core, lag {row.lag_loader}, {row.gaps_open} gaps open"
        )


class Watch:
    """Runs one session of a burn-in. `stop` is set from outside to interrupt it."""

    def __init__(
        self,
        base: Config,
        folder: Folder,
        stop: threading.Event,
        say: Callable[[str], None],
        show: Callable[[Progress], None],
    ) -> None:
        self.folder = folder
        self.stop = stop
        self.say = say
        self.show = show
        self.stage = Stage(base, folder.path, folder.state.parameters, self.going)
        self.session = Session(time.time(), commit())

    def run(self) -> bool:
        """True when the run came to its end and was proven, False when it was interrupted. Raises BurninError."""
        state = self.folder.state
        done = self.folder.seconds_run()
        state.sessions.append(self.session)
        self.folder.save()
        try:
            if done < state.parameters.seconds or state.proof is None:
                self.stage.start()
                self._look_on(done)
                if self.going():
                    state.proof = prove(self.stage, self.say)
            self._ended("interrupted" if self.stop.is_set() else "finished")
        except BurninError as error:
            self._ended(str(error))
            raise
        finally:
            self.stage.stop()
        return state.proof is not None

    def going(self) -> bool:
        return not self.stop.is_set()

    def _ended(self, how: str) -> None:
        self.session.ended, self.session.how = time.time(), how
        self.folder.save()

    def _look_on(self, done: float) -> None:
        parameters = self.folder.state.parameters
        processes, platform = Sheet(self.folder.samples, ProcessRow), Sheet(self.folder.platform, PlatformRow)
        sampler = Sampler(self.stage, len(self.folder.state.sessions) - 1)
        began, due = 0.0, time.monotonic()
        try:
            while self.going():
                look = sampler.look()
                processes.add(look.processes)
                platform.add([look.platform])
                began = began or look.platform.at
                so_far = done + look.platform.at - began
                self.show(Progress(so_far, parameters.seconds, look))
                if so_far >= parameters.seconds:
                    return
                self._mend()
                if look.platform.disk_free < FREE_AT_LEAST:
                    raise BurninError(
                        f"less than 1 GB is free on the disk of {self.folder.path}: make room, then resume"
                    )
                due = max(due + parameters.every_s, time.monotonic() + parameters.every_s / 10)
                self.stop.wait(min(due - time.monotonic(), max(0.1, parameters.seconds - so_far)))
        finally:
            processes.close()
            platform.close()

    def _mend(self) -> None:
        if not self.stage.ended():
            return
        words = self.stage.mend()
        self.session.ends += words
        self.folder.save()
        for one in words:
            self.say(f"{one}; started again")


def clock(seconds: float) -> str:
    """1:02:03 for an hour, two minutes and three seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
