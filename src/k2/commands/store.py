"""`k2 store` serves the hot store; `k2 sql` asks it."""

import sys
import time
from contextlib import closing
from pathlib import Path

import click
import msgspec

from k2 import metrics
from k2.config import Config, ConfigError
from k2.ops import journal
from k2.store import Store, StoreError, StoreUnavailable, as_of
from k2.store.pins import newest
from k2.terminal import emit, note
from k2.tier import TierError
from k2.wire import open_past, open_store, read_heads, serve_store

_ROWS = "JSONCompactStringsEachRowWithNames"


@click.command()
@click.option("--host", help="Address to listen on (default: store.host).")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one (default: store.port).")
@click.option("--read-only", is_flag=True, help="Change nothing in the folder; only store.readonly_user may ask.")
@click.pass_obj
def store(config: Config, host: str | None, port: int | None, read_only: bool) -> None:
    """Own the hot store and serve it over ClickHouse's HTTP protocol, until SIGTERM or Ctrl-C.

    \b
    Examples:
      k2 store                          on 127.0.0.1:8123
      k2 --data k2-demo store --port 0  a demo's data, on a free port
    """
    changed = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    served = msgspec.structs.replace(config.store, **changed)
    config = msgspec.structs.replace(config, data=str(config.data_dir), store=served)
    if read_only:
        config = _for_readers(config)
    else:
        journal.setup(config, "store")

    def ready(actual: int) -> None:
        address = f"http://{config.store.host}:{actual}"
        metrics.serve(config, "reader" if read_only else "store", address=address)
        note(f"store: listening on {address}")

    try:
        serve_store(config, ready, read_only)
    except (StoreError, ConfigError) as error:
        raise click.ClickException(str(error)) from None


def _for_readers(config: Config) -> Config:
    """The same without an account that may write."""
    if not config.store_dir.is_dir():
        raise click.ClickException(f"{config.data_dir} holds no store: name the folder with --data")
    readers = msgspec.structs.replace(
        config.store, user=config.store.readonly_user, password=config.store.readonly_password
    )
    return msgspec.structs.replace(config, store=readers)


@click.command()
@click.argument("query", required=False)
@click.option(
    "-f",
    "--file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Read the statements from a file (- is stdin).",
)
@click.option(
    "--format", "form", metavar="NAME", help="A ClickHouse output format, e.g. CSVWithNames, Parquet, Vertical."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a row.")
@click.option(
    "--as-of",
    "moment",
    metavar="TIME|SNAPSHOT",
    help="Ask the cold tables (database cold) as they were then; reading only.",
)
@click.pass_obj
def sql(
    config: Config, query: str | None, file: Path | None, form: str | None, as_json: bool, moment: str | None
) -> None:
    """Ask the store in ClickHouse SQL: k2 sql "SELECT count() FROM silver_trades".

    \b
    Examples:
      k2 sql "SELECT count() FROM trades"                                hot and cold as one
      k2 sql --as-of -1d "SELECT count() FROM trades"                    cold.trades of a day ago
      k2 sql --as-of 2026-01-31T12:00:00Z "SELECT max(exchange_ts) FROM trades"
      k2 sql --as-of 7707282298055536023 "SELECT count() FROM trades"    a snapshot of `k2 archive snapshots`
    """
    text = query or (sys.stdin.read() if file is None or str(file) == "-" else file.read_text())
    if not text.strip():
        raise click.UsageError('write a statement: k2 sql "SELECT count() FROM silver_trades"')
    client = open_store(config)
    try:
        if moment is not None:
            client = _past(config, client, moment)
        _show(client, text, form or ("JSONEachRow" if as_json else None))
    except StoreUnavailable as error:
        raise click.ClickException(
            f"{error}; start the store with `k2 up` (or `k2 demo`, or `k2 store` alone)"
        ) from None
    except StoreError as error:
        raise click.ClickException(str(as_of.told(error, moment or ""))) from None
    except TierError as error:
        raise click.ClickException(str(error)) from None
    finally:
        client.close()


def _past(config: Config, client: Store, text: str) -> Store:
    """A connection to the cold tables as they were; in place of `client`, which is closed."""
    with closing(client):
        moment = as_of.resolve(client, text, time.time_ns())
        pins = newest(client)
    for name, head in read_heads(config).items():
        if name in pins and pins[name].metadata != head.metadata_location and moment > pins[name].committed_ms:
            raise StoreError(
                f"the store does not show the newest snapshot of cold.{name} yet, which may be the one that was current"
                f" at {text}: run `k2 archive`, which shows it once the loader has what it holds"
            )
    return open_past(config, moment)


def _show(client: Store, text: str, form: str | None) -> None:
    if form is None and sys.stdout.isatty():
        lines = b"".join(client.stream(text, _ROWS)).splitlines()
        if lines:
            columns, *rows = (msgspec.json.decode(line) for line in lines)
            emit(columns, rows)
        return
    for chunk in client.stream(text, form or "TabSeparatedWithNames"):
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
