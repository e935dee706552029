"""What the person sees while the platform runs: the live table in a terminal, elsewhere a line every ten seconds."""

import asyncio
import time

from rich.live import Live
from rich.text import Text

from k2.config import Config
from k2.ops.panel import Panel
from k2.ops.supervise import Supervisor
from k2.ops.vitals import Observer, Vitals
from k2.store import StoreError
from k2.terminal import console, note
from k2.wire import open_store

LOOK_EVERY = 2.0  # s, in a terminal
SAY_EVERY = 10.0  # s between two lines, elsewhere
LOOKS_A_LINE = 2
UNREACHABLE_AFTER = 8.0
UNREACHABLE_AGAIN = 300.0


class Screen:
    """`say` may be called at any time, `show` runs until cancelled."""

    def __init__(self, config: Config, title: str) -> None:
        self.config, self.title = config, title
        self.began = time.monotonic()
        self._console = console(stderr=True)
        self._told: dict[str, float] = {}

    def say(self, message: str) -> None:
        """A line for the person, above the live table if there is one."""
        if self._console.is_terminal:
            self._console.print(Text(message))
        else:
            note(message)

    async def show(self, supervisor: Supervisor) -> None:
        """Keep the person informed."""
        observer = Observer(self.config.run_dir)
        told = [asyncio.create_task(self._first_candle(supervisor)), asyncio.create_task(self._page(supervisor))]
        try:
            if self._console.is_terminal:
                await self._table(observer, supervisor)
            else:
                await self._lines(observer)
        finally:
            for one in told:
                one.cancel()

    async def _table(self, observer: Observer, supervisor: Supervisor) -> None:
        headline = f"{self.title}    Ctrl-C stops"
        with Live(console=self._console, auto_refresh=False) as live:
            while True:
                vitals = await asyncio.to_thread(observer.look)
                self._say_unreachable(vitals)
                states = {s.name: (s.state, s.restarts) for s in supervisor.services.values()}
                live.update(Panel(vitals, states, headline), refresh=True)
                await asyncio.sleep(LOOK_EVERY)

    async def _lines(self, observer: Observer) -> None:
        looks = 0
        while True:
            vitals = await asyncio.to_thread(observer.look)
            self._say_unreachable(vitals)
            if looks and looks % LOOKS_A_LINE == 0:
                rates = "; ".join(
                    f"{v.exchange} {v.rate:,.0f}/s, {v.gaps_open} gaps open, lag {v.lag}" for v in vitals.venues
                )
                self.say(f"{rates}; {vitals.memory / 1e6:.0f} MB, {vitals.cpu:.0f} % of a core")
            looks += 1
            await asyncio.sleep(SAY_EVERY / LOOKS_A_LINE)

    def _say_unreachable(self, vitals: Vitals) -> None:
        """Name each venue that has not answered for a while, once every five minutes."""
        for venue in vitals.venues:
            told = self._told.setdefault(venue.exchange, vitals.at - UNREACHABLE_AGAIN + UNREACHABLE_AFTER)
            if venue.connected:
                self._told[venue.exchange] = vitals.at - UNREACHABLE_AGAIN + UNREACHABLE_AFTER
            elif vitals.at - told >= UNREACHABLE_AGAIN:
                self._told[venue.exchange] = vitals.at
                self.say(
                    f"{venue.exchange} cannot be reached; still trying "
                    f"(why: {self.config.run_dir}/feed-handler-{venue.exchange}.log). "
                    "`k2 demo` runs the whole platform without any exchange."
                )

    async def _page(self, supervisor: Supervisor) -> None:
        """Say where the page and the API are."""
        if "web" in supervisor.services:
            await supervisor.services["web"].ready.wait()
            self.say(f"look at it: {self.config.web_url}  (API: {self.config.web_url}/docs)")

    async def _first_candle(self, supervisor: Supervisor) -> None:
        """Say when the first candle can be read."""
        await supervisor.services["loader"].ready.wait()
        store = open_store(self.config)
        try:
            while True:
                try:
                    found = await asyncio.to_thread(store.rows, "SELECT symbol FROM k2.ohlcv_1m LIMIT 1")
                    if found:
                        break
                except StoreError:
                    pass
                await asyncio.sleep(0.1)
            took = time.monotonic() - self.began
            self.say(f"first candle after {took:.1f} s; ask for it: k2 --data {self.config.data} candles {found[0][0]}")
        finally:
            store.close()
