"""`k2 sim`: the three exchanges on loopback."""

import asyncio
import csv
import json
import signal
import sys
import urllib.request
from pathlib import Path
from typing import Any

import click
import msgspec
import uvloop

from k2 import trace
from k2.config import Config, ConfigError
from k2.ops import journal
from k2.sim.capture import CaptureError
from k2.sim.faults import FAULTS, FaultError, parse_order
from k2.sim.simulator import Options, Simulator
from k2.sim.truth import TrueTrade, truth
from k2.terminal import note


def _speed(_: click.Context, __: click.Parameter, text: str) -> float:
    if text == "max":
        return 0.0
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if speed <= 0:
        raise click.BadParameter(f"{text!r} is neither a number above 0 nor max")
    return speed


@click.command("sim", context_settings={"max_content_width": 110})
@click.option("--rate", type=float, help="Trades a second over all instruments (default: the setting sim.rate).")
@click.option("--seed", type=int, help="Seed of the market and of the faults (default: sim.seed).")
@click.option(
    "--burst", type=float, default=1.5, show_default=True, help="Mean trades of one taker order; 1: no bursts."
)
@click.option("--count", type=int, help="Make exactly this many trades, then none.")
@click.option("--duration", type=float, metavar="S", help="Make trades for this many seconds.")
@click.option("--paused", is_flag=True, help="Make no trades until POST /control/resume.")
@click.option("--exit-when-drained", is_flag=True, help="End once --count, --duration or the captures are through.")
@click.option(
    "--captures", type=click.Path(exists=True, path_type=Path), help="Play recorded frames from here instead."
)
@click.option("--speed", default="1", callback=_speed, help="Of captures: a factor, or max (as fast as clients read).")
@click.option("--all-channels", is_flag=True, help="Of captures: play the frames of other channels as well.")
@click.option(
    "--fault", "faults", multiple=True, metavar="FAULT:EXCHANGE[:KEY=VALUE,..]", help="A fault from the start."
)
@click.option("--ws-port", type=int, help="0: any free port (default: sim.ws_port).")
@click.option("--rest-port", type=int, help="0: any free port (default: sim.rest_port).")
@click.option("--limits/--no-limits", default=True, show_default=True, help="The venues' REST rate limits.")
@click.option(
    "--max-age", type=float, default=86400.0, show_default=True, metavar="S", help="Age limit of a connection."
)
@click.option("--cert", type=click.Path(exists=True, path_type=Path), help="TLS certificate: then wss and https.")
@click.option("--key", type=click.Path(exists=True, path_type=Path), help="Its key.")
@click.option(
    "--status", "ask", is_flag=True, help="Ask the simulator that runs on this data folder, print its answer."
)
@click.option("--truth", "tell", type=click.Choice(["csv", "json"]), help="Print every trade that was ever made here.")
@click.option("--list-faults", is_flag=True, help="Print the faults and what they do.")
@click.option("--verbose", is_flag=True, help="Log everything to stderr.")
@click.pass_obj
def sim(config: Config, /, ask: bool, tell: str | None, list_faults: bool, verbose: bool, **given: Any) -> None:
    """The three exchanges on loopback: WebSocket on port 8900, REST and control on 8901.

    \b
    k2 sim                                         50 trades/s over all instruments
    k2 sim --rate 20000 --seed 7
    k2 sim --fault drop:binance:p=0.01 --fault close:all:p=0.0001
    k2 sim --captures DIR --speed max
    k2 sim --status
    k2 sim --truth csv > truth.csv
    curl -d '{"fault":"silent","exchange":"kraken","seconds":20}' localhost:8901/control/faults

    The chosen ports are printed on stdout as one line of JSON.
    """
    if list_faults:
        for name, meaning in FAULTS.items():
            click.echo(f"{name:16} {meaning}")
    elif ask:
        _print_status(config)
    elif tell:
        _print_truth(config, tell)
    else:
        _run(config, verbose, **given)


def _run(
    config: Config,
    verbose: bool,
    faults: tuple[str, ...],
    rate: float | None,
    seed: int | None,
    ws_port: int | None,
    rest_port: int | None,
    **options: Any,
) -> None:
    changed = {"rate": rate, "seed": seed, "ws_port": ws_port, "rest_port": rest_port}
    section = msgspec.structs.replace(config.sim, **{key: value for key, value in changed.items() if value is not None})
    config = msgspec.structs.replace(config, sim=section)
    journal.setup(config, "sim", verbose)
    try:
        uvloop.run(_serve(config, Options(orders=tuple(parse_order(text) for text in faults), **options)))
    except (FaultError, ConfigError, CaptureError, ValueError, OSError) as error:
        note(f"k2 sim: {error}")
        sys.exit(2)


async def _serve(config: Config, options: Options) -> None:
    simulator = Simulator(config, options)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, simulator.stop)
    await simulator.start()
    trace.start(config.metrics.trace)
    click.echo(json.dumps({"ws_port": simulator.ws_port, "rest_port": simulator.rest_port}))
    sys.stdout.flush()
    what = f"captures of {options.captures}" if options.captures else f"{config.sim.rate:g} trades/s"
    note(
        f"k2 sim: {what}; WebSocket on {config.sim.host}:{simulator.ws_port}, REST and control on "
        f"{config.sim.host}:{simulator.rest_port}; truth in {config.data_dir / 'sim'}; Ctrl-C stops"
    )
    await simulator.run()
    note(f"k2 sim: stopped after {simulator.made} trades")


def _print_status(config: Config) -> None:
    file = config.run_dir / "sim.json"
    try:
        port = json.loads(file.read_text())["rest_port"]
        with urllib.request.urlopen(f"http://{config.sim.host}:{port}/control/status", timeout=3) as answer:
            click.echo(json.dumps(json.load(answer), indent=2))
    except (OSError, KeyError, ValueError) as error:
        note(f"k2 sim: no simulator answers for {config.data_dir} ({error}); start one with: k2 sim")
        sys.exit(1)


def _print_truth(config: Config, form: str) -> None:
    if form == "csv":
        rows = csv.writer(sys.stdout)
        rows.writerow(TrueTrade._fields)
        rows.writerows(truth(config.data_dir))
        return
    encode = msgspec.json.Encoder().encode
    for trade in truth(config.data_dir):
        sys.stdout.buffer.write(encode(trade._asdict()) + b"\n")
