"""`k2 load`: the loader alone."""

import fcntl
import gc
import signal
import sys
import threading
from contextlib import ExitStack

import click

from k2 import trace
from k2.config import EXCHANGES, Config, ConfigError
from k2.log import LogError
from k2.metrics import serve
from k2.ops import journal
from k2.store import StoreError
from k2.store.loader import Loader
from k2.terminal import note
from k2.wire import open_log, open_store


@click.command()
@click.pass_obj
def load(config: Config) -> None:
    """Follow the log into the store until SIGTERM or Ctrl-C; then write what is left and end.

    The store has to run (`k2 store`, `k2 up` or `k2 demo`); while it does not, the loader waits and tries again.

    \b
    Examples:
      k2 load
      K2_METRICS_TRACE=trace k2 --data DIR load
    """
    journal.setup(config, "loader")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        config.run_dir.mkdir(parents=True, exist_ok=True)
        lock = stack.enter_context((config.run_dir / "loader.lock").open("a"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            note(f"k2 load: a loader already runs on {config.data_dir}: stop it, or choose another folder with --data")
            sys.exit(1)
        try:
            log = open_log(config)
            stack.callback(log.close)
            connections = open_store(config), open_store(config)
            for connection in connections:
                stack.callback(connection.close)
            serve(config, "loader")
            trace.start(config.metrics.trace)
            loader = Loader(log, *connections, config.loader, EXCHANGES)
            loader.measure()
            gc.freeze()  # what is here now stays, and a record is never part of a cycle
            gc.set_threshold(100_000, 20, 20)
            loader.run(stop)
        except (StoreError, LogError, ConfigError) as error:
            note(f"k2 load: {error}")
            sys.exit(1)
