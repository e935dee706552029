"""`k2 up`, `k2 demo`, `k2 status`: the whole platform."""

import asyncio
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.live import Live

from k2.config import Config, ConfigError, TierConfig
from k2.feed.lock import only_one
from k2.log import LogError
from k2.metrics import read_status
from k2.ops import journal, platform
from k2.ops.measures import Measures
from k2.ops.panel import Panel
from k2.ops.screen import Screen
from k2.ops.supervise import Service, Supervisor
from k2.ops.vitals import Observer, as_json
from k2.terminal import console, note

LOOK_EVERY = 2.0
LEAVE_WITHIN = 6.0
DEMO_OFFLOAD_S = 60.0
SIM_PORTS = ("K2_SIM_WS_PORT", "K2_SIM_REST_PORT")


@click.command()
@click.pass_obj
def up(config: Config) -> None:
    """Capture from the real exchanges, until Ctrl-C.

    \b
    Examples:
      k2 up                      all exchanges into ./k2-data
      k2 --data /srv/k2 up       into another folder
      k2 demo                    the same platform without any exchange
    """
    with _alone(config):
        services = platform.live(config)
        sys.exit(asyncio.run(_run(config, services, {}, "K2 live")))


@click.command()
@click.option("--rate", type=float, help="Trades a second over all instruments (default: sim.rate, 50).")
@click.option("--captures", type=click.Path(exists=True, path_type=Path), help="Play these recorded frames instead.")
@click.option("--speed", default="max", show_default=True, help="With --captures: times the recorded speed, or max.")
@click.option("--until-drained", is_flag=True, help="End when all captured frames are stored, with a summary.")
@click.option("--timeout", default=600.0, show_default=True, help="With --until-drained: seconds to allow.")
@click.option("--duration", type=float, help="Stop by itself after so many seconds.")
@click.option("--fresh", is_flag=True, help="Forget the demo's earlier data first.")
@click.option("--fault", "faults", multiple=True, metavar="SPEC", help="A fault to rehearse, as in: k2 sim --help.")
@click.option("--json", "as_json_", is_flag=True, help="Print the summary as one JSON object.")
@click.pass_obj
def demo(
    config: Config, rate: float | None, captures: Path | None, speed: str, until_drained: bool, timeout: float,
    duration: float | None, fresh: bool, faults: tuple[str, ...], as_json_: bool,
) -> None:  # fmt: skip
    """The whole platform on the built-in simulator: three exchanges, 34 instruments, no network.

    \b
    Examples:
      k2 demo                                    until Ctrl-C, data in ./k2-demo
      k2 demo --rate 500                         ten times the traffic
      k2 demo --fault drop:binance:p=0.01        with one frame in a hundred lost, and healed
      k2 demo --captures DIR --until-drained --json
    """
    if until_drained and not captures:
        raise click.UsageError("--until-drained needs --captures: the generator never ends")
    if config.data == "k2-data":
        config = msgspec.structs.replace(config, data="k2-demo")
    with _alone(config, (config.sim.ws_port, config.sim.rest_port), fresh):
        (config.data_dir / "demo").touch()
        sys.exit(_demo(config, rate, captures, speed, until_drained, timeout, duration, faults, as_json_))


def _demo(
    config: Config, rate: float | None, captures: Path | None, speed: str, until_drained: bool, timeout: float,
    duration: float | None, faults: tuple[str, ...], as_json_: bool,
) -> int:  # fmt: skip
    if config.tier.every_s == TierConfig().every_s:  # a demo's cold tier is to be seen soon
        config = msgspec.structs.replace(config, tier=msgspec.structs.replace(config.tier, every_s=DEMO_OFFLOAD_S))
    environment = {"K2_TIER_EVERY_S": str(config.tier.every_s), **platform.demo_environment(config)}
    arguments = [argument for spec in faults for argument in ("--fault", spec)]
    if captures:
        arguments += ["--captures", str(captures.absolute()), "--speed", speed]
        target = config.run_dir / "instruments.toml"
        platform.capture_instruments(captures, target)
        environment["K2_INSTRUMENTS"] = str(target)
        config = msgspec.structs.replace(config, instruments=str(target))
    elif rate is not None:
        arguments += ["--rate", str(rate)]
    services = platform.demo(config, arguments)
    title = f"K2 demo: simulated exchanges, data in {config.data_dir}"
    return asyncio.run(_run(config, services, environment, title, until_drained, timeout, duration, as_json_))


@contextmanager
def _alone(config: Config, ports: tuple[int, ...] = (), fresh: bool = False) -> Iterator[None]:
    """This data folder and these ports are ours while inside. Says whose they are otherwise, and ends the command."""
    if fresh and not _forgettable(config):
        raise click.UsageError(
            f"{config.data_dir} is not a demo's folder: --fresh leaves it alone; name another with --data"
        )
    with ExitStack() as stack:
        try:
            stack.enter_context(only_one(config.run_dir, "supervisor"))
            _refuse_second(config)
            _refuse_taken(config, ports)
            if fresh:
                _forget(config)
            journal.to_stderr = False
            journal.setup(config, "supervisor")
            platform.protect(config)
        except (ConfigError, LogError) as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            raise click.ClickException(f"{config.data_dir} cannot be used: {error}; name another with --data") from None
        yield


def _forgettable(config: Config) -> bool:
    """Whether the folder is a demo's, or holds nothing yet."""
    folder = config.data_dir
    return (folder / "demo").exists() or not folder.exists() or set(folder.iterdir()) <= {config.run_dir}


