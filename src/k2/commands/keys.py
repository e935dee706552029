"""`k2 keys`: who may ask the API."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click
import msgspec

from k2.config import Config
from k2.terminal import emit, note
from k2.web.keys import Key, KeysError, create, last_used, listed, revoke

_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_COLUMNS = ("key", "name", "state", "created", "expires", "last_used", "rate_per_s")


@click.group()
def keys() -> None:
    """Make, list and revoke the keys of the API (`k2 web`).

    Once there is a key, every request needs one, except /healthz, /readyz, /openapi.json, /docs and the page's own
    files. What is changed here counts within a second, without a restart.

    \b
    Exit status: 0 done, 1 it could not be done (the text says why).
    Examples:
      k2 keys create notebook
      k2 keys create partner --rate 5 --expires 30d
      k2 keys list
      k2 keys revoke notebook
    """


@keys.command("create")
@click.argument("name")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Requests a second (default: web.rate_per_s)."
)
@click.option("--expires", metavar="TIME", help="When it ends: 90m, 12h, 30d, 4w, or RFC 3339 (default: never).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def _create(config: Config, name: str, rate: float | None, expires: str | None, as_json: bool) -> None:
    """Make a key and print it, this once: only its hash is kept.

    \b
    Examples:
      k2 keys create notebook
      KEY=$(k2 keys create notebook); curl -H "Authorization: Bearer $KEY" http://127.0.0.1:8080/v1/symbols
    """
    with _told():
        key, text = create(config.keys_file, name, _moment(expires) if expires else 0, rate or 0.0)
        if as_json:
            click.echo(msgspec.json.encode({**_plain(key, {}), "secret": text}))
            return
        note(f"key {key.prefix}... for {name!r}, kept as a hash in {config.keys_file}. It is shown this once:")
        click.echo(text)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def _list(config: Config, as_json: bool) -> None:
    """All keys that were ever made: how each begins, its name and state, when it was made, ends, and was last used.

    \b
    Examples:
      k2 keys list
      k2 keys list --json
    """
    with _told():
        used = last_used(config.run_dir / "keys-used.json")
        rows = [tuple(_plain(key, used).values()) for key in listed(config.keys_file)]
        if not rows and not as_json:
            note("no keys yet: `k2 web` answers on loopback only, everybody on this machine; see `k2 keys create`")
        emit(_COLUMNS, rows, as_json)


@keys.command("revoke")
@click.argument("which", metavar="NAME|KEY")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def _revoke(config: Config, which: str, as_json: bool) -> None:
    """End a key for ever, by its name or by how it begins. Requests that use it are broken off within a second.

    \b
    Examples:
      k2 keys revoke notebook
      k2 keys revoke k2_1a2b3c4d_
    """
    with _told():
        key = revoke(config.keys_file, which)
        if as_json:
            click.echo(msgspec.json.encode(_plain(key, {})))
        else:
            note(f"revoked: {key.prefix}... ({key.name})")


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except KeysError as error:
        note(f"k2 keys: {error}")
        sys.exit(1)


def _plain(key: Key, used: dict[str, int]) -> dict[str, str | float | None]:
    times = (_time(key.created), _time(key.expires), _time(used.get(key.id, 0)))
    values = (key.prefix, key.name, key.state(time.time_ns()), *times, key.rate or None)
    return dict(zip(_COLUMNS, values, strict=True))


def _time(ns: int) -> str | None:
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if ns else None


def _moment(text: str) -> int:
    """When a key ends, ns UTC. Raises KeysError."""
    now = time.time_ns()
    if match := re.fullmatch(r"(\d{1,5})([mhdw])", text):
        return now + int(match[1]) * _UNITS[match[2]] * 1_000_000_000
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise KeysError(f"--expires {text!r} is no time: write 90m, 12h, 30d, 4w, or 2026-12-31T00:00:00Z") from None
    if when.tzinfo is None:
        raise KeysError(f"--expires {text!r} has no time zone: append Z for UTC")
    ns = int(when.timestamp()) * 1_000_000_000
    if ns <= now:
        raise KeysError(f"--expires {text!r} is past: a key that has ended is of no use")
    return ns
