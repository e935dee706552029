"""The live table of `k2 up`, `k2 demo` and `k2 status`."""

import time
from collections.abc import Mapping

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from k2.ops.vitals import Vitals

STAGES = {
    "exchange_to_receive": "exchange → receive",
    "receive_to_decoded": "receive → decoded",
    "decoded_to_durable": "decoded → durable in log",
    "log_to_loader": "log → loader",
    "loader_to_visible": "loader → visible",
    "receive_to_visible": "receive → visible in silver",
    "candle_visible": "receive → visible in candle",
}

ROOMY = 96  # columns from which on the tables are set wide
VENUE_COLUMNS = (
    "VENUE", "LINE", "RATE/S", "TRADES", "LAG", "LAST",
    "OPEN", "HEALED", "DUPES", "FAULTS", "DIALS", "CLOCK",
)  # fmt: skip


class Panel:
    """One look, ready to be printed. `states`: service -> (state, restarts), as the supervisor knows them; or empty."""

    def __init__(self, vitals: Vitals, states: Mapping[str, tuple[str, int]], headline: str) -> None:
        self.vitals, self.states, self.headline = vitals, states, headline

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        space = 2 if options.max_width >= ROOMY else 1
        yield Text(self.headline, style="bold", no_wrap=True, overflow="ellipsis")
        yield _venues(self.vitals, space)
        yield _stages(self.vitals, space)
        yield _processes(self.vitals, self.states, space)


def _table(space: int, *columns: str) -> Table:
    table = Table(box=None, header_style="bold dim", padding=(0, space, 0, 0), pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < 2 else "right", no_wrap=True)
    return table


def _venues(vitals: Vitals, space: int) -> Table:
    table = _table(space, *VENUE_COLUMNS)
    for venue in vitals.venues:
        age = None if venue.last_trade is None else vitals.at - venue.last_trade
        table.add_row(
            venue.exchange,
            Text("up", "green") if venue.connected else Text("down", "bold red"),
            f"{venue.rate:,.0f}",
            f"{venue.trades:,}",
            Text(f"{venue.lag:,}", "red" if venue.lag > 1000 else ""),
            "-" if age is None else f"{max(age, 0.0):.1f} s",
            Text(str(venue.gaps_open), "yellow" if venue.gaps_open else ""),
            f"{venue.gaps_healed:,}",
            f"{venue.duplicates:,}",
            Text(f"{venue.faults:,}", "yellow" if venue.faults else ""),
            str(venue.reconnects),
            "-" if venue.clock_offset is None else f"{venue.clock_offset * 1e3:+.0f} ms",
        )
    return table


def _stages(vitals: Vitals, space: int) -> Table:
    table = _table(space, "STAGE", "", "P50", "P99")
    for stage, title in STAGES.items():
        if stage in vitals.stages:
            p50, p99 = vitals.stages[stage]
            table.add_row(title, "", f"{p50 * 1e3:.1f} ms", f"{p99 * 1e3:.1f} ms")
    return table


def _processes(vitals: Vitals, states: Mapping[str, tuple[str, int]], space: int) -> Table:
    table = _table(space, "PROCESS", "STATE", "PID", "UP", "RESTARTS", "CPU", "MEMORY")
    seen = {process.service: process for process in vitals.processes}
    for service in [*states, *(name for name in seen if name not in states)]:
        state, restarts = states.get(service, ("running", 0))
        process = seen.get(service)
        style = {"running": "green", "starting": "yellow", "waiting": "yellow"}.get(state, "bold red")
        if process is None:
            table.add_row(service, Text(state, style), "-", "-", str(restarts), "-", "-")
            continue
        table.add_row(
            service,
            Text(state if process.answers else "no answer", style if process.answers else "bold red"),
            str(process.pid),
            time.strftime("%H:%M:%S", time.gmtime(process.up)),
            str(restarts),
            f"{process.cpu:.0f} %",
            f"{process.memory / 1e6:.0f} MB",
        )
    table.add_row(Text("all", "bold"), "", "", "", "", f"{vitals.cpu:.0f} %", f"{vitals.memory / 1e6:.0f} MB")
    return table
