"""`k2 feed` captures one exchange; `k2 replay` decodes what it kept again and compares."""

import asyncio
import gc
import signal
import sys

import click
import msgspec

from k2 import metrics, trace, wire
from k2.config import EXCHANGES, Config, ConfigError
from k2.exchanges import venue
from k2.feed.handler import Handler
from k2.feed.lock import only_one
from k2.feed.replay import Replayed
from k2.feed.replay import replay as replay_log
from k2.feed.socket import DialError
from k2.log import LogError
from k2.ops import journal
from k2.terminal import note


@click.command()
@click.argument("exchange", type=click.Choice(EXCHANGES))
@click.option("--verbose", "-v", is_flag=True, help="Write the whole journal to stderr, not only warnings.")
@click.pass_obj
def feed(config: Config, exchange: str, verbose: bool) -> None:
    """Capture one exchange: its trades, deduplicated, and its frames, verbatim, into the log.

    Runs until SIGTERM or Ctrl-C. What was missed, by a lost connection or while this was not running, is asked for over
    REST. The symbols stand in the instruments file, which may be changed at any time.

    \b
    k2 feed binance
    K2_EXCHANGES_KRAKEN_WS_URL=ws://127.0.0.1:8900/kraken/v2 k2 feed kraken
    """
    service = f"feed-handler-{exchange}"
    journal.setup(config, service, verbose=verbose)
    try:
        with only_one(config.run_dir, service):
            sys.exit(_run(config, exchange, service))
    except (ConfigError, DialError, LogError) as error:
        note(f"k2 feed {exchange}: {error}")
        sys.exit(1)


def _run(config: Config, exchange: str, service: str) -> int:
    import uvloop

    gc.freeze()
    gc.set_threshold(100_000, 20, 20)  # queued frames are many and never cyclic: looking through them often is waste
    metrics.serve(config, service)
    trace.start(config.metrics.trace)
    log = wire.open_log(config)
    try:
        handler = Handler(config, venue(exchange), log)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_signalled(handler))
    finally:
        log.close()
    return 0


async def _until_signalled(handler: Handler) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await handler.run(stop)


@click.command()
@click.argument("exchange", type=click.Choice(EXCHANGES))
@click.option("--from", "first", type=int, metavar="OFFSET", help="First frame, as an offset of the raw stream.")
@click.option("--to", "end", type=int, metavar="OFFSET", help="End of the frames (exclusive).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of words.")
@click.pass_obj
def replay(config: Config, exchange: str, first: int | None, end: int | None, as_json: bool) -> None:
    """Decode an exchange's raw frames again and compare with the recorded trades, byte for byte.

    Exit status 0: identical. 1: different, the first differences are shown. 2: it could not be compared.

    \b
    k2 replay kraken
    k2 replay binance --from 120000 --to 180000 --json
    """
    try:
        log = wire.open_log(config)
        try:
            result = replay_log(log, venue(exchange), first, end)
        finally:
            log.close()
    except (ConfigError, LogError) as error:
        note(f"k2 replay {exchange}: {error}")
        sys.exit(2)
    if not result.frames:
        note(f"k2 replay {exchange}: no frames are kept in {config.log_dir}; name another data folder with --data")
        sys.exit(2)
    if as_json:
        click.echo(msgspec.json.encode(_as_object(exchange, result)))
    else:
        _tell(exchange, result)
    sys.exit(1 if result.different else 0)


def _as_object(exchange: str, result: Replayed) -> dict[str, object]:
    return {
        "exchange": exchange,
        "identical": not result.different,
        **result._replace(differences=[])._asdict(),
        "differences": [
            {"offset": at, "recorded": _text(recorded), "replayed": _text(replayed)}
            for at, recorded, replayed in result.differences
        ],
    }


def _tell(exchange: str, result: Replayed) -> None:
    if result.note:
        note(result.note)
    verdict = f"{result.different} different" if result.different else "identical"
    click.echo(f"{exchange}: {result.frames} frames gave {result.trades} trades: {verdict}")
    for at, recorded, replayed in result.differences:
        click.echo(f"  trade {at}\n    recorded {_text(recorded) or '-'}\n    replayed {_text(replayed) or '-'}")


def _text(record: bytes | None) -> str | None:
    return None if record is None else record.decode(errors="replace")
