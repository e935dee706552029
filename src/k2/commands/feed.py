"""`k2 feed` captures one exchange; `k2 replay` decodes what it kept again and compares."""

import asyncio
import gc
import signal
import sys

import click

from k2 import metrics, wire
from k2.config import EXCHANGES, Config, ConfigError
from k2.exchanges import venue
from k2.feed.handler import Handler
from k2.feed.lock import only_one
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