def _forget(config: Config) -> None:
    """Remove what an earlier demo left, all but the lock that we hold."""
    for path in [*config.data_dir.iterdir(), *config.run_dir.iterdir()]:
        if path.is_dir() and path != config.run_dir:
            shutil.rmtree(path)
        elif path.is_file() and path.name not in ("supervisor.lock", "demo"):
            path.unlink()


@click.command()
@click.option("--json", "as_json_", is_flag=True, help="One JSON object.")
@click.option("--watch", is_flag=True, help="Look again every two seconds, until Ctrl-C.")
@click.pass_obj
def status(config: Config, as_json_: bool, watch: bool) -> None:
    """What the running platform says of itself. Exit code 1 if nothing runs on this data folder.

    \b
    Examples:
      k2 status
      k2 --data k2-demo status --json
    """
    observer = Observer(config.run_dir)
    vitals = observer.look()
    if not vitals.processes:
        note(f"nothing runs on {config.data_dir}: start it with `k2 up` or `k2 demo`, or name the folder with --data")
        sys.exit(1)
    time.sleep(1.0)
    vitals = observer.look()
    if as_json_:
        click.echo(msgspec.json.format(msgspec.json.encode(as_json(vitals))))
        return
    title = f"K2 on {config.data}"
    if not watch:
        console().print(Panel(vitals, {}, title))
        return
    with Live(Panel(vitals, {}, title), console=console(), auto_refresh=False) as live:
        while True:
            time.sleep(LOOK_EVERY)
            live.update(Panel(observer.look(), {}, title), refresh=True)


async def _run(
    config: Config, services: list[Service], environment: Mapping[str, str], title: str,
    until_drained: bool = False, timeout: float = 0.0, duration: float | None = None, as_json_: bool = False,
) -> int:  # fmt: skip
    """Run until a signal, `duration` or the drain; stop everything; returns the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    screen = Screen(config, title)
    supervisor = Supervisor(services, config.run_dir, {"K2_DATA": str(config.data_dir), **environment}, screen.say)
    measures = Measures(config, supervisor)
    supervisor.start()
    screen.say(f"{title}: starting {', '.join(service.name for service in services)}")
    shown = [asyncio.create_task(screen.show(supervisor)), asyncio.create_task(measures.keep())]
    summary: dict[str, Any] | None = None
    code = 0
    try:
        if until_drained:
            summary, code = await _drain(config, supervisor, timeout, stop)
        else:
            await _until(stop, duration)
    finally:
        for one in shown:
            one.cancel()
        await asyncio.gather(*shown, return_exceptions=True)
        screen.say("stopping: sockets first, then what is still on its way is written down")
        stopping = time.monotonic()
        killed = await supervisor.stop()
        late = f"; had to kill {', '.join(killed)}" if killed else ""
        screen.say(f"stopped in {time.monotonic() - stopping:.1f} s{late}")
    if summary is not None:
        click.echo(msgspec.json.encode(summary) if as_json_ else msgspec.json.format(msgspec.json.encode(summary)))
    return 1 if killed else code


async def _until(stop: asyncio.Event, duration: float | None) -> None:
    try:
        await asyncio.wait_for(stop.wait(), duration)
    except TimeoutError:
        return


async def _drain(
    config: Config, supervisor: Supervisor, timeout: float, stop: asyncio.Event
) -> tuple[dict[str, Any], int]:
    from k2.ops.verify import verify

    stopped = asyncio.create_task(stop.wait())
    drained = asyncio.create_task(platform.drained(config, timeout))
    await asyncio.wait({stopped, drained}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not drained.done():
        drained.cancel()
        raise click.ClickException("stopped before all captured frames were stored")
    if drained.exception():
        raise click.ClickException(f"not all captured frames were stored within {timeout:.0f} s; see {config.run_dir}")
    result = await asyncio.to_thread(verify, config)
    result["results"]["restarts"] = {service.name: service.restarts for service in supervisor.services.values()}
    return result, 0 if all(check["ok"] for check in result["checks"]) else 1


def _refuse_second(config: Config) -> None:
    """Processes of a supervisor that has just died are given the time to leave; somebody's `store --read-only`, as the
    Python client starts it, is sent away: its client finds the platform then."""
    deadline = time.monotonic() + LEAVE_WITHIN
    while others := {s: word for s, word in read_status(config.run_dir).items() if s != "supervisor"}:
        if "reader" in others:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(int(others["reader"]["pid"]), signal.SIGTERM)
        if time.monotonic() > deadline:
            raise click.ClickException(
                f"{', '.join(others)} already run on {config.data_dir}: "
                "look with `k2 status`, or name another folder with --data"
            )
        time.sleep(0.1)


def _refuse_taken(config: Config, ports: tuple[int, ...]) -> None:
    wanted = {"K2_STORE_PORT": (config.store.host, config.store.port)}
    if config.web.port:
        wanted["K2_WEB_PORT"] = (config.web.host, config.web.port)
    wanted |= {name: (config.sim.host, port) for name, port in zip(SIM_PORTS, ports, strict=False)}
    for variable, address in wanted.items():
        with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                raise click.ClickException(
                    f"{address[0]}:{address[1]} cannot be listened on ({error.strerror}): "
                    f"end what uses it, or choose another port with {variable}"
                ) from None
